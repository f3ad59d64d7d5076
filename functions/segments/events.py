"""Reads the content and the time of a message, from the body in SQS to an `Event`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import fastjsonschema

from segments.envelopes import unwrap
from segments.errors import InvalidMessage
from segments.times import read_attribute_ms, read_ms

GIVEN_UP = "GivenUp"  # the attribute of a dead letter's copy, whose workflow could not be notified yet
FIRST_SENT_AT = "FirstSentAt"  # the attribute of a later copy: when the first message was sent, Unix ms
_validate = fastjsonschema.compile(json.loads(Path(__file__).with_name("event.schema.json").read_text()))


class EventType(StrEnum):
    """The event types of docs/events.md."""

    ROOM_ENDED = "RoomEnded"
    ROOM_DESTROY = "RoomDestroy"
    ROOM_GONE = "RoomGone"
    MODERATION_VIOLATION = "ModerationViolation"
    SEGMENT_STARTED = "SegmentStarted"
    SEGMENT_REAL_TIME_DATA = "SegmentRealTimeData"
    HEARTBEAT = "Heartbeat"


# A heartbeat requests the stop of this task, whichever task the message names. The task does not exist.
HEARTBEAT_ROOM_ID = "rtc-segment-stopper"
HEARTBEAT_TASK_ID = "heartbeat"
_OURS = (EventType.ROOM_GONE, EventType.HEARTBEAT)  # senders do not need these types
_LONGEST_WORD = 100  # comparing longer words would be slow
MOST_TOKEN_CHARACTERS = 2_048  # of a task token of Step Functions; also in event.schema.json
_OF_ONE_TASK = (EventType.SEGMENT_STARTED, EventType.SEGMENT_REAL_TIME_DATA)


@dataclass(frozen=True, order=True)
class Room:
    """A room of an RTC application."""

    app_id: str
    room_id: str


@dataclass(frozen=True, order=True)
class Task:
    """A segment task, named by AppId + RoomId + TaskId. A later task may reuse the name."""

    room: Room
    task_id: str


@dataclass(frozen=True)
class Event:
    """The event in a message."""

    type: EventType
    room: Room
    time_ms: int  # T, in Unix ms: never after the message was sent
    task_ids: tuple[str, ...] = ()  # empty: every task that may be running in the room
    event_id: str | None = None
    business_id: str | None = None
    is_second_try: bool = False  # its message was received before, was redriven, or is a later copy
    # Never logged: anyone who has the token can answer the workflow that waits for the message.
    task_token: str | None = field(default=None, repr=False)

    @property
    def is_stop(self) -> bool:
        """Whether the event requests a stop. Other events report a running task."""
        return self.type not in _OF_ONE_TASK

    @property
    def tasks(self) -> list[Task]:
        """The tasks that the event names."""
        return [Task(self.room, task_id) for task_id in self.task_ids]


def parse_event(
    body: str, sent_ms: int, redriven_time: str | None = None, *, is_second_try: bool = False
) -> Event | None:
    """Read the body of a message that SQS accepted at `sent_ms`. Returns None for a callback of an irrelevant type.

    `redriven_time` is the attribute EventTime of a redriven message or a later copy, in Unix ms or RFC 3339. Raises
    `InvalidMessage`, with the field and the rule, if the body breaks the contract.
    """
    content = unwrap(body)
    if content is None:
        return None
    try:
        _validate(content, name_prefix="message")
    except fastjsonschema.JsonSchemaValueException as error:
        raise InvalidMessage("InvalidField", _unknown_type(content) or error.message) from None
    times_ms = [sent_ms]
    if content.get("EventTime") is not None:
        times_ms.append(_to_ms(read_ms, content["EventTime"], "message.EventTime"))
    if redriven_time is not None:
        times_ms.append(redriven_ms(redriven_time))
        is_second_try = True
    event_type = EventType(content["EventType"])
    is_heartbeat = event_type is EventType.HEARTBEAT
    return Event(
        type=event_type,
        room=Room(content["AppId"], HEARTBEAT_ROOM_ID if is_heartbeat else content["RoomId"]),
        time_ms=min(times_ms),
        task_ids=(HEARTBEAT_TASK_ID,) if is_heartbeat else _task_ids(event_type, content),
        event_id=content.get("EventId"),
        business_id=content.get("BusinessId"),
        is_second_try=is_second_try,
        task_token=content.get("TaskToken"),
    )


def task_token(body: str) -> str | None:
    """Read the task token of a message that breaks the contract in other fields, or None if no token is readable."""
    try:
        content = unwrap(body) or {}
    except InvalidMessage:
        return None
    token = content.get("TaskToken")
    return token if isinstance(token, str) and 0 < len(token) <= MOST_TOKEN_CHARACTERS else None


def redriven_ms(text: str, name: str = "EventTime") -> int:
    """Read a time in an attribute of a redriven or copied message, in Unix ms or RFC 3339.

    Raises `InvalidMessage` if the attribute has another form, or if the time is too early.
    """
    return _to_ms(read_attribute_ms, text, f"the attribute {name}")


def _unknown_type(content: Mapping[str, Any]) -> str:
    """Write the error for an unknown EventType, with a suggestion, or an empty text if another field is wrong."""
    word = content.get("EventType")
    if not isinstance(word, str) or word in set(EventType):
        return ""
    import difflib  # here, since few messages need difflib, and the import would slow every cold start

    sent = [kind.value for kind in EventType if kind not in _OURS]
    near = difflib.get_close_matches(word[:_LONGEST_WORD], sent, n=1)
    advice = f"did you mean {near[0]}?" if near else f"use one of {', '.join(sent)}"
    return f"message.EventType is unknown: {advice}"


def _task_ids(event_type: EventType, content: Mapping[str, Any]) -> tuple[str, ...]:
    if event_type in _OF_ONE_TASK:
        return (content["TaskId"],)
    named = [content["TaskId"]] if content.get("TaskId") is not None else []
    return tuple(dict.fromkeys([*named, *(content.get("TaskIds") or [])]))


def _to_ms(read: Callable[[str], int], text: str, name: str) -> int:
    try:
        return read(text)
    except ValueError as error:
        raise InvalidMessage("InvalidField", f"{name}: {error}") from None
