import json
from typing import Any

import pytest

from segments.envelopes import unwrap
from segments.errors import InvalidMessage
from segments.events import parse_event

EVENT = {"EventType": "RoomEnded", "EventTime": "2026-11-22T06:12:00.123Z", "AppId": "661e", "RoomId": "room-1"}
EVENT_MS = 1_795_327_920_123
EVENT_BRIDGE_MS = 1_795_327_921_000
SNS_MS = 1_795_327_922_000
SENT_MS = EVENT_MS + 10_000


def event_bridge(detail: object, detail_type: object = "RoomEnded") -> dict[str, Any]:
    return {
        "detail-type": detail_type,
        "source": "com.example.rooms",
        "time": "2026-11-22T06:12:01Z",
        "detail": detail,
    }


def sns(message: object) -> dict[str, Any]:
    return {
        "Type": "Notification",
        "TopicArn": "arn:aws:sns:us-east-1:111122223333:rooms",
        "Message": json.dumps(message),
        "Timestamp": "2026-11-22T06:12:02.000Z",
    }


def callback(event_type: object = "RoomDestroy", data: object = None, **changes: Any) -> dict[str, Any]:
    """Return a raw callback, with these fields changed; None removes one."""
    whole = {
        "EventType": event_type,
        "EventData": data if isinstance(data, str) else json.dumps(data or {"RoomId": "room-1"}),
        "EventTime": "2026-11-22T06:12:00.123456789Z",
        "EventId": "evt-1",
        "AppId": "661e",
        "Version": "2020-12-01",
        "Signature": "e9f1ae1f",
        "Nonce": "4321",
    } | changes
    return {key: value for key, value in whole.items() if value is not None}


SLICE = {"AppId": "661e", "BusinessId": "biz-1", "RoomId": "room-1", "TaskId": "audio", "Files": [{"Url": "x"}]}
ROOM_DESTROY = EVENT | {"EventType": "RoomDestroy", "EventId": "evt-1"}
SEGMENT_DATA = ROOM_DESTROY | {"EventType": "SegmentRealTimeData", "TaskId": "audio"}


def unwrapped(envelope: object) -> dict[str, Any] | None:
    return unwrap(json.dumps(envelope))


def refusal(envelope: object) -> tuple[str, str]:
    """Return the code and the message of the error."""
    with pytest.raises(InvalidMessage) as raised:
        unwrapped(envelope)
    return raised.value.code, raised.value.message


@pytest.mark.parametrize(
    "wrapped",
    [
        pytest.param(event_bridge(EVENT, "SomethingElse"), id="EventBridge event"),
        pytest.param(event_bridge(EVENT | {"EventType": None}), id="EventBridge event, null in its detail"),
        pytest.param(sns(EVENT), id="SNS notification"),
        pytest.param(sns(event_bridge(EVENT)), id="EventBridge event in an SNS notification"),
        pytest.param(event_bridge(sns(EVENT)), id="SNS notification in an EventBridge event"),
        pytest.param(sns(sns(sns(EVENT))), id="three envelopes"),
    ],
)
def test_an_event_is_the_same_in_every_envelope(wrapped: dict[str, Any]) -> None:
    assert unwrapped(wrapped) == EVENT


@pytest.mark.parametrize("envelopes", [4, 100])
def test_too_many_envelopes_are_refused(envelopes: int) -> None:
    nested: dict[str, Any] = EVENT
    for _ in range(envelopes):
        nested = event_bridge(nested)
    assert refusal(nested) == ("TooManyEnvelopes", "the event must have at most 3 envelopes")


@pytest.mark.parametrize("detail", [json.dumps(EVENT), None, [EVENT], 5])
def test_a_detail_that_is_not_an_object_is_refused(detail: object) -> None:
    assert refusal(event_bridge(detail)) == ("InvalidEnvelope", "detail of the EventBridge event must be a JSON object")


@pytest.mark.parametrize(
    ("text", "code", "rule"),
    [
        (None, "NotJson", "must be a string that holds a JSON object"),
        ({"RoomId": "room-1"}, "NotJson", "must be a string that holds a JSON object"),
        ("", "NotJson", "is not JSON, line 1 column 1"),
        pytest.param("[" * 100_000, "NotJson", "is not JSON", id="a deep list"),
        ("null", "NotAnObject", "must be a JSON object"),
        ("[]", "NotAnObject", "must be a JSON object"),
    ],
)
@pytest.mark.parametrize(("envelope", "name"), [(sns(EVENT), "Message"), (callback(), "EventData")])
def test_an_inner_string_without_a_json_object_is_refused(
    envelope: dict[str, Any], name: str, text: object, code: str, rule: str
) -> None:
    assert refusal(envelope | {name: text}) == (code, f"{name} {rule}")


class TestCallback:
    @pytest.mark.parametrize(
        ("envelope", "content"),
        [
            pytest.param(callback(), ROOM_DESTROY, id="room's end"),
            pytest.param(callback(Nonce=None, Noce="4321"), ROOM_DESTROY, id="as BytePlus spells the nonce"),
            pytest.param(callback(EventTime="2026-11-22T14:12:00.123+0800"), ROOM_DESTROY, id="time in ISO 8601"),
            pytest.param(callback(data=SLICE), ROOM_DESTROY, id="room's end that names a task"),
            pytest.param(
                callback("SegmentRealTimeData", SLICE), SEGMENT_DATA | {"BusinessId": "biz-1"}, id="slice of a task"
            ),
            *[
                pytest.param(
                    callback("SegmentRealTimeData", SLICE | {"BusinessId": empty}),
                    SEGMENT_DATA,
                    id=f"slice with the BusinessId {empty!r}",
                )
                for empty in ("", None)
            ],
            pytest.param(callback(data={"RoomId": "room-1", "AppId": "other"}), ROOM_DESTROY, id="two AppIds"),
            pytest.param(callback(data=SLICE, AppId=None), ROOM_DESTROY, id="AppId inside the data"),
            pytest.param(callback(AppId=None), ROOM_DESTROY | {"AppId": None}, id="no AppId"),
        ],
    )
    def test_a_callback_is_the_same_event_in_every_envelope(
        self, envelope: dict[str, Any], content: dict[str, Any]
    ) -> None:
        assert unwrapped(envelope) == content
        assert unwrapped(sns(envelope)) == content
        assert unwrapped(sns(event_bridge(envelope, "RtcCallback"))) == content

    def test_unsigned_keys_never_turn_a_callback_into_another_event(self) -> None:
        other = EVENT | {"RoomId": "other"}
        assert unwrapped(event_bridge(other) | sns(other) | callback()) == ROOM_DESTROY

    @pytest.mark.parametrize("event_type", ["UserJoinRoom", "RecordStarted", "SnapshotRealTimeData", "SomethingNew"])
    @pytest.mark.parametrize("data", ['{"RoomId": "room-1"}', "not JSON", ""])
    def test_a_callback_of_another_type_is_ignored(self, event_type: str, data: str) -> None:
        ignored = callback(event_type, data)
        assert [unwrapped(envelope) for envelope in (ignored, sns(ignored), event_bridge(ignored))] == [None] * 3

    @pytest.mark.parametrize("event_type", [None, 5, ["RoomDestroy"], {}])
    def test_a_callback_without_a_type_is_refused(self, event_type: object) -> None:
        assert refusal(callback(event_type)) == ("InvalidField", "message.EventType must be a string")

    @pytest.mark.parametrize("event_id", ["", "evt 1", "evt/1", "e" * 129, "evt-1\n", 5, None])
    def test_a_room_s_end_with_an_unusual_event_id_is_accepted(self, event_id: object) -> None:
        content = unwrapped(callback(EventId=event_id))
        assert content == {key: value for key, value in ROOM_DESTROY.items() if key != "EventId"}

    @pytest.mark.parametrize("event_time", ["0001-01-01T00:00:00Z", "soon", 1_795_327_920, None])
    def test_without_a_readable_time_the_time_of_arrival_counts(self, event_time: object) -> None:
        unread = callback(EventTime=event_time)
        envelopes = (unread, sns(unread), event_bridge(unread), sns(unread) | {"Timestamp": "never"})
        events = [parse_event(json.dumps(envelope), SENT_MS) for envelope in envelopes]
        assert [event and event.time_ms for event in events] == [SENT_MS, SNS_MS, EVENT_BRIDGE_MS, SENT_MS]
