"""What the product costs and how fast it is, side by side with a peer. README.md tells how to read it."""
