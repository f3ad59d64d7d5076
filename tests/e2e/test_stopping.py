"""Stop events through the deployed stack: from the event queue to the RTC API, the table and the dead-letter queue."""

import json
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from sandbox.faults import INTERNAL_ERROR, Fault
from sandbox.stack import ACCESS_KEY_ID, PARAMETERS, SECRET_ACCESS_KEY, Sandbox, wait_for
from tests.e2e.observer import APP_ID, Letter, Observer, Room, now_ms, rfc3339

NO_SUCH_APP = Fault("error", status=400, code="InvalidParameter.NotExistAppId")
MAX_RECEIVES = int(PARAMETERS["MaxReceiveCount"])
GIVE_UP_AFTER_MINUTES = 60  # the template's own


def test_room_ended_stops_its_task_with_one_request_as_the_official_page_has_it(room: Room) -> None:
    room.start("audio")

    assert room.end_of("RoomEnded", TaskId="audio", BusinessId="biz-1") == ["stopped"]

    (request,) = room.requests()
    assert request.method == "POST"
    assert request.query == {"Action": "StopSegment", "Version": "2020-12-01"}
    assert request.body == {"AppId": APP_ID, "BusinessId": "biz-1", "RoomId": room.id, "TaskId": "audio"}
    assert not room.is_running("audio")


def test_business_id_is_left_out_where_the_event_gives_none(room: Room) -> None:
    room.start("audio")
    assert room.end_of("ModerationViolation", TaskId="audio") == ["stopped"]
    assert [request.body for request in room.requests()] == [
        {"AppId": APP_ID, "RoomId": room.id, "TaskId": "audio"},
    ]


def test_record_tells_what_was_stopped_when_and_why(room: Room) -> None:
    room.start("audio")
    event_time = now_ms() - 2_000
    values = {"TaskId": "audio", "BusinessId": "biz-1", "EventId": "evt-1", "EventTime": rfc3339(event_time)}
    assert room.end_of("RoomEnded", **values) == ["stopped"]

    (request,), record = room.requests(), room.records["audio"]
    assert event_time < record.pop("stopped_at") <= now_ms()
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


def test_same_message_again_makes_no_request(room: Room) -> None:
    room.start("audio")
    event = {"TaskId": "audio", "EventTime": rfc3339(now_ms())}
    assert room.end_of("RoomEnded", **event) == ["stopped"]
    assert room.end_of("RoomEnded", **event) == ["duplicate"]
    assert room.stopped == ["audio"]


def test_several_tasks_are_stopped_by_one_message(room: Room) -> None:
    room.start("audio", "screen", "extra", "other")
    assert room.end_of("RoomEnded", TaskIds=["audio", "screen"], TaskId="extra") == ["stopped"] * 3
    assert room.stopped == ["audio", "extra", "screen"]
    assert room.is_running("other")


def test_task_that_has_gone_counts_as_already_stopped(room: Room) -> None:
    assert room.end_of("RoomEnded", TaskId="audio") == ["already_stopped"]
    assert room.records["audio"]["outcome"] == "already_stopped"
    assert room.stopped == ["audio"]


@dataclass(frozen=True)
class Trouble:
    """A batch in which all goes wrong that can, between three good messages; by name, with the message ids."""

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
def test_what_can_never_work_becomes_a_dead_letter_after_one_receive(
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


def test_dead_letter_of_a_rejected_stop_has_the_api_s_request_id_and_the_event_s_time(
    observer: Observer, trouble: Trouble
) -> None:
    attributes = observer.letter(trouble.message_ids["rejected"]).attributes
    (request,) = observer.box.rtc.requests_for("no-such-app", trouble.rooms["rejected"].id, action=None)
    assert attributes["RequestId"] == request.request_id
    assert attributes["EventTime"] == str(EVENT_TIME_MS)


@pytest.mark.parametrize("name", GOOD)
def test_neighbours_of_bad_messages_are_served_at_once(observer: Observer, trouble: Trouble, name: str) -> None:
    assert trouble.ends[name] == ["stopped"]
    assert observer.receives(trouble.message_ids[name]) == 1
    assert trouble.rooms[name].stopped == ["audio"]


def test_stop_that_the_api_does_not_answer_is_tried_until_a_copy_takes_over(trouble: Trouble) -> None:
    room = trouble.rooms["down"]
    assert trouble.ends["down"] == ["requeued"]
    # The first try calls, the later ones ask first.
    assert room.stopped == ["audio"]
    assert len(room.requests("GetSegmentTask")) >= MAX_RECEIVES - 1
    assert "audio" not in room.records


def test_failed_task_is_retried_and_the_stopped_one_is_not_called_again(observer: Observer, trouble: Trouble) -> None:
    assert trouble.ends["half"] == ["duplicate", "stopped"]
    assert observer.receives(trouble.message_ids["half"]) == 2
    assert trouble.rooms["half"].stopped == ["audio", "screen", "screen"]
    assert trouble.message_ids["half"] not in observer.letters()


def test_once_the_api_is_back_the_copy_stops_the_task_and_nothing_is_left_on_the_event_queue(
    observer: Observer, trouble: Trouble
) -> None:
    assert "retried" not in {outcome for outcomes in trouble.ends.values() for outcome in outcomes}
    observer.box.rtc.heal()
    wait_for(lambda: not trouble.rooms["down"].is_running("audio"), "the copy to stop its task")
    wait_for(lambda: observer.box.undone() == 0, "an empty queue")
    assert not [letter for letter in observer.letters().values() if letter.body == trouble.bodies["down"]]


def test_message_that_is_older_than_give_up_after_minutes_becomes_a_dead_letter_with_its_reason(
    observer: Observer, room: Room
) -> None:
    room.start("audio")
    observer.box.rtc.fail(INTERNAL_ERROR, task=(APP_ID, room.id, "audio"))
    first_sent_ms = now_ms() - 60_000 * GIVE_UP_AFTER_MINUTES
    sent = observer.box.client("sqs").send_message(
        QueueUrl=observer.box.outputs["EventQueueUrl"],
        MessageBody=(body := room.event("RoomEnded", TaskId="audio")),
        MessageAttributes={"FirstSentAt": {"DataType": "Number", "StringValue": str(first_sent_ms)}},
    )
    letter = observer.letter(sent["MessageId"])
    assert letter.body == body
    assert (letter.attributes["ErrorKind"], letter.attributes["ErrorCode"]) == ("exhausted", INTERNAL_ERROR.code)
    assert letter.attributes["ReceiveCount"] == str(MAX_RECEIVES)


def test_redriven_dead_letter_cannot_stop_a_task_that_started_after_its_event(
    box: Sandbox, observer: Observer, room: Room
) -> None:
    room.start("audio")
    box.rtc.fail(NO_SUCH_APP, next_requests=1, task=(APP_ID, room.id, "audio"))
    (message_id,) = box.send([room.event("RoomEnded", TaskId="audio")])
    assert observer.ends([message_id]) == {message_id: ["rejected"]}
    letter = observer.letter(message_id)

    assert room.end_of("SegmentStarted", TaskId="audio") == ["known"]
    redriven_id = observer.redrive(letter)

    assert observer.ends([redriven_id]) == {redriven_id: ["superseded"]}
    assert room.is_running("audio")
    assert room.stopped == ["audio"]


def test_redriven_dead_letter_stops_the_task_that_it_was_about(box: Sandbox, observer: Observer, room: Room) -> None:
    room.start("audio")
    box.rtc.fail(NO_SUCH_APP, next_requests=1, task=(APP_ID, room.id, "audio"))
    (message_id,) = box.send([room.event("RoomEnded", TaskId="audio")])
    letter: Letter = observer.letter(message_id)

    redriven_id = observer.redrive(letter)

    assert observer.ends([redriven_id]) == {redriven_id: ["stopped"]}
    assert room.records["audio"]["stop_event_time"] == int(letter.attributes["EventTime"])


@pytest.fixture
def rotated_key(box: Sandbox) -> Iterator[str]:
    """Replace the key at the RTC API and in the secret; at the end the API takes the old one too."""
    new_id, new_secret = "AKLTrotated", "rotated-secret-key"
    box.rtc.secrets = {new_id: new_secret}
    box.client("secretsmanager").put_secret_value(
        SecretId=box.outputs["RtcCredentialsSecretArn"],
        SecretString=json.dumps({"AccessKeyId": new_id, "SecretAccessKey": new_secret}),
    )
    yield new_secret
    # Function environments may hold either key.
    box.rtc.secrets = {new_id: new_secret, ACCESS_KEY_ID: SECRET_ACCESS_KEY}


def test_rotated_key_is_picked_up_without_failing_a_message(observer: Observer, room: Room, rotated_key: str) -> None:
    room.start("audio")
    (message_id,) = observer.box.send([room.event("RoomEnded", TaskId="audio")])
    assert observer.ends([message_id]) == {message_id: ["stopped"]}
    assert observer.receives(message_id) == 1
    assert not room.is_running("audio")
    assert rotated_key not in observer.everything_written()


def test_no_key_and_no_signature_is_written_anywhere(observer: Observer, trouble: Trouble) -> None:
    written = observer.everything_written()
    assert trouble.message_ids["rejected"] in written  # the searched text contains the places that could leak a key
    assert SECRET_ACCESS_KEY not in written
    assert "Signature=" not in written
