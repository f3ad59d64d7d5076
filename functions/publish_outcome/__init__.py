"""Publishes every stop on an event bus, and answers the workflows that wait for stops."""
