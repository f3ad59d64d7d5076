"""Times, as Unix ms and as text."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def now_ms() -> int:
    """Return the time of day, Unix ms."""
    return time.time_ns() // 1_000_000


def from_rfc3339(text: str) -> int:
    """Read a date and time with its offset, as Unix ms.

    Raises
    ------
    ValueError
        It is no such thing.
    """
    try:
        return (datetime.fromisoformat(text) - _EPOCH) // timedelta(milliseconds=1)
    except (TypeError, OverflowError) as error:
        raise ValueError(str(error)) from None


def utc(unix_ms: int) -> datetime:
    """Return Unix ms as a date and time in UTC."""
    return _EPOCH + timedelta(milliseconds=unix_ms)


def to_rfc3339(unix_ms: int) -> str:
    """Write Unix ms as a date and time in UTC."""
    return utc(unix_ms).isoformat(timespec="milliseconds").replace("+00:00", "Z")
