"""Prevents a silent API from costing every message a full time-out."""

from __future__ import annotations

from collections.abc import Callable

from segments.errors import CircuitOpen

MOST_SILENCES = 10
OPEN_SECONDS = 10.0


class Circuit:
    """Open after MOST_SILENCES calls in a row without an answer; then one call every OPEN_SECONDS tries again.

    An error is an answer: only silence costs time. Each function environment has a circuit. A shared one would cost
    reads on every path, to save at most a few time-outs.
    """

    def __init__(self, clock_seconds: Callable[[], float]) -> None:
        self._clock_seconds = clock_seconds
        self._silences = 0
        self._next_trial = float("-inf")

    def check(self) -> None:
        """Raise `CircuitOpen` if the API has been silent and the next trial is not due."""
        if self._silences >= MOST_SILENCES and self._clock_seconds() < self._next_trial:
            raise CircuitOpen("CircuitOpen", "the API has not been answering, so this call was not made")

    def enter(self) -> None:
        """Let a call through, as the next trial if the API has been silent. Raises as `check` does."""
        self.check()
        if self._silences >= MOST_SILENCES:
            self._next_trial = self._clock_seconds() + OPEN_SECONDS

    def note(self, *, answered: bool) -> None:
        """Record the result of a call."""
        self._silences = 0 if answered else self._silences + 1
        if self._silences == MOST_SILENCES:
            self._next_trial = self._clock_seconds() + OPEN_SECONDS
