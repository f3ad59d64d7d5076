"""Times and ages, as people write and read them."""

from __future__ import annotations

import re

from segments.times import EARLIEST_MS, LATEST_MS, utc

_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_AGE = re.compile(r"(?P<number>[0-9]{1,9})(?P<unit>[smhdw])")


def parse_age(text: str) -> int:
    """Read an age such as `90s`, `15m`, `2h`, `3d` or `1w`.

    Returns
    -------
    int
        Seconds.

    Raises
    ------
    ValueError
        The text is not an age.
    """
    match = _AGE.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not an age: write a number and s, m, h, d or w, such as 15m")
    return int(match["number"]) * _SECONDS[match["unit"]]


def readable_time(time_ms: int) -> str:
    """Write a time in Unix ms as a date and time in UTC."""
    if not EARLIEST_MS <= time_ms <= LATEST_MS:  # the sender of a letter may write any number
        return f"{time_ms} ms"
    return f"{utc(time_ms):%Y-%m-%d %H:%M:%S}.{time_ms % 1000:03d} UTC"


def readable_age(time_ms: int, now_ms: int) -> str:
    """Describe the length of time between `time_ms` and now, in the largest unit that gives 2 or more."""
    seconds, is_past = abs(now_ms - time_ms) // 1000, time_ms <= now_ms
    unit = next((unit for unit in "dhm" if seconds >= 2 * _SECONDS[unit]), "s")
    size = _SECONDS[unit]
    count = seconds // size if is_past else -(-seconds // size)  # a week minus a second is still "in 7 d"
    length = f"{count} {'min' if unit == 'm' else unit}"
    return f"{length} ago" if is_past else f"in {length}"
