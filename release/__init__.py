"""Builds the files of a release from the output of `sam build`, without importing the project."""
