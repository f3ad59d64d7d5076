"""The RTC server's callbacks, over HTTPS to the stack's callback URL."""

import json
import random
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest

from receive_callback.signature import sign
from sandbox.callbacks import SECRET_KEY, callback, post
from sandbox.stack import Sandbox, wait_for
from tests.e2e.observer import APP_ID, Observer, Room, now_ms, rfc3339
from tests.integration.test_receive_callback import KEY, MUTATIONS_A_SEED, is_properly_signed, mutated

MOST_BYTES = 64 * 1024
Change = Callable[[dict[str, str]], dict[str, str]]


def sighting_of(room: Room, task_id: str, *, key: str = SECRET_KEY) -> dict[str, str]:
    data = {"AppId": APP_ID, "BusinessId": "biz-1", "RoomId": room.id, "TaskId": task_id}
    return callback("SegmentRealTimeData", data, rfc3339(now_ms()), app_id=APP_ID, key=key)


def end_of(room: Room, event_time: str = "", *, key: str = SECRET_KEY) -> dict[str, str]:
    return callback("RoomDestroy", {"RoomId": room.id}, event_time or rfc3339(now_ms()), app_id=APP_ID, key=key)


def signed_again(content: dict[str, str], **changes: str) -> dict[str, str]:
    """Change a callback as its sender would."""
    content = content | changes
    return content | {"Signature": sign(content, SECRET_KEY)}


def in_the_past(minutes: int, form: str = "%Y-%m-%dT%H:%M:%S.%f%z") -> str:
    return (datetime.now(UTC) - timedelta(minutes=minutes)).strftime(form)


def answer_to(box: Sandbox, body: str | bytes, method: str = "POST") -> tuple[int, str]:
    """Send a request to the callback URL; return the status and the result that the answer names."""
    status, text = post(box.aws, box.outputs["CallbackUrl"], body, method=method)
    return status, json.loads(text)["result"]


@pytest.mark.parametrize(
    "spelled",
    [
        pytest.param(lambda c: c, id="Volcengine's"),
        pytest.param(lambda c: signed_again({("Noce" if k == "Nonce" else k): c[k] for k in c}), id="BytePlus's"),
        pytest.param(lambda c: c | {"Noce": ""}, id="both nonces"),
        pytest.param(lambda c: {**c, "Noce": c["Nonce"], "Nonce": ""}, id="both nonces, the other one signed"),
        pytest.param(lambda c: signed_again(c, EventTime=in_the_past(0)), id="+0000"),
        pytest.param(lambda c: signed_again(c, EventTime=in_the_past(0, "%Y-%m-%dT %H:%M:%S.%fZ")), id="a blank"),
        pytest.param(lambda c: signed_again(c, EventTime="just now"), id="no time"),
        pytest.param(lambda c: signed_again(c, EventTime="1970-01-01T00:00:00Z"), id="a time before 2018"),
        pytest.param(lambda c: signed_again(c, EventId="evt-\uffff\x00"), id="U+FFFF"),
    ],
)
def test_signed_callbacks_are_queued_and_stop_the_room_s_tasks(box: Sandbox, room: Room, spelled: Change) -> None:
    room.start("audio")
    assert answer_to(box, json.dumps(sighting_of(room, "audio"))) == (200, "queued")
    assert room.outcomes(1) == ["known"]

    assert answer_to(box, json.dumps(spelled(end_of(room)), ensure_ascii=False)) == (200, "queued")

    assert room.outcomes(2) == ["known", "stopped"]
    assert [request.body for request in room.requests()] == [
        {"AppId": APP_ID, "BusinessId": "biz-1", "RoomId": room.id, "TaskId": "audio"}
    ]


def test_a_callback_of_half_an_hour_ago_stops_its_room_and_one_of_two_hours_ago_is_dropped(
    box: Sandbox, new_room: Callable[[], Room]
) -> None:
    late, stale = new_room(), new_room()
    for room in (late, stale):
        room.start("audio", at_ms=now_ms() - 10_800_000)
        assert room.end_of("SegmentStarted", TaskId="audio", EventTime=in_the_past(180, "%Y-%m-%dT%H:%M:%SZ")) == [
            "known"
        ]

    assert answer_to(box, json.dumps(end_of(stale, in_the_past(120)))) == (200, "stale")
    assert answer_to(box, json.dumps(end_of(late, in_the_past(30)))) == (200, "queued")

    assert late.outcomes(2) == ["known", "stopped"]
    assert stale.is_running("audio")
    assert stale.outcomes(1) == ["known"]


def test_nothing_that_is_kept_holds_a_callback_s_signature(box: Sandbox, observer: Observer, room: Room) -> None:
    taken, letter = end_of(room), signed_again(end_of(room), EventData=json.dumps({"RoomId": f"{room.id}/"}))
    for content in (taken, letter):
        assert answer_to(box, json.dumps(content | {"signature": content["Signature"]})) == (200, "queued")
    assert room.outcomes(1) == ["no_open_tasks"]
    (found,) = wait_for(
        lambda: [found for found in observer.letters().values() if letter["EventId"] in found.body], "a dead letter"
    )
    assert json.loads(found.body).keys() == letter.keys() - {"Signature", "Nonce"}
    written = observer.everything_written()
    assert taken["EventId"] in written
    assert not [content for content in (taken, letter) if content["Signature"] in written]


def test_replayed_callback_makes_no_second_request(box: Sandbox, observer: Observer, room: Room) -> None:
    room.start("audio")
    assert box.call_back(sighting_of(room, "audio")) == 200
    assert room.outcomes(1) == ["known"]
    room_end = end_of(room)

    assert answer_to(box, json.dumps(room_end)) == (200, "queued")
    assert room.outcomes(2) == ["known", "stopped"]
    assert answer_to(box, json.dumps(room_end)) == (200, "replayed")
    observer.renew_function("ReceiveCallbackFunction")  # which remembers nothing
    assert answer_to(box, json.dumps(room_end)) == (200, "queued")

    assert room.outcomes(3) == ["duplicate", "known", "stopped"]
    assert room.stopped == ["audio"]


def test_of_many_slices_few_are_queued_and_the_room_s_end_stops_the_task(box: Sandbox, room: Room) -> None:
    room.start("audio")
    results = [answer_to(box, json.dumps(sighting_of(room, "audio")))[1] for _ in range(20)]
    queued = results.count("queued")
    assert 1 <= queued <= 5
    assert results.count("known") == 20 - queued

    assert box.call_back(end_of(room)) == 200

    assert room.outcomes(queued + 1) == ["known"] * queued + ["stopped"]
    assert room.stopped == ["audio"]


def test_a_task_that_is_first_heard_of_by_its_last_slice_after_the_room_s_end_is_stopped(
    box: Sandbox, room: Room
) -> None:
    room.start("audio")
    last_slice = sighting_of(room, "audio")
    assert box.call_back(end_of(room)) == 200
    assert room.outcomes(1) == ["no_open_tasks"]

    assert answer_to(box, json.dumps(last_slice)) == (200, "queued")

    assert room.outcomes(2) == ["no_open_tasks", "stopped"]
    assert room.stopped == ["audio"]


@pytest.mark.parametrize("event_type", ["UserJoinRoom", "RecordStarted", "NeverHeardOf"])
def test_signed_callback_of_another_type_is_taken_and_ignored(box: Sandbox, room: Room, event_type: str) -> None:
    body = json.dumps(callback(event_type, {"RoomId": room.id}, rfc3339(now_ms()), app_id=APP_ID))
    assert answer_to(box, body) == (200, "ignored")


@pytest.mark.parametrize(
    "body",
    [
        pytest.param("", id="nothing"),
        pytest.param("RoomDestroy", id="not JSON"),
        pytest.param(b"\xff\xfe", id="not UTF-8"),
        pytest.param('["RoomDestroy"]', id="a list"),
        pytest.param("{}", id="no values"),
        pytest.param(json.dumps(callback("RoomDestroy", {}, "2026-11-22T06:12:00Z") | {"AppId": 1}), id="a number"),
    ],
)
def test_malformed_callback_is_refused(box: Sandbox, body: str | bytes) -> None:
    assert answer_to(box, body)[0] == 400


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_the_request_by_which_the_console_tries_the_url_is_answered(box: Sandbox, method: str) -> None:
    status, text = post(box.aws, box.outputs["CallbackUrl"], "", method=method)
    assert (status, text) == (200, '{"result": "ready"}' if method == "GET" else "")
    waiting = box.client("sqs").get_queue_attributes(
        QueueUrl=box.outputs["EventQueueUrl"], AttributeNames=["ApproximateNumberOfMessages"]
    )
    assert waiting["Attributes"]["ApproximateNumberOfMessages"] == "0"


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
def test_other_methods_are_refused(box: Sandbox, room: Room, method: str) -> None:
    assert answer_to(box, json.dumps(end_of(room)), method)[0] == 405


@pytest.mark.parametrize("path", ["favicon.ico", "callback/"])
def test_another_path_is_refused_before_the_function(box: Sandbox, room: Room, path: str) -> None:
    status, text = post(box.aws, box.outputs["CallbackUrl"] + path, json.dumps(end_of(room)))
    assert (status, json.loads(text)) == (404, {"message": "Not Found"})


def test_body_over_64_kilobytes_is_refused_and_one_of_64_is_not(box: Sandbox, room: Room) -> None:
    body = json.dumps(callback("UserJoinRoom", {"RoomId": room.id}, rfc3339(now_ms()), app_id=APP_ID))
    longest = body + " " * (MOST_BYTES - len(body))
    assert answer_to(box, longest) == (200, "ignored")
    assert answer_to(box, longest + " ")[0] == 413


@pytest.mark.parametrize(
    "forge",
    [
        pytest.param(lambda c: {k: v for k, v in c.items() if k != "Signature"}, id="none"),
        pytest.param(lambda c: c | {"Signature": ""}, id="empty"),
        pytest.param(lambda c: c | {"Signature": "0" * 64}, id="made up"),
        pytest.param(lambda c: c | {"Signature": c["Signature"].upper()}, id="upper case"),
        pytest.param(lambda c: c | {"EventTime": rfc3339(now_ms() + 1)}, id="another time"),
        pytest.param(lambda c: c | {"AppId": "another"}, id="another application"),
    ],
)
def test_forged_callback_is_refused_and_never_reaches_the_queue(
    box: Sandbox, observer: Observer, new_room: Callable[[], Room], forge: Change
) -> None:
    target, other = new_room(), new_room()
    target.start("audio")

    assert answer_to(box, json.dumps(forge(end_of(target))))[0] == 401

    # A later message has been served, so an earlier one would have been.
    assert box.call_back(end_of(other)) == 200
    assert other.outcomes(1) == ["no_open_tasks"]
    assert target.records == {}
    assert not [line for line in box.log_lines() if line.get("room_id") == target.id]
    assert not [letter for letter in observer.letters().values() if target.id in letter.body]


def test_callback_of_one_room_with_another_s_data_is_refused(box: Sandbox, new_room: Callable[[], Room]) -> None:
    data_of_another = {"EventData": json.dumps({"RoomId": new_room().id})}
    assert box.call_back(end_of(new_room()) | data_of_another) == 401


def test_unsigned_keys_do_not_make_a_signed_callback_something_else(box: Sandbox, new_room: Callable[[], Room]) -> None:
    signed, target = new_room(), new_room()
    signed.start("audio")
    target.start("audio")
    assert signed.end_of("SegmentStarted", TaskId="audio") == ["known"]
    unsigned = {
        "detail-type": "RoomEnded",
        "detail": {"AppId": APP_ID, "RoomId": target.id, "TaskId": "audio"},
        "Type": "Notification",
        "Message": target.event("RoomEnded", TaskId="audio"),
        "RoomId": target.id,
        "TaskId": "audio",
        "TaskIds": ["audio"],
        "BusinessId": "biz-1",
        "Noce": "4711",
    }

    status, _ = answer_to(box, json.dumps(end_of(signed) | unsigned))

    assert status == 200
    assert signed.outcomes(2) == ["known", "stopped"]
    assert [request.body for request in signed.requests()] == [
        {"AppId": APP_ID, "RoomId": signed.id, "TaskId": "audio"}
    ]
    assert target.is_running("audio")
    assert target.records == {}


def test_callback_is_asked_for_again_while_the_queue_cannot_take_it(
    box: Sandbox, observer: Observer, room: Room
) -> None:
    room_end = json.dumps(end_of(room))
    with observer.without_permission("ReceiveCallbackRole", "QueueCallbacks"):
        assert answer_to(box, room_end)[0] == 503
    assert answer_to(box, room_end) == (200, "queued")
    assert room.outcomes(1) == ["no_open_tasks"]


def test_callback_is_asked_for_again_while_the_key_cannot_be_read(box: Sandbox, observer: Observer, room: Room) -> None:
    room_end = json.dumps(end_of(room))
    with observer.without_permission("ReceiveCallbackRole", "ReadTheCallbackKey"):
        observer.renew_function("ReceiveCallbackFunction")
        assert answer_to(box, room_end)[0] == 503
    observer.renew_function("ReceiveCallbackFunction")  # the old environment asks again after five seconds
    assert answer_to(box, room_end) == (200, "queued")


@pytest.fixture
def rotate(box: Sandbox, observer: Observer) -> Iterator[Callable[[str], None]]:
    """Give a way to put another key into the callback secret, which new function environments read."""

    def put(key: str) -> None:
        box.client("secretsmanager").put_secret_value(SecretId="sandbox-callback", SecretString=key)
        observer.renew_function("ReceiveCallbackFunction")

    yield put
    put(SECRET_KEY)


def test_both_keys_are_valid_after_a_rotation_and_the_one_before_them_is_not(
    box: Sandbox, room: Room, observer: Observer, rotate: Callable[[str], None]
) -> None:
    rotate("second-callback-key")
    assert box.call_back(end_of(room)) == 200
    assert box.call_back(end_of(room, key="second-callback-key")) == 200

    rotate("third-callback-key")
    assert box.call_back(end_of(room, key="second-callback-key")) == 200
    assert box.call_back(end_of(room, key="third-callback-key")) == 200
    assert box.call_back(end_of(room)) == 401

    written = observer.everything_written()
    assert "second-callback-key" not in written
    assert "third-callback-key" not in written


def test_of_mutated_callbacks_only_properly_signed_ones_are_taken(box: Sandbox, rotate: Callable[[str], None]) -> None:
    rotate(KEY)
    dice = random.Random(1)
    seen = Counter[int]()
    for _ in range(MUTATIONS_A_SEED):
        body = mutated(dice)
        status, _ = answer_to(box, body)
        assert (status == 200) == is_properly_signed(body), body
        seen[status] += 1
    assert seen.keys() == {200, 400, 401}
