"""The messages of an invocation, and their content."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from segments.errors import FunctionFailed, InvalidMessage, StopError
from segments.events import FIRST_SENT_AT, GIVEN_UP, Event, parse_event, redriven_ms, task_token


@dataclass(frozen=True)
class Arrival:
    """A message from SQS, and its content."""

    message_id: str
    receipt_handle: str
    body: str = field(repr=False)
    sent_ms: int  # when SQS accepted the message, Unix ms
    receive_count: int = 1
    # A value that is not a string becomes "", which is also unreadable.
    attributes: Mapping[str, str] = field(default_factory=dict)
    content: Event | StopError | None = None  # None for a callback of an irrelevant type

    @property
    def event(self) -> Event | None:
        """The event, if the message holds one."""
        return self.content if isinstance(self.content, Event) else None

    @property
    def log_fields(self) -> dict[str, Any]:
        """The fields of every log line about the message."""
        fields: dict[str, Any] = {"message_id": self.message_id, "receive_count": self.receive_count}
        if event := self.event:
            fields |= {
                "event_type": event.type.value,
                "event_id": event.event_id,
                "event_time": event.time_ms,
                "app_id": event.room.app_id,
                "room_id": event.room.room_id,
            }
        return fields

    @property
    def time_ms(self) -> int:
        """The event's time T in Unix ms, or the best estimate if the message holds no event."""
        return self.event.time_ms if self.event else self._earlier("EventTime")

    @property
    def first_sent_ms(self) -> int:
        """The time in Unix ms at which the message was sent; for a copy, the time of the first message."""
        return self._earlier(FIRST_SENT_AT)

    def _earlier(self, attribute: str) -> int:
        with contextlib.suppress(InvalidMessage):
            return min(self.sent_ms, redriven_ms(self.attributes.get(attribute, "")))
        return self.sent_ms

    @property
    def is_given_up(self) -> bool:
        """Whether the message already has a dead letter, so that only the workflow must still be notified."""
        return GIVEN_UP in self.attributes and self.task_token is not None

    @property
    def task_token(self) -> str | None:
        """The task token of the workflow that waits for the message's end, if any."""
        if self.event:
            return self.event.task_token
        return None if isinstance(self.content, FunctionFailed) else task_token(self.body)


def arrive(record: Mapping[str, Any]) -> Arrival:
    """Read one of the Records in the event that Lambda passes to the function."""
    body, sent_ms = record["body"], int(record["attributes"]["SentTimestamp"])
    receive_count = int(record["attributes"]["ApproximateReceiveCount"])
    attributes = {name: attribute.get("stringValue") or "" for name, attribute in record["messageAttributes"].items()}
    content: Event | StopError | None
    try:
        if (first_sent_at := attributes.get(FIRST_SENT_AT)) is not None:
            redriven_ms(first_sent_at, FIRST_SENT_AT)
        content = parse_event(body, sent_ms, attributes.get("EventTime"), is_second_try=receive_count > 1)
    except InvalidMessage as error:
        content = error
    except Exception as error:  # noqa: BLE001 - a fault of ours in reading one message must not fail the others
        content = FunctionFailed("FunctionFailed", f"the function failed to read the message: {type(error).__name__}")
    return Arrival(record["messageId"], record["receiptHandle"], body, sent_ms, receive_count, attributes, content)


def waves(arrivals: list[Arrival]) -> tuple[list[Arrival], list[Arrival]]:
    """Separate starts and sightings from stops. The newest stop comes first: its answer also answers older stops."""
    notes: list[Arrival] = []
    stops: list[tuple[int, Arrival]] = []
    for arrival in arrivals:
        if arrival.event and arrival.event.is_stop:
            stops.append((arrival.event.time_ms, arrival))
        else:
            notes.append(arrival)
    return notes, [arrival for _, arrival in sorted(stops, key=lambda stop: -stop[0])]
