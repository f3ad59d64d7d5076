"""The stack on one machine, for people and tests, instead of in the cloud."""
