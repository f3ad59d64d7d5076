"""All that a release holds, made from what `sam build` has made. It imports nothing of the project."""
