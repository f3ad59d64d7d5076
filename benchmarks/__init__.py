"""What the product costs and how fast it is, side by side with a peer. README.md tells how to read it."""

import tools  # noqa: F401 - puts the functions' packages on the path
