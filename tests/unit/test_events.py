import json
import re
import traceback
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segments.errors import InvalidMessage
from segments.events import Event, EventType, Room, Task, parse_event

EVENT_TIME = "2026-11-22T06:12:00.123Z"
EVENT_MS = 1_795_327_920_123
SENT_MS = EVENT_MS + 2_000

MARK = "s3cr3t"  # in every bad value that can hold it: no error may repeat it
LONG_ID = "i" * 128
STOP_TYPES = ["RoomEnded", "RoomDestroy", "ModerationViolation"]
TASK_TYPES = ["SegmentStarted", "SegmentRealTimeData"]
NAMED_TASKS = {"TaskId": "audio", "TaskIds": ["audio", "video"]}


def content(**changes: Any) -> dict[str, Any]:
    """Give an event that names no task, with these keys changed; None removes one."""
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
def test_an_event_of_a_task_stops_nothing(event_type: str) -> None:
    event = parse(content(EventType=event_type, TaskId="audio"))
    assert event.task_ids == ("audio",)
    assert not event.is_stop


@pytest.mark.parametrize("event_type", TASK_TYPES)
def test_an_event_of_a_task_is_about_no_other(event_type: str) -> None:
    event = parse(content(EventType=event_type, TaskId="audio", TaskIds=["video", "screen"]))
    assert event.task_ids == ("audio",)


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


@pytest.mark.parametrize("event_type", [f"RoomEnd{MARK}", "roomended", "RoomEnded\n", "", 5, 1.5, True, [MARK], {}])
def test_an_unknown_event_type_is_refused_since_a_typo_must_not_vanish(event_type: object) -> None:
    error = refusal(json.dumps(content(EventType=event_type)))
    assert error.message.startswith("message.EventType must be one of ['RoomEnded', ")


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
    @pytest.mark.parametrize("bad", ["null", "5", "true", "1.5", "NaN", "-Infinity", f'["{MARK}"]', f'{{"{MARK}": 1}}'])
    def test_an_id_that_is_not_a_string_is_refused(self, name: str, bad: str) -> None:
        field, value = ("TaskIds[0]", f"[{bad}]") if name == "TaskIds" else (name, bad)
        rest = json.dumps(content(**{name: None}))[1:]
        error = refusal(f'{{"{name}": {value}, {rest}')
        assert error.message == f"message.{field} must be string"

    @pytest.mark.parametrize(
        ("bad", "rule"),
        [
            ([], "message.TaskIds must contain at least 1 items"),
            (MARK, "message.TaskIds must be array"),
            ({MARK: 1}, "message.TaskIds must be array"),
        ],
    )
    def test_a_list_of_tasks_is_a_list_with_something_in_it(self, bad: object, rule: str) -> None:
        assert refusal(json.dumps(content(TaskIds=bad))).message == rule


class TestTime:
    @pytest.mark.parametrize(
        ("text", "unix_ms"),
        [
            ("2026-11-22T06:12:00Z", 1_795_327_920_000),
            ("2026-11-22T06:12:00.1Z", 1_795_327_920_100),
            ("2026-11-22T06:12:00.123456789Z", EVENT_MS),
            ("2026-11-22T06:12:00.123999999Z", EVENT_MS),
            ("2026-11-22T06:12:00.1239999999999999Z", EVENT_MS),
            ("2026-11-22T14:12:00.123+08:00", EVENT_MS),
            ("2026-11-22T00:42:00.123-05:30", EVENT_MS),
            ("2026-11-22T06:12:00.123-00:00", EVENT_MS),
            ("2024-02-29T00:00:00Z", 1_709_164_800_000),
            ("1969-12-31T23:59:59.9995Z", -1),
            ("0001-01-01T00:00:00+23:59", -62_135_683_140_000),
        ],
    )
    def test_event_time_is_read_to_the_millisecond_it_lies_in(self, text: str, unix_ms: int) -> None:
        assert parse(content(EventTime=text)).time_ms == unix_ms

    @pytest.mark.parametrize("text", ["2026-11-22T06:12:02.124Z", "2099-01-01T00:00:00Z", "9999-12-31T23:59:59-23:59"])
    def test_nothing_happens_after_it_was_sent(self, text: str) -> None:
        assert parse(content(EventTime=text)).time_ms == SENT_MS

    def test_an_event_without_a_time_happened_when_it_was_sent(self) -> None:
        assert parse(content(EventTime=None)).time_ms == SENT_MS

    @pytest.mark.parametrize(
        ("event_time", "redriven_time", "time_ms"),
        [
            (None, str(EVENT_MS - 1), EVENT_MS - 1),
            (EVENT_TIME, str(EVENT_MS - 1), EVENT_MS - 1),
            (EVENT_TIME, str(EVENT_MS + 1), EVENT_MS),
            (None, str(SENT_MS + 1), SENT_MS),
            (None, EVENT_TIME, EVENT_MS),
            (None, "2026-11-22T14:12:00.123+08:00", EVENT_MS),
            (None, "0", 0),
            (None, "-1000", -1000),
        ],
    )
    def test_a_redriven_letter_keeps_its_first_time(
        self, event_time: str | None, redriven_time: str, time_ms: int
    ) -> None:
        event = parse(content(EventTime=event_time), redriven_time=redriven_time)
        assert event.time_ms == time_ms

    @pytest.mark.parametrize("bad", ["", MARK, "2026-11-22T06:12:00", "1" * 16, "1" * 5000, "\u0661", "1.5e3", "NaN"])
    def test_a_redriven_time_that_is_none_is_refused(self, bad: str) -> None:
        error = refusal(json.dumps(content()), redriven_time=bad)
        assert error.message == "the attribute EventTime must be a date and time that exists, with its offset"

    @pytest.mark.parametrize(
        "bad",
        [
            "2026-02-29T00:00:00Z",
            "2026-04-31T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-00-01T00:00:00Z",
            "0000-01-01T00:00:00Z",
            "2026-11-22T25:00:00Z",
            "2026-11-22T06:60:00Z",
            "2026-11-22T06:12:61Z",
            "2026-11-22T06:12:00+24:00",
        ],
    )
    def test_a_time_that_does_not_exist_is_refused(self, bad: str) -> None:
        error = refusal(json.dumps(content(EventTime=bad)))
        assert error.message == "message.EventTime must be a date and time that exists, with its offset"
        assert bad not in repr(error)

    @pytest.mark.parametrize(
        "bad",
        [
            "",
            MARK,
            "2026-11-22",
            "2026-11-22T06:12Z",
            "2026-11-22T06:12:00",
            "2026-11-22 06:12:00Z",
            "2026-11-22T06:12:00Z\n",
            " 2026-11-22T06:12:00Z",
            "2026-11-22T06:12:00.Z",
            "2026-11-22T06:12:00,5Z",
            "2026-11-22T06:12:00z",
            "2026-11-22T06:12:00+0800",
            "20261122T061200Z",
            "2026-W47-7T06:12:00Z",
            "\uff12026-11-22T06:12:00Z",
            "2026-11-22T06:12:00+08:00:00",
            "2026-11-22T06:12:00+00:60",
            str(EVENT_MS),
        ],
    )
    def test_a_time_of_another_form_is_refused(self, bad: str) -> None:
        error = refusal(json.dumps(content(EventTime=bad)))
        assert error.message.startswith("message.EventTime must match pattern ")
        assert not bad.strip() or bad not in error.message

    @pytest.mark.parametrize("bad", [EVENT_MS, 1.5, float("nan"), float("inf"), 10**400, True, [MARK], {MARK: 1}])
    def test_a_time_that_is_not_a_string_is_refused(self, bad: object) -> None:
        assert refusal(json.dumps(content(EventTime=bad))).message == "message.EventTime must be string"


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


ID = re.compile(r"[a-zA-Z0-9_@\-.]{1,128}")
VALID = (
    content(EventId="evt-1", TaskId="audio", BusinessId="biz-1"),
    content(EventType="ModerationViolation", TaskIds=["audio", "video"]),
    content(EventType="SegmentStarted", TaskId="audio"),
    {"detail-type": "RoomEnded", "time": EVENT_TIME, "detail": {"AppId": "661e", "RoomId": "room-1"}},
    {"Type": "Notification", "Message": json.dumps(content())},
    {
        "EventType": "RoomDestroy",
        "EventTime": EVENT_TIME,
        "AppId": "661e",
        "EventData": json.dumps({"RoomId": "room-1"}),
    },
)
EVENT_KEYS = ["EventType", "EventId", "EventTime", "AppId", "RoomId", "TaskId", "TaskIds", "BusinessId"]
ENVELOPE_KEYS = ["EventData", "detail", "detail-type", "time", "Type", "Message"]
KEYS = st.sampled_from([*EVENT_KEYS, *ENVELOPE_KEYS])
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(codec=None), max_size=20)
    | st.sampled_from(["audio", EVENT_TIME, "Notification", "RoomEnded", "RoomDestroy", "{}", "[]", "", "a\n"])
)
JSON = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS | st.text(max_size=5), inner, max_size=6),
    max_leaves=12,
)


class TestWhateverArrives:
    """A body gives an event, or nothing to do, or InvalidMessage; no other exception."""

    def understand(self, body: str, redriven_time: str | None = None) -> None:
        try:
            event = parse_event(body, SENT_MS, redriven_time)
        except InvalidMessage as error:
            told = f"{error.code}: {error.message}"
        else:
            told = "nothing amiss"
            self.check(event)
        assert told.isprintable()

    def check(self, event: Event | None) -> None:
        if event is None:
            return
        ids = [event.room.app_id, event.room.room_id, *event.task_ids, event.event_id, event.business_id]
        assert all(ID.fullmatch(value) for value in ids if value is not None)
        assert event.time_ms <= SENT_MS
        assert len(set(event.task_ids)) == len(event.task_ids)
        assert event.is_stop or event.task_ids

    @settings(max_examples=700)
    @given(st.text(st.characters(codec=None)), st.none() | st.text())
    def test_any_text(self, body: str, redriven_time: str | None) -> None:
        self.understand(body, redriven_time)

    @settings(max_examples=700)
    @given(JSON)
    def test_any_json(self, value: object) -> None:
        self.understand(json.dumps(value))

    @settings(max_examples=1_000)
    @given(st.sampled_from(VALID), st.dictionaries(KEYS, JSON, min_size=1, max_size=3), st.sets(KEYS, max_size=1))
    def test_valid_events_with_other_values(
        self, valid: dict[str, Any], changes: dict[str, Any], missing: set[str]
    ) -> None:
        changed = {key: value for key, value in (valid | changes).items() if key not in missing}
        self.understand(json.dumps(changed))

    @settings(max_examples=600)
    @given(
        st.sampled_from(VALID),
        st.integers(0, 200),
        st.integers(0, 5),
        st.text(st.characters(codec=None) | st.sampled_from('{}[]",:\\'), max_size=5),
    )
    def test_valid_events_with_other_characters(
        self, valid: dict[str, Any], start: int, length: int, inserted: str
    ) -> None:
        body = json.dumps(valid)
        self.understand(body[:start] + inserted + body[start + length :])
