"""The limits of one call of a batch action of SQS or EventBridge, in entries and in bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

ENTRIES_A_CALL = 10
SQS_BYTES_A_CALL = 1_048_576
# PutEvents refused larger calls when this limit was recorded. The documentation says 1 MB now, which was not tried.
PUT_EVENTS_BYTES_A_CALL = 262_144

T = TypeVar("T")


def parts(
    items: Sequence[T],
    bytes_of: Callable[[T], int] = lambda _: 0,
    most: int = ENTRIES_A_CALL,
    most_bytes: int = SQS_BYTES_A_CALL,
) -> Iterator[list[T]]:
    """Split items into parts, each for one call. An item that is too large for a call becomes a separate part."""
    part: list[T] = []
    part_bytes = 0
    for item in items:
        item_bytes = bytes_of(item)
        if part and (len(part) == most or part_bytes + item_bytes > most_bytes):
            yield part
            part, part_bytes = [], 0
        part.append(item)
        part_bytes += item_bytes
    if part:
        yield part


def at_once(steps: Sequence[Callable[[], T]]) -> list[T]:
    """Run steps at the same time, each in a thread, and return their results."""
    if len(steps) < 2:
        return [step() for step in steps]
    with ThreadPoolExecutor(len(steps)) as threads:
        return list(threads.map(lambda step: step(), steps))
