"""The callbacks that this function environment has queued, so that none of them is queued twice."""

from __future__ import annotations


class QueuedCallbacks:
    """Remembers the signatures of the callbacks that were queued last.

    A replay that another environment gets, or that comes after many others, is queued again. That is harmless: time
    decides what it may stop (docs/design.md).

    Parameters
    ----------
    most
        How many are remembered.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._signatures: dict[str, None] = {}  # in the order in which they came

    def add(self, signature: str) -> None:
        """Remember a signed callback, once the queue has taken it."""
        self._signatures[signature] = None
        if len(self._signatures) > self._most:
            del self._signatures[next(iter(self._signatures))]

    def __contains__(self, signature: str) -> bool:
        return signature in self._signatures
