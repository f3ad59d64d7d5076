import json
from typing import Any

import pytest

from segments.errors import InvalidMessage
from segments.events import Event
from stop_segment.arrivals import Arrival, arrive, waves

SENT_MS = 1_795_327_930_000


def arrival(
    content: object,
    message_id: str = "m-1",
    sent_ms: int = SENT_MS,
    event_time: Any = None,
    receive_count: int = 1,
    first_sent_at: Any = None,
) -> Arrival:
    """Return a message as it arrives. Its attributes EventTime and FirstSentAt are an object, or its stringValue."""
    given = {"EventTime": event_time, "FirstSentAt": first_sent_at}
    attributes = {
        name: value if isinstance(value, dict) else {"stringValue": value, "dataType": "Number"}
        for name, value in given.items()
        if value is not None
    }
    return arrive(
        {
            "messageId": message_id,
            "receiptHandle": "handle",
            "body": content if isinstance(content, str) else json.dumps(content),
            "attributes": {"SentTimestamp": str(sent_ms), "ApproximateReceiveCount": str(receive_count)},
            "messageAttributes": attributes,
        }
    )


def event(event_type: str, **more: object) -> dict[str, object]:
    return {"EventType": event_type, "AppId": "661e", "RoomId": "room-1", "TaskId": "audio"} | more


def names(wave: list[Arrival]) -> list[str]:
    return [one.message_id for one in wave]


def test_starts_and_slices_go_first_and_then_the_newest_stop() -> None:
    notes, stops = waves(
        [
            arrival(event("RoomEnded"), "old end", SENT_MS - 2),
            arrival(event("SegmentRealTimeData"), "sighting", SENT_MS - 9),
            arrival(event("ModerationViolation"), "new end", SENT_MS),
            arrival(event("RoomDestroy"), "end between", SENT_MS - 1),
            arrival(event("SegmentStarted"), "start"),
            arrival("nonsense", "nonsense"),
        ]
    )
    assert names(notes) == ["sighting", "start", "nonsense"]
    assert names(stops) == ["new end", "end between", "old end"]


class TestTime:
    @pytest.mark.parametrize("invalid", ["nonsense", "[]", {"EventType": "Typo"}, event("RoomEnded", RoomId="#")])
    @pytest.mark.parametrize(
        ("event_time", "time_ms"),
        [
            (None, SENT_MS),
            (str(SENT_MS - 5), SENT_MS - 5),
            (str(SENT_MS + 5), SENT_MS),
            ("2026-11-22T06:12:00Z", 1_795_327_920_000),
            ("-1000", SENT_MS),
            ("nonsense", SENT_MS),
        ],
    )
    def test_a_redriven_message_that_is_still_invalid_keeps_its_first_time(
        self, invalid: object, event_time: str | None, time_ms: int
    ) -> None:
        one = arrival(invalid, event_time=event_time)
        assert isinstance(one.content, InvalidMessage)
        assert one.time_ms == time_ms

    def test_an_ignored_callback_has_the_time_at_which_it_was_sent(self) -> None:
        one = arrival({"EventType": "UserJoinRoom", "EventData": "{}"})
        assert one.content is None
        assert one.time_ms == SENT_MS

    @pytest.mark.parametrize(
        "attribute",
        [
            {"dataType": "Binary", "binaryValue": "AAAA", "stringListValues": [], "binaryListValues": []},
            {"dataType": "String", "stringValue": "soon"},
            {"dataType": "Number", "stringValue": "1795327920"},
        ],
    )
    def test_a_time_attribute_without_a_time_makes_the_message_invalid(self, attribute: dict[str, Any]) -> None:
        end = event("RoomEnded")
        for one in (arrival(end, event_time=attribute), arrival(end, first_sent_at=attribute)):
            assert isinstance(one.content, InvalidMessage)
            assert (one.time_ms, one.first_sent_ms) == (SENT_MS, SENT_MS)

    def test_a_copy_is_as_old_as_the_first_message(self) -> None:
        one = arrival(event("RoomEnded"), first_sent_at=str(SENT_MS - 5))
        assert (one.time_ms, one.first_sent_ms) == (SENT_MS, SENT_MS - 5)


# As recorded on AWS (localstack, tests/aws/services/sns/test_sns.snapshot.json).
SNS = {
    "Type": "Notification",
    "Message": json.dumps(event("RoomEnded")),
    "Timestamp": "2026-11-22T06:12:09.500Z",
    "MessageAttributes": {"EventTime": {"Type": "Number", "Value": "111"}, "b": {"Type": "Binary", "Value": "AgME"}},
}


def test_attributes_inside_an_sns_notification_are_ignored() -> None:
    one = arrival(SNS)
    assert isinstance(one.content, Event)
    assert (one.time_ms, one.content.is_second_try) == (SENT_MS - 500, False)


def test_log_fields_name_the_message_and_its_event() -> None:
    fields = arrival(event("RoomEnded", EventId="evt-1"), receive_count=3).log_fields
    assert fields == {
        "message_id": "m-1",
        "receive_count": 3,
        "event_type": "RoomEnded",
        "event_id": "evt-1",
        "event_time": SENT_MS,
        "app_id": "661e",
        "room_id": "room-1",
    }


@pytest.mark.parametrize("content", ["s3cr3t", {"EventType": "s3cr3t"}, {"EventType": "Other", "EventData": "s3cr3t"}])
def test_log_fields_hold_nothing_of_the_body_of_an_unreadable_message(content: object) -> None:
    assert arrival(content).log_fields == {"message_id": "m-1", "receive_count": 1}
