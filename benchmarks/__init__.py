"""The product's cost and speed, beside a peer. README.md explains the figures."""

import tools  # noqa: F401 - puts the functions' packages on the path
