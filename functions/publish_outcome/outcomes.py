"""What others are told: a `SegmentStopped` event for a change of the table that is a stop, and `SegmentStopFailed`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from segments.times import read_ms, to_rfc3339, utc

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


def segment_stopped(
    old: Mapping[str, Any], new: Mapping[str, Any], bus_name: str
) -> PutEventsRequestEntryTypeDef | None:
    """Make the event for a change of an item.

    Parameters
    ----------
    old, new
        The item before and after, by attribute; empty where there was none.

    Returns
    -------
    dict | None
        An entry for PutEvents; None where the change is no stop: a start, a sighting, a room's end, an expiry, or a
        heartbeat.
    """
    if "stopped_at" not in new or new.get("event_type") == "Heartbeat" or _stop_of(new) == _stop_of(old):
        return None
    app_id, _, room_id = new["room"].partition("#")
    stopped_at_ms = int(new["stopped_at"])
    detail = {
        "AppId": app_id,
        "RoomId": room_id,
        "TaskId": new["task_id"],
        **{name: new[attribute] for name, attribute in _DETAILS.items() if attribute in new},
        "EventTime": to_rfc3339(int(new["stop_event_time"])),
        "StoppedAt": to_rfc3339(stopped_at_ms),
    }
    return _entry(STOPPED, stopped_at_ms, json.dumps(detail), bus_name)


def segment_stop_failed(detail: str, bus_name: str) -> PutEventsRequestEntryTypeDef:
    """Make the event for a dead letter.

    Parameters
    ----------
    detail
        The event's detail, as the stop function wrote it.
    """
    return _entry(STOP_FAILED, read_ms(json.loads(detail)["FailedAt"]), detail, bus_name)


def _entry(detail_type: str, time_ms: int, detail: str, bus_name: str) -> PutEventsRequestEntryTypeDef:
    return {
        "Source": SOURCE,
        "DetailType": detail_type,
        "Time": utc(time_ms),
        "EventBusName": bus_name,
        "Detail": detail,
    }


def _stop_of(item: Mapping[str, Any]) -> tuple[Any, ...]:
    return item.get("stop_event_time"), item.get("stopped_at"), item.get("request_id")
