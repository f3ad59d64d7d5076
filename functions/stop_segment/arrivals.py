"""The messages of an invocation, and what each says."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord

from stop_segment.errors import InvalidMessage
from stop_segment.events import Event, parse_event, redriven_ms


@dataclass(frozen=True)
class Arrival:
    """A message and what it says: an event, None for a callback that does not concern us, or why it says nothing."""

    record: SQSRecord
    content: Event | InvalidMessage | None

    @property
    def log_fields(self) -> dict[str, Any]:
        """What every log line about the message holds."""
        fields: dict[str, Any] = {"message_id": self.record.message_id, "receive_count": self.receive_count}
        if isinstance(self.content, Event):
            event = self.content
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
        """The event's time T, or the best that is known of it, Unix ms."""
        if isinstance(self.content, Event):
            return self.content.time_ms
        with contextlib.suppress(InvalidMessage):
            return min(_sent_ms(self.record), redriven_ms(_redriven_time(self.record) or ""))
        return _sent_ms(self.record)

    @property
    def receive_count(self) -> int:
        """How often the message has been received, from 1."""
        return int(self.record.attributes.approximate_receive_count)


def arrive(record: SQSRecord) -> Arrival:
    """Read a message."""
    content: Event | InvalidMessage | None
    try:
        content = parse_event(record.body, _sent_ms(record), _redriven_time(record))
    except InvalidMessage as error:
        content = error
    return Arrival(record, content)


def _sent_ms(record: SQSRecord) -> int:
    return int(record.attributes.sent_timestamp)


def _redriven_time(record: SQSRecord) -> str | None:
    attribute = record.message_attributes["EventTime"]
    # Of another type it has no such value, which is as unreadable as a bad one.
    return attribute.get("stringValue") or "" if attribute else None


def waves(arrivals: list[Arrival]) -> tuple[list[Arrival], list[Arrival]]:
    """Put what makes tasks known before what stops them, and of the stops the newest first: it answers the older."""
    notes: list[Arrival] = []
    stops: list[tuple[int, Arrival]] = []
    for arrival in arrivals:
        if isinstance(arrival.content, Event) and arrival.content.is_stop:
            stops.append((arrival.content.time_ms, arrival))
        else:
            notes.append(arrival)
    return notes, [arrival for _, arrival in sorted(stops, key=lambda stop: -stop[0])]
