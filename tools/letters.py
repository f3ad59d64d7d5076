"""Dead letters as values: parsing, selection, and groups by reason."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from segments.envelopes import ID, unwrap
from segments.errors import InvalidMessage
from segments.events import Room, parse_event
from segments.times import read_attribute_ms

if TYPE_CHECKING:
    from mypy_boto3_sqs.type_defs import MessageAttributeValueOutputTypeDef, MessageTypeDef

DIED = "died"  # the kind of a letter without ErrorKind: SQS moved the message after the function had crashed
_FIELDS = {
    "ErrorKind": "kind",
    "ErrorCode": "code",
    "ErrorMessage": "error_message",
    "RequestId": "request_id",
    "FailedAt": "failed_at_ms",
    "SourceMessageId": "source_message_id",
    "ReceiveCount": "receive_count",
    "EventTime": "event_time_ms",
}
KINDS = ("invalid_message", "rejected", "exhausted", DIED)
HOPELESS = ("invalid_message", "rejected")  # the sender must correct these messages: an unchanged message fails again


@dataclass(frozen=True)
class DeadLetter:
    """A dead letter.

    Parameters
    ----------
    message_id, receipt_handle
        SQS's identifiers of the letter. Each receive returns a new handle.
    body
        The message that failed, unchanged.
    kind
        The letter's ErrorKind, or `died`.
    event_time_ms
        The event time T of the message. A redriven letter keeps this time, so that it does not count as a newer event.
    failed_at_ms
        The time of the failure. For the kind `died`, the time when the message was sent, because no other time is
        known.
    source_message_id
        The id of the failed message on the event queue and in the logs.
    """

    message_id: str
    receipt_handle: str = field(repr=False)
    body: str
    kind: str
    event_time_ms: int
    failed_at_ms: int
    source_message_id: str
    code: str | None = None
    error_message: str | None = None
    request_id: str | None = None
    receive_count: int | None = None
    room: Room | None = None


@dataclass(frozen=True)
class Message:
    """A message to send: a body, message attributes by name, and perhaps the message group."""

    body: str
    attributes: Mapping[str, str | int]
    group: str | None = None


@dataclass(frozen=True)
class Selection:
    """A selection of the letters that match every field that is not None. Times are Unix ms."""

    source_message_id: str | None = None
    kind: str | None = None
    code: str | None = None
    app_id: str | None = None
    room_id: str | None = None
    failed_before_ms: int | None = None
    failed_after_ms: int | None = None

    def takes(self, letter: DeadLetter) -> bool:
        """Return whether a letter is selected."""
        app_id, room_id = (letter.room.app_id, letter.room.room_id) if letter.room else (None, None)
        return (
            self.source_message_id in (None, letter.source_message_id)
            and self.kind in (None, letter.kind)
            and self.code in (None, letter.code)
            and self.app_id in (None, app_id)
            and self.room_id in (None, room_id)
            and (self.failed_before_ms is None or letter.failed_at_ms < self.failed_before_ms)
            and (self.failed_after_ms is None or letter.failed_at_ms > self.failed_after_ms)
        )


@dataclass(frozen=True)
class Group:
    """The letters that have the same reason.

    Parameters
    ----------
    example
        The error message of the oldest letter.
    """

    kind: str
    code: str | None
    count: int
    oldest_failed_at_ms: int
    example: str | None


def read_letter(message: MessageTypeDef) -> DeadLetter:
    """Read a dead letter from a message of SQS that has all its attributes and its SentTimestamp."""
    attributes = message.get("MessageAttributes", {})
    texts = {name: value["StringValue"] for name, value in attributes.items() if "StringValue" in value}
    sent_ms = int(message["Attributes"]["SentTimestamp"])
    failed_at_ms = _whole_number(texts.get("FailedAt"))
    return DeadLetter(
        message_id=message["MessageId"],
        receipt_handle=message["ReceiptHandle"],
        body=message["Body"],
        kind=texts.get("ErrorKind", DIED),
        event_time_ms=_event_time_ms(message["Body"], sent_ms, attributes.get("EventTime")),
        failed_at_ms=sent_ms if failed_at_ms is None else failed_at_ms,
        source_message_id=texts.get("SourceMessageId", message["MessageId"]),
        code=texts.get("ErrorCode"),
        error_message=texts.get("ErrorMessage"),
        request_id=texts.get("RequestId"),
        receive_count=_whole_number(texts.get("ReceiveCount")),
        room=_room(message["Body"]),
    )


def select(letters: Iterable[DeadLetter], selection: Selection) -> list[DeadLetter]:
    """Return the selected letters, the oldest failure first."""
    return sorted(filter(selection.takes, letters), key=lambda letter: letter.failed_at_ms)


def group(letters: Iterable[DeadLetter]) -> list[Group]:
    """Group letters by ErrorKind, ErrorCode and the common part of the error messages, the largest group first."""
    by_reason: dict[tuple[str, str | None, str], list[DeadLetter]] = {}
    for letter in sorted(letters, key=lambda letter: letter.failed_at_ms):
        by_reason.setdefault((letter.kind, letter.code, _common(letter.error_message or "")), []).append(letter)
    groups = [
        Group(kind, code, len(same), same[0].failed_at_ms, same[0].error_message)
        for (kind, code, _), same in by_reason.items()
    ]
    return sorted(groups, key=lambda one: (-one.count, one.kind, one.code or ""))


def to_json(letter: DeadLetter) -> dict[str, str | int]:
    """Write a letter as JSON under its message attributes' names, without missing attributes. Times are Unix ms."""
    values = {name: getattr(letter, field) for name, field in _FIELDS.items()}
    if letter.room:
        values |= {"AppId": letter.room.app_id, "RoomId": letter.room.room_id}
    values["Body"] = letter.body
    return {name: value for name, value in values.items() if value is not None}


def redriven(letter: DeadLetter) -> Message:
    """Create the message that sends a letter's event again, with the old event time."""
    app_id = letter.room.app_id if letter.room else ""
    return Message(letter.body, {"EventTime": letter.event_time_ms}, app_id if ID.fullmatch(app_id) else None)


def restored(line: str) -> Message:
    """Read a letter from a line of JSON in a saved file.

    Raises
    ------
    ValueError
        The line holds no letter.
    """
    letter = json.loads(line)
    match letter:
        case {"Body": str(body), "ErrorKind": str(), "EventTime": int()}:
            return Message(body, {name: letter[name] for name in _FIELDS if name in letter})
    raise ValueError("a dead letter needs a text in Body and in ErrorKind, and a whole number in EventTime")


def group_to_json(one: Group) -> dict[str, str | int | None]:
    """Write a group as JSON, with its reason under the names of the message attributes. Times are Unix ms."""
    return {
        "ErrorKind": one.kind,
        "ErrorCode": one.code,
        "count": one.count,
        "oldest_failed_at": one.oldest_failed_at_ms,
        "example": one.example,
    }


def _common(message: str) -> str:
    """Remove the parts of an error message that differ between letters: the task, numbers and ids."""
    return re.sub(r"[\w@.-]*\d[\w@.-]*", "#", re.sub(r"^task \S+: ", "", message))


def _event_time_ms(body: str, sent_ms: int, attribute: MessageAttributeValueOutputTypeDef | None) -> int:
    text = attribute.get("StringValue", "") if attribute else ""
    with contextlib.suppress(ValueError):
        return min(sent_ms, read_attribute_ms(text))
    # Without a valid EventTime, the letter gets the time that the function would give the event.
    try:
        event = parse_event(body, sent_ms)
    except InvalidMessage:
        return sent_ms
    return event.time_ms if event else sent_ms


def _room(body: str) -> Room | None:
    # Read without the rules for events: a letter that breaks a rule still belongs to its room.
    try:
        content = unwrap(body) or {}
    except InvalidMessage:
        return None
    match content:
        case {"AppId": str(app_id), "RoomId": str(room_id)}:
            return Room(app_id, room_id)
    return None


def _whole_number(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 16 else None
