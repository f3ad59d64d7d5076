"""What the functions and the tools share: a segment task's events, rules and ledger, and how the RTC API is called.

The import contracts in pyproject.toml list the modules of each package from the top; `make lint` checks them.
"""
