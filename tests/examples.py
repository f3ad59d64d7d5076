"""The number of examples that Hypothesis tries: few before each commit, many in `make test-all`."""

from __future__ import annotations

from hypothesis import settings

# How long an example takes says nothing about the code: the machine may be busy.
settings.register_profile("quick", deadline=None, max_examples=40)
settings.register_profile("thorough", deadline=None, max_examples=400, print_blob=True)


def examples(hundredths: int) -> int:
    """Give how many a test tries that needs more or fewer than others: hundredths of what the profile says."""
    return max(1, hundredths * settings().max_examples // 100)
