"""The events for other systems: `SegmentStopped` for a stop in the table, `SegmentStopFailed` for a dead letter."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from segments.batches import PUT_EVENTS_BYTES_A_CALL
from segments.times import read_ms, read_stored_ms, to_rfc3339, utc

if TYPE_CHECKING:
    from mypy_boto3_events.type_defs import PutEventsRequestEntryTypeDef

SOURCE = "rtc-segment-stopper"
STOPPED = "SegmentStopped"
STOP_FAILED = "SegmentStopFailed"
_DETAILS = {
    "BusinessId": "business_id",
    "Outcome": "outcome",
    "RequestId": "request_id",
    "EventType": "event_type",
    "EventId": "event_id",
}
_REQUIRED = ("outcome", "event_type")
_TIME_BYTES = 14  # EventBridge's guide, "Calculating PutEvents event entry size"
_ROOM = re.compile("([a-zA-Z0-9_@.-]{1,128})#([a-zA-Z0-9_@.-]{1,128})")

# An item before or after its change: attributes in DynamoDB's own form, each value under the name of its type.
Image = Mapping[str, Mapping[str, Any]]


class Unpublishable(Exception):
    """A table change or a notice has a form that no function writes. The message names the field and the rule."""


def segment_stopped(old: Image, new: Image, bus_name: str) -> PutEventsRequestEntryTypeDef | None:
    """Create the event for a change of an item from `old` to `new` (empty if missing). Raises `Unpublishable`.

    Returns None if the change is not a stop, but a start, a sighting, a room's end, an expiry, or a heartbeat.
    """
    if "stopped_at" not in new or new.get("event_type") == {"S": "Heartbeat"} or _stop_of(new) == _stop_of(old):
        return None
    room = _ROOM.fullmatch(_text(new, "room"))
    if room is None:
        raise Unpublishable("the attribute room must be an AppId, # and a RoomId")
    stopped_at_ms = _time_ms(new, "stopped_at")
    said = {name: attribute for name, attribute in _DETAILS.items() if attribute in new or attribute in _REQUIRED}
    detail = {
        "AppId": room[1],
        "RoomId": room[2],
        "TaskId": _text(new, "task_id"),
        **{name: _text(new, attribute) for name, attribute in said.items()},
        "EventTime": to_rfc3339(_time_ms(new, "stop_event_time")),
        "StoppedAt": to_rfc3339(stopped_at_ms),
    }
    return _entry(STOPPED, stopped_at_ms, json.dumps(detail), bus_name)


def segment_stop_failed(detail: str, bus_name: str) -> PutEventsRequestEntryTypeDef:
    """Create the event for a dead letter, with the stop function's notice as the detail. Raises `Unpublishable`."""
    try:
        failed_at_ms = read_ms(json.loads(detail)["FailedAt"])
    except (ValueError, TypeError, LookupError, RecursionError):
        raise Unpublishable("the notice of a dead letter must be a JSON object with a time FailedAt") from None
    return _entry(STOP_FAILED, failed_at_ms, detail, bus_name)


def bytes_of(entry: PutEventsRequestEntryTypeDef) -> int:
    """Count an entry's bytes as EventBridge does."""
    return _TIME_BYTES + sum(len(text.encode()) for text in (entry["Source"], entry["DetailType"], entry["Detail"]))


def _entry(detail_type: str, time_ms: int, detail: str, bus_name: str) -> PutEventsRequestEntryTypeDef:
    entry: PutEventsRequestEntryTypeDef = {
        "Source": SOURCE,
        "DetailType": detail_type,
        "Time": utc(time_ms),
        "EventBusName": bus_name,
        "Detail": detail,
    }
    if bytes_of(entry) > PUT_EVENTS_BYTES_A_CALL:
        raise Unpublishable(f"the outcome event must have at most {PUT_EVENTS_BYTES_A_CALL} bytes")
    return entry


def _stop_of(item: Image) -> tuple[Any, ...]:
    return item.get("stop_event_time"), item.get("stopped_at"), item.get("request_id")


def _text(item: Image, attribute: str) -> str:
    text = item.get(attribute, {}).get("S")
    if not isinstance(text, str) or not text:
        raise Unpublishable(f"the attribute {attribute} must be a string that is not empty")
    return text


def _time_ms(item: Image, attribute: str) -> int:
    time_ms = read_stored_ms(item.get(attribute, {}).get("N"))
    if time_ms is None:
        raise Unpublishable(f"the attribute {attribute} must be a time in Unix ms, not before 2018")
    return time_ms
