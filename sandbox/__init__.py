"""What people and tests run on their own machine instead of the cloud."""
