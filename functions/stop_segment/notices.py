"""What workflows are told of a dead letter: the detail of a `SegmentStopFailed` event."""

from __future__ import annotations

import json
from typing import Any

from segments.events import EventType
from segments.times import to_rfc3339
from stop_segment.failures import Failure


def is_told(failure: Failure) -> bool:
    """Tell whether workflows hear of a failure: no heartbeat is anything that they wait for."""
    return failure.event is None or failure.event.type is not EventType.HEARTBEAT


def notice(failure: Failure, kind: str, now_ms: int) -> str:
    """Write the detail, in JSON; what is not known is left out.

    Parameters
    ----------
    kind
        Its ErrorKind.
    now_ms
        When it was given up, Unix ms.
    """
    event, error = failure.event, failure.error
    values: dict[str, Any] = {}
    if event is not None:
        values = {
            "AppId": event.room.app_id,
            "RoomId": event.room.room_id,
            "TaskIds": list(event.task_ids) or None,
            "BusinessId": event.business_id,
            "EventType": event.type.value,
            "EventId": event.event_id,
        }
    values |= {
        "ErrorKind": kind,
        "ErrorCode": error.code,
        "ErrorMessage": error.message,
        "RequestId": error.request_id,
        "SourceMessageId": failure.message_id,
        "EventTime": to_rfc3339(failure.event_time_ms),
        "FailedAt": to_rfc3339(now_ms),
    }
    return json.dumps({name: value for name, value in values.items() if value is not None})
