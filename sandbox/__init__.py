"""The whole stack on one machine instead of in the cloud, for people and for tests."""
