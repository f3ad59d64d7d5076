"""The messages to the publishing function, in JSON: notices of dead letters, and answers for workflows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from segments.events import Event, EventType
from segments.times import to_rfc3339
from stop_segment.arrivals import Arrival
from stop_segment.failures import Failure
from stop_segment.stopper import Done

# Step Functions accepts an output of 256 KiB, an error of 256 characters and a cause of 32,768. Part of the 256 KiB is
# left for the workflow's other data.
MOST_OUTPUT_BYTES = 200_000
MOST_ERROR_CHARACTERS = 256
MOST_CAUSE_CHARACTERS = 32_768


def is_published(failure: Failure) -> bool:
    """Return whether a failure's dead letter is published. The dead letters of heartbeats are not."""
    event = failure.arrival.event
    return event is None or event.type is not EventType.HEARTBEAT


def notice(failure: Failure, kind: str, now_ms: int) -> str:
    """Write the detail of a `SegmentStopFailed` event for a dead letter with this ErrorKind."""
    event, error = failure.arrival.event, failure.error
    values = {} if event is None else _event_fields(event) | {"TaskIds": list(event.task_ids) or None}
    values |= {
        "ErrorKind": kind,
        "ErrorCode": error.code,
        "ErrorMessage": error.message,
        "RequestId": error.request_id,
        "SourceMessageId": failure.message_id,
        "EventTime": to_rfc3339(failure.arrival.time_ms),
        "FailedAt": to_rfc3339(now_ms),
    }
    return json.dumps(_known(values))


def served_well(message_id: str, event: Event, done: Sequence[Done]) -> str:
    """Write the answer for the workflow of a message that was served, with the result of each task.

    If the room has more tasks than an answer can hold, the answer counts the tasks that it leaves out.
    """
    output = _event_fields(event) | {
        "EventTime": to_rfc3339(event.time_ms),
        "Outcome": next((one.outcome.value for one in done if one.task_id is None), None),
        "Tasks": [
            _known({"TaskId": one.task_id, "Outcome": one.outcome.value, "RequestId": one.request_id})
            for one in done
            if one.task_id is not None
        ],
    }
    return _answer(message_id, event.task_token, {"Output": _bounded(_known(output))})


def failed(failure: Failure, kind: str) -> str:
    """Write the answer for the workflow of a message that became a dead letter with this ErrorKind."""
    error = failure.error
    return _failure(failure.message_id, failure.arrival.task_token, kind, error.code, error.message)


def failed_before(copy: Arrival) -> str:
    """Write the answer for the workflow of an earlier dead letter, from the attributes of the letter's copy."""
    said = (copy.attributes.get(name, "") for name in ("ErrorKind", "ErrorCode", "ErrorMessage"))
    return _failure(copy.attributes.get("SourceMessageId", copy.message_id), copy.task_token, *said)


def _failure(message_id: str, task_token: str | None, kind: str, code: str, text: str) -> str:
    result = {"Error": code[:MOST_ERROR_CHARACTERS], "Cause": f"{kind}: {text}"[:MOST_CAUSE_CHARACTERS]}
    return _answer(message_id, task_token, result)


def _answer(message_id: str, task_token: str | None, result: dict[str, Any]) -> str:
    return json.dumps({"TaskToken": task_token, "SourceMessageId": message_id, **result})


def _event_fields(event: Event) -> dict[str, Any]:
    return {
        "EventType": event.type.value,
        "AppId": event.room.app_id,
        "RoomId": event.room.room_id,
        "EventId": event.event_id,
        "BusinessId": event.business_id,
    }


def _known(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _bounded(output: dict[str, Any]) -> dict[str, Any]:
    tasks = output["Tasks"]
    count = len(tasks)
    while len(json.dumps(output)) > MOST_OUTPUT_BYTES and count:
        count //= 2
        output = output | {"Tasks": tasks[:count], "TasksLeftOut": len(tasks) - count}
    return output
