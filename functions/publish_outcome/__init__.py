"""Publishes every stop on an event bus, and answers workflows."""
