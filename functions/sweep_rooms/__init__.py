"""Looks after rooms whose tasks may be running: what nobody told to stop is stopped when its room is gone."""
