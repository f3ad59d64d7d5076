"""The callbacks that this function environment has queued, so that none of them is queued twice."""

from __future__ import annotations


class QueuedCallbacks:
    """Remembers the last callbacks that were queued, by the values that are kept: one signature may cover several.

    A replay that another environment gets, or that comes after many others, is queued again. That is harmless: time
    decides what it may stop (docs/design.md).
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._seen: dict[int, None] = {}  # hashes, since callbacks may be long; in the order in which they came

    def add(self, values: tuple[str, ...]) -> None:
        """Remember a callback, once the queue has taken it."""
        self._seen[hash(values)] = None
        if len(self._seen) > self._most:
            del self._seen[next(iter(self._seen))]

    def __contains__(self, values: tuple[str, ...]) -> bool:
        return hash(values) in self._seen
