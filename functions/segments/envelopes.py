"""The envelopes of an event: EventBridge event, SNS notification, raw RTC callback, or nested envelopes."""

from __future__ import annotations

import json
import re
from typing import Any

from segments.errors import InvalidMessage
from segments.times import read_callback_ms, to_rfc3339

MOST_ENVELOPES = 4
_CALLBACKS = {
    "RoomDestroy": ("RoomId",),
    "SegmentRealTimeData": ("RoomId", "TaskId", "BusinessId"),
}
ID = re.compile(r"[a-zA-Z0-9_@.-]{1,128}")


def unwrap(body: str) -> dict[str, Any] | None:
    """Take an unchecked event out of its envelopes. Returns None for an RTC callback of an irrelevant type.

    Raises `InvalidMessage` if an envelope breaks the contract, or if the envelopes nest too deep.
    """
    content = _json_object(body, "the body")
    outer_time = None
    for _ in range(MOST_ENVELOPES):
        # First: otherwise a field that no signature covers could turn a signed callback into another envelope.
        if "EventData" in content:
            return _from_callback(content, outer_time)
        outer_time = content.get("Timestamp", content.get("time"))
        if "detail-type" in content and "detail" in content:
            if not isinstance(content["detail"], dict):
                raise InvalidMessage("InvalidEnvelope", "detail of the EventBridge event must be a JSON object")
            # EventBridge's time has whole seconds only.
            outside, content = (
                {"EventType": content["detail-type"], "EventTime": content.get("time")},
                content["detail"],
            )
        elif content.get("Type") == "Notification" and "Message" in content:
            # SNS retries for days: without this time, a late notification would look like a new event.
            outside = {"EventTime": content.get("Timestamp")}
            content = _json_object(content["Message"], "Message")
        else:
            return content
        # The inner event's fields take precedence.
        content |= {key: value for key, value in outside.items() if value is not None and content.get(key) is None}
    raise InvalidMessage("TooManyEnvelopes", f"the event must have at most {MOST_ENVELOPES - 1} envelopes")


def _from_callback(envelope: dict[str, Any], outer_time: object) -> dict[str, Any] | None:
    event_type = envelope.get("EventType")
    if not isinstance(event_type, str):
        raise InvalidMessage("InvalidField", "message.EventType must be a string")
    if event_type not in _CALLBACKS:
        return None
    data = _json_object(envelope["EventData"], "EventData")
    content = {key: data[key] for key in _CALLBACKS[event_type] if key in data}
    if not content.get("BusinessId"):
        content.pop("BusinessId", None)  # the RTC server sends an empty BusinessId if an application has none
    content["EventType"] = event_type
    # An unreadable time is no reason to refuse a room's end: the time of the callback's arrival is known.
    times_ms = (read_callback_ms(envelope.get("EventTime")), read_callback_ms(outer_time))
    if (time_ms := next((found for found in times_ms if found is not None), None)) is not None:
        content["EventTime"] = to_rfc3339(time_ms)
    app_id = envelope.get("AppId")
    content["AppId"] = data.get("AppId") if app_id is None else app_id
    event_id = envelope.get("EventId")
    if isinstance(event_id, str) and ID.fullmatch(event_id):
        # The server's ids are kept only for people, so an unusual id is no reason to refuse a room's end.
        content["EventId"] = event_id
    return content


def _json_object(text: object, name: str) -> dict[str, Any]:
    if not isinstance(text, str):
        raise InvalidMessage("NotJson", f"{name} must be a string that holds a JSON object")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        place = f", line {error.lineno} column {error.colno}" if isinstance(error, json.JSONDecodeError) else ""
        raise InvalidMessage("NotJson", f"{name} is not JSON{place}") from None
    if not isinstance(value, dict):
        raise InvalidMessage("NotAnObject", f"{name} must be a JSON object")
    return value
