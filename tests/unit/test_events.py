import json
import traceback
from typing import Any

import pytest

from segments.errors import InvalidMessage
from segments.events import Event, EventType, Room, Task, parse_event

EVENT_TIME = "2026-11-22T06:12:00.123Z"
EVENT_MS = 1_795_327_920_123
SENT_MS = EVENT_MS + 2_000

MARK = "s3cr3t"  # a part of the bad values, which no error may repeat
LONG_ID = "i" * 128
STOP_TYPES = ["RoomEnded", "RoomDestroy", "ModerationViolation"]
TASK_TYPES = ["SegmentStarted", "SegmentRealTimeData"]
IDS = ["AppId", "RoomId", "TaskId", "TaskIds", "BusinessId", "EventId"]


def content(**changes: Any) -> dict[str, Any]:
    """Return an event without a task, with these keys changed; None removes one."""
    whole = {"EventType": "RoomEnded", "EventTime": EVENT_TIME, "AppId": "661e", "RoomId": "room-1"} | changes
    return {key: value for key, value in whole.items() if value is not None}


def parse(value: object, redriven_time: str | None = None) -> Event:
    event = parse_event(json.dumps(value), SENT_MS, redriven_time)
    assert event is not None
    return event


def refusal(body: str) -> tuple[str, str]:
    """Return the code and the message of the error, which never repeats a marked value."""
    with pytest.raises(InvalidMessage) as raised:
        parse_event(body, SENT_MS)
    shown = "".join(traceback.format_exception(raised.value)) + repr(raised.value)
    assert MARK not in shown
    return raised.value.code, raised.value.message


def broken_rule(**changes: Any) -> str:
    """Return the message of the error for an event with these keys changed; None is sent as null."""
    code, message = refusal(json.dumps(content() | changes))
    assert code == "InvalidField"
    return message


def test_every_field_of_an_event_is_read() -> None:
    room = Room("661e", "room-1")
    event = parse(content(EventId="evt-1", TaskId="audio", BusinessId="biz-1"))
    assert event == Event(
        EventType.ROOM_ENDED, room, EVENT_MS, task_ids=("audio",), event_id="evt-1", business_id="biz-1"
    )
    assert event.tasks == [Task(room, "audio")]


def test_an_event_needs_only_its_type_and_its_room() -> None:
    assert parse(content(EventTime=None)) == Event(EventType.ROOM_ENDED, Room("661e", "room-1"), SENT_MS)


@pytest.mark.parametrize("name", ["EventTime", "EventId", "TaskId", "TaskIds", "BusinessId"])
def test_null_in_an_optional_field_means_that_it_is_not_given(name: str) -> None:
    given = content(EventId="evt-1", TaskId="audio", TaskIds=["video"], BusinessId="biz-1")
    assert parse(given | {name: None}) == parse({key: value for key, value in given.items() if key != name})


@pytest.mark.parametrize("event_type", STOP_TYPES)
@pytest.mark.parametrize(
    ("named", "task_ids"),
    [
        ({}, ()),
        ({"TaskId": "audio"}, ("audio",)),
        ({"TaskIds": ["audio", "video", "audio"]}, ("audio", "video")),
        ({"TaskId": "screen", "TaskIds": ["audio", "screen"]}, ("screen", "audio")),
        ({"TaskIds": [f"task-{number}" for number in range(100)]}, tuple(f"task-{number}" for number in range(100))),
    ],
    ids=["the room", "one task", "a repeated task", "TaskId and TaskIds", "a hundred tasks"],
)
def test_a_stop_event_names_one_task_or_several_or_the_room(
    event_type: str, named: dict[str, Any], task_ids: tuple[str, ...]
) -> None:
    event = parse(content(EventType=event_type, **named))
    assert event.task_ids == task_ids
    assert event.is_stop


@pytest.mark.parametrize("event_type", TASK_TYPES)
def test_a_start_or_a_slice_concerns_only_its_task_and_stops_nothing(event_type: str) -> None:
    event = parse(content(EventType=event_type, TaskId="audio", TaskIds=["video", "screen"]))
    assert event.task_ids == ("audio",)
    assert not event.is_stop


def test_unknown_keys_are_ignored() -> None:
    unknown = content(Reason="violence", Nested={"deep": [1]}, eventtime="never", Huge=10**400)
    assert parse(unknown | {"Message": "the room has ended", "detail": 1, "time": "now"}) == parse(content())


@pytest.mark.parametrize(
    ("event_type", "name", "rule"),
    [
        ("RoomEnded", "EventType", "be one of ['RoomEnded', "),
        ("RoomEnded", "AppId", "be string"),
        ("RoomEnded", "RoomId", "be string"),
        ("RoomGone", "TaskIds", "be array"),
        *((event_type, "TaskId", "be string") for event_type in TASK_TYPES),
    ],
)
def test_a_required_field_that_is_absent_or_null_is_refused(event_type: str, name: str, rule: str) -> None:
    given = content(EventType=event_type, TaskId="audio", TaskIds=["video"])
    without = {key: value for key, value in given.items() if key != name}
    assert refusal(json.dumps(without)) == ("InvalidField", f"message must contain ['{name}'] properties")
    assert broken_rule(**(given | {name: None})).startswith(f"message.{name} must {rule}")


@pytest.mark.parametrize(
    ("event_type", "rule"),
    [
        (f"RoomEnd{MARK}", "is unknown: did you mean RoomEnded?"),
        ("RoomEnded\n", "is unknown: did you mean RoomEnded?"),
        ("segmentStarted", "is unknown: did you mean SegmentStarted?"),
        ("", "is unknown: use one of RoomEnded, RoomDestroy, ModerationViolation, SegmentStarted, SegmentRealTimeData"),
        pytest.param("x" * 1_000_000, "is unknown: use one of RoomEnded, ", id="a million characters"),
        *((other, "must be one of ['RoomEnded', ") for other in (5, True, [MARK], {MARK: 1})),
    ],
)
def test_the_error_for_an_unknown_event_type_names_the_known_ones(event_type: object, rule: str) -> None:
    message = broken_rule(EventType=event_type)
    assert message.startswith(f"message.EventType {rule}")
    assert len(message) < 200


class TestIds:
    @pytest.mark.parametrize("good", ["a", "0", "_@-.", "..", "661e04c1d1a1", LONG_ID])
    def test_ids_follow_the_pattern_of_the_api(self, good: str) -> None:
        event = parse(content(AppId=good, RoomId=good, TaskId=good, TaskIds=[good], BusinessId=good, EventId=good))
        assert event == Event(EventType.ROOM_ENDED, Room(good, good), EVENT_MS, (good,), good, good)

    @pytest.mark.parametrize("name", IDS)
    @pytest.mark.parametrize(
        "bad",
        [
            pytest.param("", id="empty"),
            pytest.param(MARK + "\n", id="trailing newline"),
            pytest.param("\n" + MARK, id="leading newline"),
            pytest.param(MARK + " x", id="space"),
            pytest.param(MARK + "#room", id="hash"),
            pytest.param(MARK + "/..", id="slash"),
            pytest.param(MARK + "\x00", id="null character"),
            pytest.param(MARK + "é", id="accent"),
            pytest.param(MARK + "\uff11", id="full-width digit"),
            pytest.param(MARK + "\u0661", id="arabic digit"),
            pytest.param(MARK + "\ud800", id="lone surrogate"),
            pytest.param(MARK + "i" * 123, id="129 characters"),
        ],
    )
    def test_the_error_for_any_other_id_names_the_field_and_the_pattern(self, name: str, bad: str) -> None:
        field, value = ("TaskIds[1]", ["audio", bad]) if name == "TaskIds" else (name, bad)
        assert broken_rule(**{name: value}) == f"message.{field} must match pattern ^[a-zA-Z0-9_@.-]{{1,128}}$"

    @pytest.mark.parametrize("name", IDS)
    @pytest.mark.parametrize("bad", [5, True, 1.5, float("nan"), [MARK], {MARK: 1}])
    def test_an_id_that_is_not_a_string_is_refused(self, name: str, bad: object) -> None:
        or_null = " or null" if name in ("TaskId", "BusinessId", "EventId") else ""
        field, value = ("TaskIds[0]", [bad]) if name == "TaskIds" else (name, bad)
        assert broken_rule(**{name: value}) == f"message.{field} must be string{or_null}"

    @pytest.mark.parametrize(
        ("bad", "rule"),
        [
            ([], "contain at least 1 items"),
            (["audio"] * 101, "contain less than or equal to 100 items"),
            (MARK, "be array or null"),
            ({MARK: 1}, "be array or null"),
        ],
    )
    def test_a_list_of_no_task_or_of_more_than_a_hundred_is_refused(self, bad: object, rule: str) -> None:
        assert broken_rule(TaskIds=bad) == f"message.TaskIds must {rule}"


class TestTime:
    @pytest.mark.parametrize("text", ["2026-11-22T06:12:02.124Z", "9999-12-31T23:59:59-23:59"])
    def test_an_event_is_never_later_than_its_message(self, text: str) -> None:
        assert parse(content(EventTime=text)).time_ms == SENT_MS

    @pytest.mark.parametrize(
        ("event_time", "redriven_time", "time_ms"),
        [
            (None, str(EVENT_MS - 1), EVENT_MS - 1),
            (EVENT_TIME, str(EVENT_MS - 1), EVENT_MS - 1),
            (EVENT_TIME, str(EVENT_MS + 1), EVENT_MS),
            (None, str(SENT_MS + 1), SENT_MS),
            (None, "2026-11-22T14:12:00.123+08:00", EVENT_MS),
        ],
    )
    def test_a_redriven_or_copied_message_keeps_its_first_time_and_is_a_second_try(
        self, event_time: str | None, redriven_time: str, time_ms: int
    ) -> None:
        event = parse(content(EventTime=event_time), redriven_time)
        assert (event.time_ms, event.is_second_try) == (time_ms, True)

    @pytest.mark.parametrize(
        ("bad", "rule"),
        [
            ("2026-02-29T00:00:00Z", ": the time must be an existing date and time with an offset, in RFC 3339"),
            ("0001-01-01T00:00:00+23:59", ": the time must not be before 2018, when the RTC service did not exist"),
            (f"2026-11-22{MARK}", " must match pattern ^[0-9]{4}-"),
            (f"2026-11-22T06:12:00.{'1' * 60}Z", " must be shorter than or equal to 64 characters"),
            *((bad, " must be string or null") for bad in (EVENT_MS, float("nan"), 10**30, True, [MARK], {MARK: 1})),
        ],
    )
    def test_the_error_for_a_wrong_time_names_the_field_and_the_rule(self, bad: object, rule: str) -> None:
        message = broken_rule(EventTime=bad)
        assert message.startswith(f"message.EventTime{rule}")
        assert str(bad) not in message


@pytest.mark.parametrize(
    ("body", "code", "rule"),
    [
        pytest.param("", "NotJson", "is not JSON, line 1 column 1", id="nothing"),
        pytest.param("   ", "NotJson", "is not JSON, line 1 column 4", id="blanks"),
        pytest.param(MARK, "NotJson", "is not JSON, line 1 column 1", id="text"),
        pytest.param(f'{{"EventType": "{MARK}', "NotJson", "is not JSON, line 1 column 15", id="cut off"),
        pytest.param("{}{}", "NotJson", "is not JSON, line 1 column 3", id="two objects"),
        pytest.param("\ufeff{}", "NotJson", "is not JSON, line 1 column 1", id="byte order mark"),
        pytest.param('{"a":' * 100_000, "NotJson", "is not JSON", id="deep object"),
        pytest.param('{"a": ' + "9" * 5_000 + "}", "NotJson", "is not JSON", id="huge number"),
        pytest.param("[]", "NotAnObject", "must be a JSON object", id="list"),
        pytest.param("NaN", "NotAnObject", "must be a JSON object", id="not a number"),
        pytest.param(f'"{MARK}"', "NotAnObject", "must be a JSON object", id="string"),
        pytest.param('"\\ud800"', "NotAnObject", "must be a JSON object", id="lone surrogate, escaped"),
        pytest.param("\ud800", "NotJson", "is not JSON, line 1 column 1", id="lone surrogate"),
    ],
)
def test_a_body_without_a_json_object_is_refused(body: str, code: str, rule: str) -> None:
    assert refusal(body) == (code, f"the body {rule}")
