"""Stop events through a stack: from the event queue to the RTC API, the table and the outcome bus."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from sandbox.faults import INTERNAL_ERROR
from sandbox.stack import ACCESS_KEY_ID, PARAMETERS, SECRET_ACCESS_KEY, Sandbox, wait_for
from tests.e2e.observer import APP_ID, Observer, Room, now_ms, rfc3339

MAX_RECEIVES = int(PARAMETERS["MaxReceiveCount"])


def test_a_stop_makes_one_request_one_record_and_one_outcome_event(room: Room) -> None:
    room.start("audio")
    event_time = now_ms() - 2_000
    values = {"TaskId": "audio", "BusinessId": "biz-1", "EventId": "evt-1", "EventTime": rfc3339(event_time)}
    assert room.end_of("RoomEnded", **values) == ["stopped"]

    (request,), record = room.requests(), room.records["audio"]
    assert request.method == "POST"
    assert request.query == {"Action": "StopSegment", "Version": "2020-12-01"}
    assert request.body == {"AppId": APP_ID, "BusinessId": "biz-1", "RoomId": room.id, "TaskId": "audio"}
    assert not room.is_running("audio")

    stopped_at = record.pop("stopped_at")
    assert event_time < stopped_at <= now_ms()
    assert record.pop("expires_at") > now_ms() // 1000
    assert record == {
        "room": f"{APP_ID}#{room.id}",
        "task_id": "audio",
        "stop_event_time": event_time,
        "outcome": "stopped",
        "request_id": request.request_id,
        "event_type": "RoomEnded",
        "event_id": "evt-1",
        "business_id": "biz-1",
    }

    (event,) = room.outcome_events(1)
    assert (event["source"], event["detail-type"]) == ("rtc-segment-stopper", "SegmentStopped")
    assert event["detail"] == {
        "AppId": APP_ID,
        "RoomId": room.id,
        **values,
        "Outcome": "stopped",
        "RequestId": request.request_id,
        "EventType": "RoomEnded",
        "StoppedAt": rfc3339(stopped_at),
    }


def test_each_stopped_task_has_an_outcome_event_but_starts_and_sightings_have_none(room: Room) -> None:
    room.start("audio", "screen")
    assert room.end_of("SegmentStarted", TaskId="audio", BusinessId="biz-1") == ["known"]
    assert room.end_of("SegmentRealTimeData", TaskId="screen") == ["known"]
    assert room.end_of("RoomEnded") == ["stopped", "stopped"]
    assert room.end_of("SegmentStarted", TaskId="late", EventTime=rfc3339(now_ms() - 60_000)) == ["already_stopped"]

    # The table's stream is in order, so no event can arrive after the event of the last stop.
    wait_for(lambda: any(e["detail"]["TaskId"] == "late" for e in room.outcome_events(3)), "the last stop's event")

    reported = [(event["detail"]["TaskId"], event["detail"]["Outcome"]) for event in room.outcome_events(3)]
    assert sorted(reported) == [("audio", "stopped"), ("late", "already_stopped"), ("screen", "stopped")]


def test_late_event_never_stops_a_restarted_task(room: Room) -> None:
    end_ms = now_ms() - 10_000
    room.start("audio")
    assert room.end_of("SegmentStarted", TaskId="audio", EventTime=rfc3339(end_ms + 1)) == ["known"]
    assert room.end_of("RoomEnded", TaskId="audio", EventTime=rfc3339(end_ms)) == ["superseded"]
    assert room.end_of("RoomEnded", EventTime=rfc3339(end_ms)) == ["superseded"]
    assert room.is_running("audio")
    assert room.stopped == []


@dataclass(frozen=True)
class Trouble:
    """A batch of three good messages and one for each way to fail, by name."""

    rooms: dict[str, Room]
    bodies: dict[str, str]
    message_ids: dict[str, str]
    ends: dict[str, list[str]]


EVENT_TIME_MS = now_ms() - 60_000
GOOD = ("first", "middle", "last")
BAD = {
    # name: ErrorKind, ErrorCode
    "not JSON": ("invalid_message", "NotJson"),
    "bad id": ("invalid_message", "InvalidField"),
    "unknown EventType": ("invalid_message", "InvalidField"),
    "rejected": ("rejected", "InvalidParameter.NotExistAppId"),
}


@pytest.fixture(scope="module")
def trouble(observer: Observer) -> Iterator[Trouble]:
    names = ("first", "not JSON", "bad id", "unknown EventType", "middle", "rejected", "down", "half", "last")
    rooms = {name: Room(observer, f"trouble-{number}-{now_ms()}") for number, name in enumerate(names)}
    for room in rooms.values():
        room.start("audio", "screen")
    rtc = observer.box.rtc
    rtc.fail(INTERNAL_ERROR, task=(APP_ID, rooms["down"].id, "audio"))
    rtc.fail(INTERNAL_ERROR, task=(APP_ID, rooms["half"].id, "screen"), next_requests=1)
    bodies = {name: room.event("RoomEnded", TaskId="audio") for name, room in rooms.items()} | {
        "not JSON": "RoomEnded room-1 💥",
        "bad id": rooms["bad id"].event("RoomEnded", TaskId="no spaces"),
        "unknown EventType": rooms["unknown EventType"].event("RoomEnd", TaskId="audio"),
        "rejected": json.dumps(
            {
                "EventType": "RoomEnded",
                "AppId": "no-such-app",
                "RoomId": rooms["rejected"].id,
                "TaskId": "audio",
                "EventTime": rfc3339(EVENT_TIME_MS),
            }
        ),
        "half": rooms["half"].event("RoomEnded", TaskIds=["audio", "screen"]),
    }
    message_ids = dict(zip(bodies, observer.box.send(list(bodies.values())), strict=True))
    ends = observer.ends(message_ids.values())
    yield Trouble(rooms, bodies, message_ids, {name: ends[message_id] for name, message_id in message_ids.items()})
    rtc.heal()


@pytest.mark.parametrize(("name", "kind", "code"), [(name, *reason) for name, reason in BAD.items()])
def test_message_that_can_never_work_becomes_a_dead_letter_after_one_receive(
    observer: Observer, trouble: Trouble, name: str, kind: str, code: str
) -> None:
    message_id = trouble.message_ids[name]
    assert trouble.ends[name] == [kind]
    assert observer.receives(message_id) == 1

    letter = observer.letter(message_id)
    assert letter.body == trouble.bodies[name]
    attributes = dict(letter.attributes)
    assert attributes.pop("ErrorMessage")
    assert bool(attributes.pop("RequestId", None)) == (name == "rejected")
    failed_at, event_time = int(attributes.pop("FailedAt")), int(attributes.pop("EventTime"))
    assert attributes == {
        "ErrorKind": kind,
        "ErrorCode": code,
        "SourceMessageId": message_id,
        "ReceiveCount": "1",
    }
    assert event_time <= failed_at <= now_ms()
    assert trouble.rooms[name].is_running("audio")


def test_rejected_stop_is_reported_with_its_time_and_the_api_s_request_id(observer: Observer, trouble: Trouble) -> None:
    message_id, room = trouble.message_ids["rejected"], trouble.rooms["rejected"]
    attributes = observer.letter(message_id).attributes
    (request,) = observer.box.rtc.requests_for("no-such-app", room.id, action=None)
    assert (attributes["RequestId"], attributes["EventTime"]) == (request.request_id, str(EVENT_TIME_MS))

    def reported() -> list[dict[str, Any]]:
        return [one for one in observer.outcome_events() if one["detail"].get("SourceMessageId") == message_id]

    (event,) = wait_for(reported, "the event of a dead letter")
    assert event["detail-type"] == "SegmentStopFailed"
    names = ("ErrorKind", "ErrorCode", "ErrorMessage", "RequestId", "SourceMessageId")
    assert event["detail"] == {
        "AppId": "no-such-app",
        "RoomId": room.id,
        "TaskIds": ["audio"],
        "EventType": "RoomEnded",
        "EventTime": rfc3339(EVENT_TIME_MS),
        "FailedAt": rfc3339(int(attributes["FailedAt"])),
        **{name: attributes[name] for name in names},
    }


@pytest.mark.parametrize("name", GOOD)
def test_good_messages_in_a_bad_batch_are_served_at_once(observer: Observer, trouble: Trouble, name: str) -> None:
    assert trouble.ends[name] == ["stopped"]
    assert observer.receives(trouble.message_ids[name]) == 1
    assert trouble.rooms[name].stopped == ["audio"]


def test_stop_without_an_answer_is_retried_until_a_copy_replaces_its_message(trouble: Trouble) -> None:
    room = trouble.rooms["down"]
    assert trouble.ends["down"] == ["requeued"]
    # Only the first try calls StopSegment. The later ones ask first.
    assert room.stopped == ["audio"]
    assert len(room.requests("GetSegmentTask")) >= MAX_RECEIVES - 1
    assert "audio" not in room.records


def test_retry_of_a_message_repeats_the_failed_task_and_not_the_stopped_one(
    observer: Observer, trouble: Trouble
) -> None:
    assert trouble.ends["half"] == ["duplicate", "stopped"]
    assert observer.receives(trouble.message_ids["half"]) == 2
    assert trouble.rooms["half"].stopped == ["audio", "screen", "screen"]
    assert trouble.message_ids["half"] not in observer.letters()


def test_after_an_outage_the_copy_stops_the_task_and_the_event_queue_is_empty(
    observer: Observer, trouble: Trouble
) -> None:
    assert "retried" not in {outcome for outcomes in trouble.ends.values() for outcome in outcomes}
    observer.box.rtc.heal()
    wait_for(lambda: not trouble.rooms["down"].is_running("audio"), "the copy to stop its task")
    wait_for(lambda: observer.box.undone() == 0, "an empty queue")
    assert not [letter for letter in observer.letters().values() if letter.body == trouble.bodies["down"]]


def test_rotated_key_is_picked_up_without_failing_a_message(box: Sandbox, observer: Observer, room: Room) -> None:
    new_id, new_secret = "AKLTrotated", "rotated-secret-key"
    box.rtc.secrets = {new_id: new_secret}
    box.client("secretsmanager").put_secret_value(
        SecretId=box.outputs["RtcCredentialsSecretArn"],
        SecretString=json.dumps({"AccessKeyId": new_id, "SecretAccessKey": new_secret}),
    )
    room.start("audio")
    (message_id,) = box.send([room.event("RoomEnded", TaskId="audio")])
    assert observer.ends([message_id]) == {message_id: ["stopped"]}
    assert observer.receives(message_id) == 1
    assert not room.is_running("audio")
    assert new_secret not in observer.everything_written()
    # Other function environments may still hold the old key.
    box.rtc.secrets = {new_id: new_secret, ACCESS_KEY_ID: SECRET_ACCESS_KEY}


def test_no_key_and_no_signature_is_written_anywhere(observer: Observer, trouble: Trouble) -> None:
    written = observer.everything_written()
    assert trouble.message_ids["rejected"] in written  # the searched text contains the places that could leak a key
    assert SECRET_ACCESS_KEY not in written
    assert "Signature=" not in written
