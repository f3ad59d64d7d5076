"""The wrappings that an event may arrive in: EventBridge event, SNS notification, raw RTC callback, or nested ones."""

from __future__ import annotations

import json
import re
from typing import Any

from segments.errors import InvalidMessage

MOST_ENVELOPES = 4
_CALLBACKS = {
    "RoomDestroy": ("RoomId",),
    "SegmentRealTimeData": ("RoomId", "TaskId", "BusinessId"),
}
ID = re.compile(r"[a-zA-Z0-9_@.-]{1,128}")


def unwrap(body: str) -> dict[str, Any] | None:
    """Take an event out of its envelopes.

    Parameters
    ----------
    body
        The message's body.

    Returns
    -------
    dict | None
        The event's own object, not yet checked. None is an RTC callback of a type that does not concern us.

    Raises
    ------
    InvalidMessage
        A body, or a string that should hold JSON inside it, does not hold a JSON object, or the nesting is too deep.
    """
    content = _json_object(body, "the body")
    for _ in range(MOST_ENVELOPES):
        # First: else a key that no signature covers could turn a signed callback into another envelope.
        if "EventData" in content:
            return _from_callback(content)
        if "detail-type" in content and "detail" in content:
            content = _from_event_bridge(content)
        elif content.get("Type") == "Notification" and "Message" in content:
            content = _from_notification(content)
        else:
            return content
    raise InvalidMessage("TooManyEnvelopes", f"the event must be wrapped at most {MOST_ENVELOPES - 1} times")


def _from_event_bridge(envelope: dict[str, Any]) -> dict[str, Any]:
    detail = envelope["detail"]
    if not isinstance(detail, dict):
        raise InvalidMessage("InvalidEnvelope", "detail must be an object")
    # What the detail says itself is nearer to the event: EventBridge's own time has whole seconds only.
    outside = {"EventType": envelope["detail-type"], "EventTime": envelope.get("time")}
    return {key: value for key, value in outside.items() if value is not None} | detail


def _from_notification(envelope: dict[str, Any]) -> dict[str, Any]:
    # SNS tries for days to deliver: without its time a late notification would pass for a new event.
    outside = {"EventTime": envelope["Timestamp"]} if "Timestamp" in envelope else {}
    return outside | _json_object(envelope["Message"], "Message")


def _from_callback(envelope: dict[str, Any]) -> dict[str, Any] | None:
    event_type = envelope.get("EventType")
    if not isinstance(event_type, str):
        raise InvalidMessage("InvalidField", "message.EventType must be string")
    if event_type not in _CALLBACKS:
        return None
    data = _json_object(envelope["EventData"], "EventData")
    content = {key: data[key] for key in _CALLBACKS[event_type] if key in data}
    if not content.get("BusinessId"):
        # The RTC server leaves it empty where an application has none.
        content.pop("BusinessId", None)
    content |= {key: envelope[key] for key in ("EventType", "EventTime") if key in envelope}
    content["AppId"] = envelope.get("AppId", data.get("AppId"))
    event_id = envelope.get("EventId")
    if isinstance(event_id, str) and ID.fullmatch(event_id):
        # The server's ids are only kept for people, so an unusual one is no reason to refuse a room's end.
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
