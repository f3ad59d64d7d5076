"""Receives the RTC server's callbacks, and puts callbacks about segment tasks on the event queue."""
