"""Tells an event bus of every stop that was done."""
