import json
import traceback
from typing import Any

import pytest

from segments.errors import InvalidMessage
from segments.events import Event, EventType, Room, Task, parse_event

EVENT_TIME = "2026-11-22T06:12:00.123Z"
EVENT_MS = 1_795_327_920_123
SENT_MS = EVENT_MS + 2_000

MARK = "s3cr3t"  # in every bad value that can hold it: no error may repeat it
LONG_ID = "i" * 128
STOP_TYPES = ["RoomEnded", "RoomDestroy", "ModerationViolation"]
TASK_TYPES = ["SegmentStarted", "SegmentRealTimeData"]
OPTIONAL_IDS = ["TaskId", "BusinessId", "EventId"]


def content(**changes: Any) -> dict[str, Any]:
    """Return an event without a task, with these keys changed; None removes one."""
    whole = {"EventType": "RoomEnded", "EventTime": EVENT_TIME, "AppId": "661e", "RoomId": "room-1"} | changes
    return {key: value for key, value in whole.items() if value is not None}


def parse(value: object, sent_ms: int = SENT_MS, redriven_time: str | None = None) -> Event:
    event = parse_event(json.dumps(value), sent_ms, redriven_time)
    assert event is not None
    return event


def refusal(body: str, redriven_time: str | None = None) -> InvalidMessage:
    with pytest.raises(InvalidMessage) as raised:
        parse_event(body, SENT_MS, redriven_time)
    told = "".join(traceback.format_exception(raised.value)) + repr(raised.value)
    assert MARK not in told
    return raised.value


def test_an_event_is_understood_whole() -> None:
    said = content(EventId="evt-1", TaskId="audio", BusinessId="biz-1")
    room = Room("661e", "room-1")
    event = parse(said)
    assert event == Event(
        EventType.ROOM_ENDED, room, EVENT_MS, task_ids=("audio",), event_id="evt-1", business_id="biz-1"
    )
    assert event.tasks == [Task(room, "audio")]


def test_what_is_optional_may_be_left_out() -> None:
    said = content(EventTime=None)
    assert parse(said) == Event(EventType.ROOM_ENDED, Room("661e", "room-1"), SENT_MS)


@pytest.mark.parametrize("name", ["EventTime", "EventId", "TaskId", "TaskIds", "BusinessId"])
def test_null_is_not_given(name: str) -> None:
    given = content(EventId="evt-1", TaskId="audio", TaskIds=["video"], BusinessId="biz-1")
    assert parse(given | {name: None}) == parse({key: value for key, value in given.items() if key != name})


@pytest.mark.parametrize(
    ("event_type", "name"),
    [("RoomEnded", "AppId"), ("RoomEnded", "RoomId"), ("RoomGone", "TaskIds")]
    + [(each, "TaskId") for each in TASK_TYPES],
)
def test_null_is_nothing_where_something_is_required(event_type: str, name: str) -> None:
    assert refusal(json.dumps(content(EventType=event_type) | {name: None})).message.startswith(f"message.{name} must")


@pytest.mark.parametrize("event_type", STOP_TYPES)
@pytest.mark.parametrize(
    ("named", "task_ids"),
    [
        ({}, ()),
        ({"TaskId": "audio"}, ("audio",)),
        ({"TaskIds": ["audio", "video"]}, ("audio", "video")),
        ({"TaskIds": ["audio", "video", "audio"]}, ("audio", "video")),
        ({"TaskId": "screen", "TaskIds": ["audio", "screen"]}, ("screen", "audio")),
    ],
)
def test_a_stop_event_names_one_task_or_several_or_the_room(
    event_type: str, named: dict[str, Any], task_ids: tuple[str, ...]
) -> None:
    event = parse(content(EventType=event_type, **named))
    assert event.task_ids == task_ids
    assert event.is_stop


@pytest.mark.parametrize("event_type", TASK_TYPES)
def test_an_event_of_a_task_is_about_no_other_and_stops_nothing(event_type: str) -> None:
    event = parse(content(EventType=event_type, TaskId="audio", TaskIds=["video", "screen"]))
    assert event.task_ids == ("audio",)
    assert not event.is_stop


@pytest.mark.parametrize("event_type", TASK_TYPES)
@pytest.mark.parametrize("named", [{}, {"TaskIds": ["audio"]}])
def test_an_event_of_a_task_must_name_it(event_type: str, named: dict[str, Any]) -> None:
    error = refusal(json.dumps(content(EventType=event_type, **named)))
    assert error.message == "message must contain ['TaskId'] properties"


def test_keys_that_nobody_knows_are_ignored() -> None:
    said = content(Reason="violence", Nested={"deep": [1]}, eventtime="never", Huge=10**400)
    assert parse(said) == parse(content())


@pytest.mark.parametrize("name", ["EventType", "AppId", "RoomId"])
def test_an_event_without_a_required_key_is_refused(name: str) -> None:
    error = refusal(json.dumps(content(**{name: None})))
    assert error.code == "InvalidField"
    assert "must contain" in error.message
    assert name in error.message


@pytest.mark.parametrize(
    ("event_type", "said"),
    [
        ("RoomEnd", "is unknown: did you mean RoomEnded?"),
        (f"RoomEnd{MARK}", "is unknown: did you mean RoomEnded?"),
        ("RoomEnded\n", "is unknown: did you mean RoomEnded?"),
        ("segmentStarted", "is unknown: did you mean SegmentStarted?"),
        ("", "is unknown: use one of RoomEnded, RoomDestroy, ModerationViolation, SegmentStarted, SegmentRealTimeData"),
        ("x" * 1_000_000, "is unknown: use one of RoomEnded, "),
        (5, "must be one of ['RoomEnded', "),
        (True, "must be one of ['RoomEnded', "),
        ([MARK], "must be one of ['RoomEnded', "),
        ({}, "must be one of ['RoomEnded', "),
    ],
)
def test_an_unknown_event_type_is_refused_since_a_typo_must_not_vanish(event_type: object, said: str) -> None:
    error = refusal(json.dumps(content(EventType=event_type)))
    assert error.message.startswith(f"message.EventType {said}")
    assert len(error.message) < 200


class TestIds:
    @pytest.mark.parametrize("good", ["a", "0", "_@-.", "..", "661e04c1d1a1", LONG_ID])
    def test_ids_follow_the_pattern_of_the_api(self, good: str) -> None:
        said = content(AppId=good, RoomId=good, TaskId=good, TaskIds=[good], BusinessId=good, EventId=good)
        assert parse(said) == Event(EventType.ROOM_ENDED, Room(good, good), EVENT_MS, (good,), good, good)

    @pytest.mark.parametrize("name", ["AppId", "RoomId", "TaskId", "TaskIds", "BusinessId", "EventId"])
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
    def test_any_other_id_is_refused_by_name_and_rule(self, name: str, bad: str) -> None:
        field, value = ("TaskIds[1]", ["audio", bad]) if name == "TaskIds" else (name, bad)
        error = refusal(json.dumps(content(**{name: value})))
        assert error.code == "InvalidField"
        assert error.message == f"message.{field} must match pattern ^[a-zA-Z0-9_@.-]{{1,128}}$"

    @pytest.mark.parametrize("name", ["AppId", "RoomId", "TaskId", "TaskIds", "BusinessId", "EventId"])
    @pytest.mark.parametrize("bad", ["5", "true", "1.5", "NaN", "-Infinity", f'["{MARK}"]', f'{{"{MARK}": 1}}'])
    def test_an_id_that_is_not_a_string_is_refused(self, name: str, bad: str) -> None:
        may_be_null = " or null" if name in OPTIONAL_IDS else ""
        field, value = ("TaskIds[0]", f"[{bad}]") if name == "TaskIds" else (name, bad)
        rest = json.dumps(content(**{name: None}))[1:]
        error = refusal(f'{{"{name}": {value}, {rest}')
        assert error.message == f"message.{field} must be string{may_be_null}"

    @pytest.mark.parametrize(
        ("bad", "rule"),
        [
            ([], "message.TaskIds must contain at least 1 items"),
            (["audio"] * 101, "message.TaskIds must contain less than or equal to 100 items"),
            (MARK, "message.TaskIds must be array or null"),
            ({MARK: 1}, "message.TaskIds must be array or null"),
        ],
    )
    def test_a_list_of_tasks_has_something_in_it_and_an_end(self, bad: object, rule: str) -> None:
        assert refusal(json.dumps(content(TaskIds=bad))).message == rule

    def test_a_list_may_name_a_hundred_tasks(self) -> None:
        task_ids = tuple(f"task-{number}" for number in range(100))
        assert parse(content(TaskIds=task_ids)).task_ids == task_ids


class TestTime:
    @pytest.mark.parametrize("text", ["2026-11-22T06:12:02.124Z", "2099-01-01T00:00:00Z", "9999-12-31T23:59:59-23:59"])
    def test_nothing_happens_after_it_was_sent(self, text: str) -> None:
        assert parse(content(EventTime=text)).time_ms == SENT_MS

    @pytest.mark.parametrize(
        ("event_time", "redriven_time", "time_ms"),
        [
            (None, str(EVENT_MS - 1), EVENT_MS - 1),
            (EVENT_TIME, str(EVENT_MS - 1), EVENT_MS - 1),
            (EVENT_TIME, str(EVENT_MS + 1), EVENT_MS),
            (None, str(SENT_MS + 1), SENT_MS),
            (None, EVENT_TIME, EVENT_MS),
            (None, "2026-11-22T14:12:00.123+08:00", EVENT_MS),
        ],
    )
    def test_a_redriven_letter_and_a_copy_keep_their_first_time_and_are_second_tries(
        self, event_time: str | None, redriven_time: str, time_ms: int
    ) -> None:
        event = parse(content(EventTime=event_time), redriven_time=redriven_time)
        assert (event.time_ms, event.is_second_try) == (time_ms, True)

    @pytest.mark.parametrize(
        ("bad", "rule"),
        [
            ("2026-02-29T00:00:00Z", "be a date and time that exists, with its offset"),
            ("0001-01-01T00:00:00Z", "not be before 2018, when the RTC service did not exist"),
            ("0001-01-01T00:00:00+23:59", "not be before 2018, when the RTC service did not exist"),
            (f"2026-11-22{MARK}", "match pattern ^[0-9]{4}-"),
            (f"2026-11-22T06:12:00.{'1' * 60}Z", "be shorter than or equal to 64 characters"),
        ],
    )
    def test_a_time_that_is_none_is_refused_by_name_and_rule(self, bad: str, rule: str) -> None:
        error = refusal(json.dumps(content(EventTime=bad)))
        assert str(error).startswith(f"InvalidField: message.EventTime must {rule}")
        assert bad not in str(error)

    @pytest.mark.parametrize("bad", [EVENT_MS, 1.5, float("nan"), float("inf"), 10**400, True, [MARK], {MARK: 1}])
    def test_a_time_that_is_not_a_string_is_refused(self, bad: object) -> None:
        assert refusal(json.dumps(content(EventTime=bad))).message == "message.EventTime must be string or null"


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        pytest.param("", "NotJson", "the body is not JSON, line 1 column 1", id="nothing"),
        pytest.param("   ", "NotJson", "the body is not JSON, line 1 column 4", id="blanks"),
        pytest.param(MARK, "NotJson", "the body is not JSON, line 1 column 1", id="text"),
        pytest.param(f'{{"EventType": "{MARK}', "NotJson", "the body is not JSON, line 1 column 15", id="cut off"),
        pytest.param("{}{}", "NotJson", "the body is not JSON, line 1 column 3", id="two objects"),
        pytest.param("\ufeff{}", "NotJson", "the body is not JSON, line 1 column 1", id="byte order mark"),
        pytest.param("[" * 100_000, "NotJson", "the body is not JSON", id="deep list"),
        pytest.param('{"a":' * 100_000, "NotJson", "the body is not JSON", id="deep object"),
        pytest.param('{"a": ' + "9" * 5_000 + "}", "NotJson", "the body is not JSON", id="huge number"),
        pytest.param("[]", "NotAnObject", "the body must be a JSON object", id="list"),
        pytest.param("null", "NotAnObject", "the body must be a JSON object", id="null"),
        pytest.param("NaN", "NotAnObject", "the body must be a JSON object", id="not a number"),
        pytest.param(f'"{MARK}"', "NotAnObject", "the body must be a JSON object", id="string"),
        pytest.param('"\\ud800"', "NotAnObject", "the body must be a JSON object", id="lone surrogate, escaped"),
        pytest.param("\ud800", "NotJson", "the body is not JSON, line 1 column 1", id="lone surrogate"),
    ],
)
def test_a_body_without_a_json_object_is_refused(body: str, code: str, message: str) -> None:
    error = refusal(body)
    assert (error.code, error.message) == (code, message)
