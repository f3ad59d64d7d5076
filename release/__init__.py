"""All files of a release, from the output of `sam build`. It imports nothing of the project."""
