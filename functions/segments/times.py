"""Times are Unix ms inside the functions, RFC 3339 outside. Every function reads and writes its times with this module.

Readers accept times from `EARLIEST_MS` to `LATEST_MS`: no event of the RTC service is older, and no date is later.
Writers never raise an error. Some programs send the year 1 or 1970 for "never set", and seconds that are read as
milliseconds also give 1970.
"""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime, timedelta

EARLIEST_MS = 1_514_764_800_000  # 2018-01-01: the RTC service did not exist before
LATEST_MS = 253_402_300_799_999  # the last millisecond of the year 9999
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DATE = "(?P<date>[0-9]{4}-[0-9]{2}-[0-9]{2})"
# Newer versions of Python accept the hour 24.
_CLOCK = r"(?P<clock>(?:[01][0-9]|2[0-3]):[0-9]{2}:[0-9]{2})(?:[.](?P<fraction>[0-9]+))?"
# The form of contracts/event.schema.json.
_RFC3339 = re.compile(f"{_DATE}T{_CLOCK}(?:Z|(?P<sign>[+-])(?P<hours>[0-9]{{2}}):(?P<minutes>[0-9]{{2}}))")
# ISO 8601 of the RTC servers: an offset without its colon or minutes, a blank after the T or in place of it.
_ISO8601 = re.compile(
    rf"{_DATE}(?:[Tt]\s*|\s+){_CLOCK}\s*(?:[Zz]|(?P<sign>[+-])(?P<hours>[0-9]{{2}})(?::?(?P<minutes>[0-9]{{2}}))?)"
)
_MOST_CHARACTERS = 64
_WHOLE_NUMBER = re.compile("-?[0-9]{1,15}")


def now_ms() -> int:
    """Return the current time in Unix ms."""
    return time.time_ns() // 1_000_000


def read_ms(text: str) -> int:
    """Read a date and time in RFC 3339, as Unix ms. Raises `ValueError` with the broken rule."""
    found_ms = _find_ms(_RFC3339, text)
    if found_ms is None:
        raise ValueError("the time must be an existing date and time with an offset, in RFC 3339")
    return _not_too_early(found_ms)


def read_attribute_ms(text: str) -> int:
    """Read a message attribute that holds Unix ms or RFC 3339, as Unix ms. Raises `ValueError` as `read_ms` does."""
    found_ms = int(text) if _WHOLE_NUMBER.fullmatch(text) else _find_ms(_RFC3339, text)
    if found_ms is None:
        raise ValueError("the time must be Unix ms, or an existing date and time with an offset, in RFC 3339")
    return _not_too_early(found_ms)


def read_callback_ms(event_time: object) -> int | None:
    """Read the EventTime of an RTC callback, as Unix ms.

    Returns None if the time is unreadable or too early. Then the time of arrival counts, so no room end is lost.
    """
    found_ms = _find_ms(_ISO8601, event_time.strip()) if isinstance(event_time, str) else None
    return None if found_ms is None or found_ms < EARLIEST_MS else min(found_ms, LATEST_MS)


def find_callback_ms(text: str) -> int | None:
    """Read the first time in a text that `read_callback_ms` can read."""
    times_ms = (read_callback_ms(found.group()) for found in _ISO8601.finditer(text))
    return next((found_ms for found_ms in times_ms if found_ms is not None), None)


def read_stored_ms(number: object) -> int | None:
    """Read a number as DynamoDB writes it, as Unix ms. Returns None if no function could have written this time."""
    if not isinstance(number, str) or not _WHOLE_NUMBER.fullmatch(number):
        return None
    return int(number) if EARLIEST_MS <= int(number) <= LATEST_MS else None


def utc(unix_ms: int) -> datetime:
    """Return Unix ms as a date and time in UTC. A time outside the readers' range becomes the nearest time inside."""
    return _EPOCH + timedelta(milliseconds=max(EARLIEST_MS, min(unix_ms, LATEST_MS)))


def to_rfc3339(unix_ms: int) -> str:
    """Write Unix ms in RFC 3339, within the range of `utc`."""
    return utc(unix_ms).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _find_ms(form: re.Pattern[str], text: str) -> int | None:
    """Read a time in this form, as Unix ms. Returns None if the text has another form or the time does not exist."""
    found = form.fullmatch(text[:_MOST_CHARACTERS])
    if found is None or len(text) > _MOST_CHARACTERS:
        return None
    part = found.groupdict()
    try:
        moment = datetime.fromisoformat(f"{part['date']}T{part['clock']}+00:00")
    except ValueError:
        return None
    hours, minutes = int(part["hours"] or 0), int(part["minutes"] or 0)
    if hours > 23 or minutes > 59:
        return None
    fraction_ms = int(f"{part['fraction'] or ''}000"[:3])
    # With integers: a datetime near its limits would overflow with an offset.
    offset_ms = (-60_000 if part["sign"] == "-" else 60_000) * (60 * hours + minutes)
    return (moment - _EPOCH) // timedelta(milliseconds=1) + fraction_ms - offset_ms


def _not_too_early(unix_ms: int) -> int:
    if unix_ms < EARLIEST_MS:
        raise ValueError("the time must not be before 2018, when the RTC service did not exist")
    return min(unix_ms, LATEST_MS)
