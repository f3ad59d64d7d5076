"""Receives the RTC server's callbacks and puts those that concern segment tasks on the event queue."""
