"""Checks rooms that may have running tasks: if a room is gone, the stop of its tasks is requested."""
