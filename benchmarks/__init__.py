"""The cost and speed of the product, compared with a peer. README.md explains the figures."""

import tools  # noqa: F401 - puts the functions' packages on the path
