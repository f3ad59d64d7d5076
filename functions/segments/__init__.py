"""The shared package of the functions and the tools: events, rules, the segment table, and calls of the RTC API.

The import contracts in pyproject.toml list the modules of each package from the top. `make lint` checks the contracts.
"""
