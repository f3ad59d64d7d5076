"""Stops segment tasks through the RTC API, as the event queue's messages say."""
