"""Thousands of random and mutated bodies: each body becomes an event, or is ignored or refused, without a crash."""

import json
import random
import re
from collections.abc import Callable
from typing import Any

import pytest

from segments.errors import InvalidMessage
from segments.events import Event
from segments.times import EARLIEST_MS
from stop_segment.arrivals import Arrival, waves
from tests.unit.test_arrivals import SENT_MS, arrival

BODIES_A_SEED = 2_500
EVENT_TIME = "2026-11-22T06:12:00.123Z"
ID = re.compile(r"[a-zA-Z0-9_@\-.]{1,128}")

BARE = {
    "EventType": "RoomEnded",
    "EventId": "evt-1",
    "EventTime": EVENT_TIME,
    "AppId": "661e",
    "RoomId": "room-1",
    "TaskId": "audio",
    "TaskIds": ["audio", "video"],
    "BusinessId": "biz-1",
}
CALLBACK = {
    "EventType": "SegmentRealTimeData",
    "EventData": json.dumps({"AppId": "661e", "BusinessId": "biz-1", "RoomId": "room-1", "TaskId": "audio"}),
    "EventTime": "2026-11-22T06:12:00.123456789Z",
    "EventId": "evt-1",
    "AppId": "661e",
    "Version": "2020-12-01",
    "Signature": "e9f1ae1f",
    "Noce": "4321",
}
BUS = {"detail-type": "RoomEnded", "source": "rooms", "time": "2026-11-22T06:12:01Z", "detail": BARE}
SNS = {"Type": "Notification", "Message": json.dumps(BUS), "Timestamp": EVENT_TIME}
VALID: list[dict[str, Any]] = [
    BARE,
    BARE | {"EventType": "SegmentStarted"},
    CALLBACK,
    CALLBACK | {"EventType": "RoomDestroy", "EventData": '{"RoomId": "room-1"}'},
    CALLBACK | {"EventType": "UserJoinRoom"},
    BUS,
    {"detail-type": "SegmentRealTimeData", "detail": CALLBACK},
    SNS,
    {"Type": "Notification", "Message": json.dumps(CALLBACK)},
    {"detail-type": "SNS", "detail": SNS},
]
KEYS = sorted({key for valid in VALID for key in valid})
VALUES: list[Any] = [
    None, True, False, 0, -1, 1.5, 10**30, float("nan"), float("inf"), "", " ", "a\n", "#room", "é", "\ud800", "\x00",
    "i" * 128, "i" * 129, [], {}, ["audio"], ["audio", 5], [[]], {"RoomId": "room-2"}, "{}", "[]", "null", "{",
    EVENT_TIME, "2026-11-22T06:12:00+24:00", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "Notification",
    "0001-01-01T00:00:00Z", "1970-01-01T00:00:00Z", "2017-12-31T23:59:59Z", "2026-11-22T 06:12:00+0800",
    ["audio"] * 100, ["audio"] * 101,
    "RoomEnded", "RoomDestroy", "SegmentStarted", "SegmentRealTimeData", "UserJoinRoom", json.dumps(BARE),
]  # fmt: skip
CHARACTERS = [*'{}[]",:\\ \n\t0123456789eE+-.tfnuaIN#', "\x00", "\ud800", "\ufeff", "é", "房", "😀"]
TEXTS = ["-1000", "1795327920", str(SENT_MS + 1), EVENT_TIME, "", "x", "9" * 15, "9" * 16, "1.5", "\u0661"]
# As Lambda passes them: a binary attribute has no stringValue (aws-lambda-go, events/testdata/sqs-event.json).
ATTRIBUTES: list[dict[str, Any] | None] = [
    *([None] * len(TEXTS)),
    *({"stringValue": text, "dataType": "Number", "stringListValues": [], "binaryListValues": []} for text in TEXTS),
    {"binaryValue": "MTEwMA==", "dataType": "Binary", "stringListValues": [], "binaryListValues": []},
    {"stringValue": None, "dataType": "String.custom"},
]


def random_text(dice: random.Random) -> str:
    return "".join(dice.choices(CHARACTERS, k=dice.randrange(40)))


def random_value(dice: random.Random, depth: int = 3) -> Any:
    match dice.randrange(8) if depth else 0:
        case 0 | 1 | 2 | 3:
            return dice.choice(VALUES)
        case 4:
            return random_text(dice)
        case 5:
            return [random_value(dice, depth - 1) for _ in range(dice.randrange(4))]
        case _:
            return {dice.choice(KEYS): random_value(dice, depth - 1) for _ in range(dice.randrange(6))}


def with_other_values(dice: random.Random, valid: dict[str, Any]) -> dict[str, Any]:
    """Set, remove, copy or rename some keys, also those of inner objects."""
    changed = dict(valid)
    for _ in range(dice.randint(1, 3)):
        key = dice.choice([*changed, *KEYS])
        match dice.randrange(5):
            case 0:
                changed.pop(key, None)
            case 1:
                changed[key] = changed.get(dice.choice(KEYS))
            case 2 if isinstance(changed.get(key), dict):
                changed[key] = with_other_values(dice, changed[key])
            case 3:
                changed[dice.choice([key.lower(), key + " ", dice.choice(KEYS)])] = changed.pop(key, None)
            case _:
                changed[key] = random_value(dice)
    return changed


def with_other_characters(dice: random.Random, text: str) -> str:
    for _ in range(dice.randint(1, 4)):
        start = dice.randrange(len(text) + 1)
        text = text[:start] + "".join(dice.choices(CHARACTERS, k=dice.randrange(3))) + text[start + dice.randrange(3) :]
    return text


def wrapped(dice: random.Random, body: str) -> str:
    """Wrap a body, valid or not, up to six times."""
    for _ in range(dice.randrange(7)):
        match dice.randrange(3):
            case 0:
                body = json.dumps({"Type": "Notification", "Message": body})
            case 1:
                body = f'{{"detail-type": "RoomEnded", "detail": {body}}}'
            case _:
                body = json.dumps({"EventType": dice.choice(["RoomDestroy", "SegmentRealTimeData"]), "EventData": body})
    return body


MAKERS: list[Callable[[random.Random], str]] = [
    random_text,
    lambda dice: json.dumps(random_value(dice)),
    lambda dice: json.dumps(with_other_values(dice, dice.choice(VALID))),
    lambda dice: with_other_characters(dice, json.dumps(dice.choice(VALID))),
    lambda dice: wrapped(dice, json.dumps(with_other_values(dice, dice.choice(VALID)))),
    lambda dice: wrapped(dice, random_text(dice)),
]


def check(one: Arrival) -> None:
    assert EARLIEST_MS <= one.time_ms <= SENT_MS
    assert EARLIEST_MS <= one.first_sent_ms <= SENT_MS
    assert waves([one]) in (([one], []), ([], [one]))
    match one.content:
        case InvalidMessage() as error:
            assert error.code
            assert error.message
            assert str(error).isprintable()  # for a message attribute and a log line
        case Event() as event:
            ids = [event.room.app_id, event.room.room_id, *event.task_ids, event.event_id, event.business_id]
            assert all(ID.fullmatch(value) for value in ids if value is not None)
            assert len(set(event.task_ids)) == len(event.task_ids)
            assert event.is_stop or len(event.task_ids) == 1
        case other:
            assert other is None  # FunctionFailed: reading the message raised


@pytest.mark.parametrize("maker", range(len(MAKERS)))
def test_every_message_is_understood_or_refused(maker: int) -> None:
    dice = random.Random(maker)
    for _ in range(BODIES_A_SEED):
        body, event_time, first_sent_at = MAKERS[maker](dice), dice.choice(ATTRIBUTES), dice.choice(ATTRIBUTES)
        try:
            check(arrival(body, event_time=event_time, first_sent_at=first_sent_at))
        except Exception as error:  # noqa: BLE001 - whatever it is, it fails the test with its body
            pytest.fail(f"{error!r} for the body {body!r} with the attributes {event_time!r} and {first_sent_at!r}")


def test_the_mutated_bodies_include_events_ignored_messages_and_refused_ones() -> None:
    dice = random.Random(7)
    found = [arrival(MAKERS[2](dice)).content for _ in range(1_000)]
    codes = {error.code for error in found if isinstance(error, InvalidMessage)}
    assert {"NotJson", "InvalidField", "InvalidEnvelope"} <= codes
    assert sum(isinstance(content, Event) for content in found) > 100
    assert None in found
