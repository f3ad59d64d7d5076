"""The notice that reports a dead letter to workflows."""

import json
from dataclasses import replace

from segments.errors import InvalidMessage, Rejected, StopError
from segments.events import Event, EventType, Room
from stop_segment.arrivals import Arrival
from stop_segment.failures import Failure
from stop_segment.workflow_answers import is_published, notice
from tests.contracts import closed, schema

T = 1_795_327_920_123
EVENT = Event(EventType.ROOM_ENDED, Room("661e", "room-1"), T, ("audio", "screen"), "evt-1", "biz-1")
REJECTED = Rejected("NoApp", "the API answered HTTP 400", "R-1")


def failure(content: Event | InvalidMessage, error: StopError = REJECTED) -> Failure:
    return Failure(Arrival("m-1", "handle", "{}", T, content=content), error)


def test_a_notice_has_all_fields_of_its_message_and_its_error() -> None:
    detail = json.loads(notice(failure(EVENT), "rejected", T + 1_000))
    assert detail == {
        "AppId": "661e",
        "RoomId": "room-1",
        "TaskIds": ["audio", "screen"],
        "BusinessId": "biz-1",
        "EventType": "RoomEnded",
        "EventId": "evt-1",
        "ErrorKind": "rejected",
        "ErrorCode": "NoApp",
        "ErrorMessage": "the API answered HTTP 400",
        "RequestId": "R-1",
        "SourceMessageId": "m-1",
        "EventTime": "2026-11-22T06:12:00.123Z",
        "FailedAt": "2026-11-22T06:12:01.123Z",
    }
    assert detail.keys() == closed(schema("segment-stop-failed"))["properties"]["detail"]["properties"].keys()


def test_a_notice_leaves_out_unknown_fields() -> None:
    invalid = InvalidMessage("NotJson", "the body is not JSON")
    unread = failure(invalid, invalid)
    assert set(json.loads(notice(unread, "invalid_message", T))) == {
        *("ErrorKind", "ErrorCode", "ErrorMessage", "SourceMessageId", "EventTime", "FailedAt")
    }
    whole_room = failure(Event(EventType.ROOM_ENDED, Room("661e", "room-1"), T))
    assert not json.loads(notice(whole_room, "rejected", T)).keys() & {"TaskIds", "EventId", "BusinessId"}


# EventBridge User Guide, "Calculating PutEvents event entry size": an entry, and a call of ten, has at most 256 KB.
def test_ten_of_the_largest_notices_fit_into_one_call() -> None:
    error = Rejected("\u4e2d" * 10_000, "\u4e2d" * 10_000, "\u4e2d" * 10_000)
    task_ids = tuple(f"{number:0128}" for number in range(101))
    text = notice(failure(replace(EVENT, task_ids=task_ids), error), "rejected", T)
    assert len(json.loads(text)["TaskIds"]) == 101
    assert 10 * len(text.encode()) < 256_000


def test_a_heartbeat_has_no_notice() -> None:
    contents = (InvalidMessage("NotJson", "the body is not JSON"), EVENT, replace(EVENT, type=EventType.HEARTBEAT))
    assert [is_published(failure(content)) for content in contents] == [True, True, False]
