"""The number of examples that Hypothesis tries: few before each commit, many in `make test-all`."""

from __future__ import annotations

from hypothesis import settings

# How long an example takes says nothing about the code: the machine may be busy.
QUICK, THOROUGH = 40, 400
settings.register_profile("quick", deadline=None, max_examples=QUICK)
settings.register_profile("thorough", deadline=None, max_examples=THOROUGH, print_blob=True)


def examples(hundredths: int, by_night: int | None = None) -> int:
    """Return the number of examples for a test, as a percentage of the profile's number. `by_night` is the percentage
    for the thorough profile, if it differs.
    """
    most = settings().max_examples
    share = by_night if by_night and most == THOROUGH else hundredths
    return max(1, share * most // 100)
