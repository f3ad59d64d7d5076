import json
from typing import Any

import pytest

from segments.envelopes import unwrap
from segments.errors import InvalidMessage
from segments.events import Event, EventType, Room, parse_event

EVENT = {"EventType": "RoomEnded", "EventTime": "2026-11-22T06:12:00.123Z", "AppId": "661e", "RoomId": "room-1"}
EVENT_MS = 1_795_327_920_123
SENT_MS = EVENT_MS + 10_000


def event_bridge(
    detail: object, detail_type: object = "RoomEnded", time: str = "2026-11-22T06:12:01Z"
) -> dict[str, Any]:
    return {
        "version": "0",
        "id": "6a7e8feb-b491-4cf7-a9f1-bf3703467718",
        "detail-type": detail_type,
        "source": "com.example.rooms",
        "account": "111122223333",
        "time": time,
        "region": "us-east-1",
        "resources": [],
        "detail": detail,
    }


def sns(message: object) -> dict[str, Any]:
    return {
        "Type": "Notification",
        "MessageId": "22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324",
        "TopicArn": "arn:aws:sns:us-east-1:111122223333:rooms",
        "Subject": "a room",
        "Message": message if isinstance(message, str) else json.dumps(message),
        "Timestamp": "2026-11-22T06:12:02.000Z",
        "SignatureVersion": "1",
        "Signature": "EXAMPLE",
    }


def callback(event_type: object, data: object, nonce: str = "Nonce", **changes: Any) -> dict[str, Any]:
    whole = {
        "EventType": event_type,
        "EventData": data if isinstance(data, str) else json.dumps(data),
        "EventTime": "2026-11-22T06:12:00.123456789Z",
        "EventId": "evt-1",
        "AppId": "661e",
        "Version": "2020-12-01",
        "Signature": "e9f1ae1f",
        nonce: "4321",
    } | changes
    return {key: value for key, value in whole.items() if value is not None}


ROOM_DESTROY = callback("RoomDestroy", {"RoomId": "room-1", "Timestamp": 1_795_327_920_123})
SLICE = {"AppId": "661e", "BusinessId": "biz-1", "RoomId": "room-1", "TaskId": "audio", "Files": [{"Url": "x"}]}


def refusal(content: object) -> InvalidMessage:
    with pytest.raises(InvalidMessage) as raised:
        parse_event(json.dumps(content), SENT_MS)
    return raised.value


@pytest.mark.parametrize(
    "wrapped",
    [
        pytest.param(event_bridge(EVENT), id="EventBridge event"),
        pytest.param(sns(EVENT), id="SNS notification"),
        pytest.param(sns(event_bridge(EVENT)), id="EventBridge event in an SNS notification"),
        pytest.param(event_bridge(sns(EVENT)), id="SNS notification in an EventBridge event"),
        pytest.param(sns(sns(sns(EVENT))), id="three envelopes"),
    ],
)
def test_an_event_is_the_same_in_every_envelope(wrapped: dict[str, Any]) -> None:
    assert parse_event(json.dumps(wrapped), SENT_MS) == parse_event(json.dumps(EVENT), SENT_MS)


class TestEventBridge:
    def test_detail_type_and_time_tell_what_the_detail_does_not(self) -> None:
        wrapped = event_bridge({"AppId": "661e", "RoomId": "room-1"}, "ModerationViolation", "2026-11-22T06:12:00Z")
        event = parse_event(json.dumps(wrapped), SENT_MS)
        assert event == Event(EventType.MODERATION_VIOLATION, Room("661e", "room-1"), EVENT_MS - 123)

    def test_what_the_detail_says_itself_is_nearer_to_the_event(self) -> None:
        assert unwrap(json.dumps(event_bridge(EVENT, "SomethingElse"))) == EVENT

    @pytest.mark.parametrize("detail_type", ["Room Ended", "", 5, None])
    def test_an_unknown_detail_type_is_refused(self, detail_type: object) -> None:
        error = refusal(event_bridge({"AppId": "661e", "RoomId": "room-1"}, detail_type))
        assert error.code == "InvalidField"
        assert "EventType" in error.message

    def test_null_in_the_detail_hides_nothing_around_it(self) -> None:
        nulls = {"EventType": None, "EventTime": None, "AppId": "661e", "RoomId": "room-1"}
        assert unwrap(json.dumps(event_bridge(nulls, time=EVENT["EventTime"]))) == EVENT

    @pytest.mark.parametrize("detail", [json.dumps(EVENT), None, [EVENT], 5])
    def test_a_detail_that_is_no_object_is_refused(self, detail: object) -> None:
        error = refusal(event_bridge(detail))
        assert (error.code, error.message) == ("InvalidEnvelope", "detail must be an object")


class TestNotification:
    @pytest.mark.parametrize(
        ("message", "code", "sentence"),
        [
            (None, "NotJson", "Message must be a string that holds a JSON object"),
            (EVENT, "NotJson", "Message must be a string that holds a JSON object"),
            ("the room has ended", "NotJson", "Message is not JSON, line 1 column 1"),
            ("[]", "NotAnObject", "Message must be a JSON object"),
            ("[" * 100_000, "NotJson", "Message is not JSON"),
        ],
    )
    def test_a_message_without_a_json_object_is_refused(self, message: object, code: str, sentence: str) -> None:
        error = refusal(sns("") | {"Message": message})
        assert (error.code, error.message) == (code, sentence)

    def test_a_late_notification_is_no_newer_than_when_it_was_published(self) -> None:
        timeless = {name: value for name, value in EVENT.items() if name != "EventTime"}
        event = parse_event(json.dumps(sns(timeless)), SENT_MS + 86_400_000)
        assert event is not None
        assert event.time_ms == 1_795_327_922_000

    def test_other_messages_of_sns_are_no_events(self) -> None:
        assert "EventType" in refusal(sns(EVENT) | {"Type": "SubscriptionConfirmation"}).message


class TestCallback:
    @pytest.mark.parametrize("nonce", ["Nonce", "Noce"])
    def test_a_destroyed_room_has_ended(self, nonce: str) -> None:
        body = json.dumps(callback("RoomDestroy", {"RoomId": "room-1"}, nonce))
        assert parse_event(body, SENT_MS) == Event(
            EventType.ROOM_DESTROY, Room("661e", "room-1"), EVENT_MS, event_id="evt-1"
        )

    @pytest.mark.parametrize("nonce", ["Nonce", "Noce"])
    def test_a_slice_shows_that_its_task_exists(self, nonce: str) -> None:
        body = json.dumps(callback("SegmentRealTimeData", SLICE, nonce))
        assert parse_event(body, SENT_MS) == Event(
            EventType.SEGMENT_REAL_TIME_DATA, Room("661e", "room-1"), EVENT_MS, ("audio",), "evt-1", "biz-1"
        )

    @pytest.mark.parametrize(
        "wrapped",
        [
            pytest.param(sns(ROOM_DESTROY), id="SNS notification"),
            pytest.param(event_bridge(ROOM_DESTROY, "RtcCallback"), id="EventBridge event"),
            pytest.param(sns(event_bridge(ROOM_DESTROY, "RtcCallback")), id="both"),
        ],
    )
    def test_a_callback_is_the_same_in_every_envelope(self, wrapped: dict[str, Any]) -> None:
        assert unwrap(json.dumps(wrapped)) == unwrap(json.dumps(ROOM_DESTROY))

    @pytest.mark.parametrize(
        "event_type",
        [
            "UserJoinRoom",
            "UserLeaveRoom",
            "InvisibleUserJoinRoom",
            "RoleChangeInvisible2Visible",
            "RecordStarted",
            "RecordStopped",
            "TranscodeStarted",
            "TranscodeStateChanged",
            "SnapshotRealTimeData",
            "SomethingNewNextYear",
        ],
    )
    @pytest.mark.parametrize("data", ['{"RoomId": "room-1"}', "not JSON", ""])
    def test_a_callback_of_another_type_is_ignored(self, event_type: str, data: str) -> None:
        ignored = callback(event_type, data)
        bodies = [json.dumps(envelope) for envelope in (ignored, sns(ignored), event_bridge(ignored))]
        assert [parse_event(body, SENT_MS) for body in bodies] == [None, None, None]

    def test_no_key_that_no_signature_covers_makes_a_callback_another_event(self) -> None:
        forged = event_bridge(EVENT | {"RoomId": "other"}) | sns(EVENT | {"RoomId": "other"}) | ROOM_DESTROY
        assert unwrap(json.dumps(forged)) == unwrap(json.dumps(ROOM_DESTROY))

    @pytest.mark.parametrize("event_type", [None, 5, ["RoomDestroy"], {}])
    def test_a_callback_without_a_type_is_refused(self, event_type: object) -> None:
        assert refusal(callback(event_type, SLICE)).message == "message.EventType must be string"

    def test_a_destroyed_room_names_no_task(self) -> None:
        content = unwrap(json.dumps(callback("RoomDestroy", SLICE)))
        assert content is not None
        assert "TaskId" not in content

    @pytest.mark.parametrize(
        ("outside", "inside", "app_id"),
        [("661e", "other", "661e"), ("661e", None, "661e"), (None, "661e", "661e"), (None, None, None)],
    )
    def test_the_app_id_is_the_envelopes(self, outside: str | None, inside: str | None, app_id: str | None) -> None:
        data = {"RoomId": "room-1"} | ({"AppId": inside} if inside else {})
        content = unwrap(json.dumps(callback("RoomDestroy", data, AppId=outside)))
        assert content is not None
        assert content.get("AppId") == app_id

    @pytest.mark.parametrize("business_id", ["", None])
    def test_an_empty_business_id_is_none(self, business_id: str | None) -> None:
        content = unwrap(json.dumps(callback("SegmentRealTimeData", SLICE | {"BusinessId": business_id})))
        assert content is not None
        assert "BusinessId" not in content

    @pytest.mark.parametrize("event_id", ["", "evt 1", "evt/1", "e" * 129, "evt-1\n", 5, None])
    def test_an_unusual_event_id_is_no_reason_to_refuse_a_rooms_end(self, event_id: object) -> None:
        content = unwrap(json.dumps(callback("RoomDestroy", {"RoomId": "room-1"}, EventId=event_id)))
        assert content is not None
        assert "EventId" not in content

    @pytest.mark.parametrize(
        ("event_time", "time_ms"),
        [
            ("2026-11-22T14:12:00.123456789+0800", EVENT_MS),
            ("2026-11-22T 06:12:00.123Z", EVENT_MS),
            ("0001-01-01T00:00:00Z", None),
            ("2026-11-22T06:12:60Z", None),
            ("soon", None),
            (1_795_327_920, None),
            (None, None),
            ({}, None),
        ],
    )
    def test_a_time_that_cannot_be_read_is_that_of_arrival(self, event_time: object, time_ms: int | None) -> None:
        unread = callback("RoomDestroy", {"RoomId": "room-1"}, EventTime=event_time)
        times = []
        for wrapped in (unread, sns(unread), event_bridge(unread), sns(unread) | {"Timestamp": "never"}):
            event = parse_event(json.dumps(wrapped), SENT_MS)
            assert event is not None
            times.append(event.time_ms)
        arrived = [SENT_MS, 1_795_327_922_000, 1_795_327_921_000, SENT_MS]
        assert times == ([time_ms] * 4 if time_ms else arrived)

    @pytest.mark.parametrize(
        ("data", "code", "message"),
        [
            ({"RoomId": "room-1"}, "NotJson", "EventData must be a string that holds a JSON object"),
            (None, "NotJson", "EventData must be a string that holds a JSON object"),
            ("", "NotJson", "EventData is not JSON, line 1 column 1"),
            ("null", "NotAnObject", "EventData must be a JSON object"),
            ('["room-1"]', "NotAnObject", "EventData must be a JSON object"),
        ],
    )
    def test_event_data_without_a_json_object_is_refused(self, data: object, code: str, message: str) -> None:
        error = refusal(callback("RoomDestroy", "{}") | {"EventData": data})
        assert (error.code, error.message) == (code, message)


@pytest.mark.parametrize("envelopes", [4, 100])
def test_too_many_envelopes_are_refused(envelopes: int) -> None:
    nested: dict[str, Any] = EVENT
    for _ in range(envelopes):
        nested = event_bridge(nested)
    assert refusal(nested).code == "TooManyEnvelopes"
