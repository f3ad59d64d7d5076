"""Avoids a full time-out for every message while the API does not answer."""

from __future__ import annotations

from collections.abc import Callable

from segments.errors import CircuitOpen

MOST_SILENCES = 10
OPEN_SECONDS = 10.0


class Circuit:
    """Opens after MOST_SILENCES calls in a row without an answer. Then 1 call every OPEN_SECONDS is let through.

    An error counts as an answer: only a missing answer costs time. Each function environment has a circuit. A shared
    circuit would cost reads on every path, and would save at most a few time-outs.
    """

    def __init__(self, clock_seconds: Callable[[], float]) -> None:
        self._clock_seconds = clock_seconds
        self._silences = 0
        self._next_trial = float("-inf")

    def check(self) -> None:
        """Raise `CircuitOpen` if the circuit is open and the next trial call is not due."""
        if self._silences >= MOST_SILENCES and self._clock_seconds() < self._next_trial:
            raise CircuitOpen("CircuitOpen", "the API did not answer the last calls: try this call later")

    def enter(self) -> None:
        """Let a call through, as the trial call if the circuit is open. Raises `CircuitOpen` as `check` does."""
        self.check()
        if self._silences >= MOST_SILENCES:
            self._next_trial = self._clock_seconds() + OPEN_SECONDS

    def note(self, *, answered: bool) -> None:
        """Record whether a call was answered."""
        self._silences = 0 if answered else self._silences + 1
        if self._silences == MOST_SILENCES:
            self._next_trial = self._clock_seconds() + OPEN_SECONDS
