"""What AWS takes in one call of a batch action: so many entries, and so many bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

ENTRIES_A_CALL = 10
_BYTES_A_CALL = 1_048_576

T = TypeVar("T")


def parts(
    items: Sequence[T], bytes_of: Callable[[T], int] = lambda _: 0, most: int = ENTRIES_A_CALL
) -> Iterator[list[T]]:
    """Split what is to be done into what SQS takes in one call, and at most `most` of it."""
    part: list[T] = []
    part_bytes = 0
    for item in items:
        item_bytes = bytes_of(item)
        if part and (len(part) == most or part_bytes + item_bytes > _BYTES_A_CALL):
            yield part
            part, part_bytes = [], 0
        part.append(item)
        part_bytes += item_bytes
    if part:
        yield part
