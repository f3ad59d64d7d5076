"""The files of a release, made from the output of `sam build` without importing the project."""
