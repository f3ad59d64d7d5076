"""Stops segment tasks through the RTC API, as the messages of the event queue request."""
