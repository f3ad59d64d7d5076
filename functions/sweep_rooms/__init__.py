"""Checks rooms that may have running tasks. If a room is gone, the stop of the room's tasks is requested."""
