"""The command `stopper`: reading and showing dead letters, records and times, and waiting for AWS.

tests/e2e/test_operators_tool.py runs the commands against a deployed stack.
"""

import json
import os
import signal
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st

from segments.events import Room
from tools import letters, parameters
from tools.deployment import NotDeployed, find_deployment
from tools.display import letter_text, printable, room_text, switch_text
from tools.event_queue import Depth
from tools.event_source import SETTLING_SECONDS, EventSource, NoEventSource, switch
from tools.interruption import interruptible
from tools.letters import DeadLetter, Group, Message, Selection
from tools.queues import MOST_IN_FLIGHT, DeadLetterQueue, Tally
from tools.rooms import Item
from tools.saved import load, save
from tools.times import parse_age, readable_age, readable_time

T = 1_795_327_920_123
SENT_MS = T + 1_000
FAILED_MS = T + 20_000
BODY = json.dumps({"EventType": "RoomEnded", "AppId": "661e", "RoomId": "room-1", "TaskId": "audio"})
LETTER = DeadLetter(
    message_id="m-1",
    receipt_handle="handle",
    body=BODY,
    kind="exhausted",
    event_time_ms=T,
    failed_at_ms=FAILED_MS,
    source_message_id="source-1",
    code="InternalError",
    error_message="the API answered HTTP 500",
    request_id="20261122REQUEST",
    receive_count=6,
    room=Room("661e", "room-1"),
)
DIED = DeadLetter(
    message_id="m-2",
    receipt_handle="handle",
    body=BODY,
    kind="died",
    event_time_ms=SENT_MS,
    failed_at_ms=SENT_MS,
    source_message_id="m-2",
    room=Room("661e", "room-1"),
)
ATTRIBUTES: dict[str, str | int] = {
    "ErrorKind": "exhausted",
    "ErrorCode": "InternalError",
    "ErrorMessage": "the API answered HTTP 500",
    "RequestId": "20261122REQUEST",
    "FailedAt": FAILED_MS,
    "SourceMessageId": "source-1",
    "ReceiveCount": 6,
    "EventTime": T,
}


def message(attributes: Mapping[str, str | int], *, message_id: str = "m-1", body: str = BODY) -> Any:
    """Create a message as SQS returns it."""
    return {
        "MessageId": message_id,
        "ReceiptHandle": "handle",
        "Body": body,
        "Attributes": {"SentTimestamp": str(SENT_MS)},
        "MessageAttributes": {
            name: {"StringValue": str(value), "DataType": "Number" if isinstance(value, int) else "String"}
            for name, value in attributes.items()
        },
    }


class TestReadingALetter:
    def test_a_letter_has_the_values_of_its_attributes(self) -> None:
        assert letters.read_letter(message(ATTRIBUTES)) == LETTER

    # localstack/localstack, test_sqs.snapshot.json, test_send_message_with_binary_attributes
    @pytest.mark.parametrize("attributes", [{}, {"EventTime": {"BinaryValue": b"bytes", "DataType": "Binary"}}])
    def test_a_letter_without_the_function_s_attributes_is_of_the_kind_died(self, attributes: dict[str, Any]) -> None:
        assert letters.read_letter(message({}, message_id="m-2") | {"MessageAttributes": attributes}) == DIED

    @pytest.mark.parametrize(
        ("body_time", "attribute", "time_ms"),
        [
            ("2026-11-22T06:12:00.123Z", None, T),
            ("no time", None, SENT_MS),
            ("2026-11-22T06:12:00.123Z", T - 5, T - 5),
            (None, SENT_MS + 5, SENT_MS),
            ("2026-11-22T06:12:00.123Z", "never", T),
        ],
    )
    def test_a_letter_has_the_event_time_that_the_function_would_read(
        self, body_time: str | None, attribute: str | int | None, time_ms: int
    ) -> None:
        body = json.dumps(json.loads(BODY) | ({"EventTime": body_time} if body_time else {}))
        attributes: dict[str, str | int] = {} if attribute is None else {"EventTime": attribute}
        assert letters.read_letter(message(attributes, body=body)).event_time_ms == time_ms

    @pytest.mark.parametrize(
        ("body", "room"),
        [
            (json.dumps({"detail-type": "RoomEnded", "detail": json.loads(BODY)}), Room("661e", "room-1")),
            (json.dumps({"AppId": "661e", "RoomId": "a wrong id", "EventType": "Typo"}), Room("661e", "a wrong id")),
            (json.dumps({"AppId": 661, "RoomId": "room-1"}), None),
            (json.dumps({"EventType": "UserJoin", "EventData": "{}"}), None),
            ("no JSON", None),
        ],
    )
    def test_a_letter_that_breaks_a_rule_still_belongs_to_its_room(self, body: str, room: Room | None) -> None:
        assert letters.read_letter(message({}, body=body)).room == room

    @given(
        st.text(),
        st.dictionaries(
            st.sampled_from(list(ATTRIBUTES)), st.text() | st.integers() | st.integers(0, 10**20).map(str), max_size=8
        ),
    )
    def test_any_letter_can_be_read_and_shown(self, body: str, attributes: dict[str, str | int]) -> None:
        letter = letters.read_letter(message(attributes, body=body))
        shown = letter_text(letter, FAILED_MS).plain
        assert all(character.isprintable() or character == "\n" for character in shown)


ALL_OF_LETTER = Selection(
    source_message_id="source-1",
    kind="exhausted",
    code="InternalError",
    app_id="661e",
    room_id="room-1",
    failed_before_ms=FAILED_MS + 1,
    failed_after_ms=FAILED_MS - 1,
)


def test_a_selection_takes_the_letters_that_fit_all_of_it() -> None:
    assert Selection().takes(LETTER)
    assert ALL_OF_LETTER.takes(LETTER)


@pytest.mark.parametrize(
    "other",
    [
        {"source_message_id": "m-1"},
        {"kind": "died"},
        {"code": "Other"},
        {"app_id": "other"},
        {"room_id": "room-2"},
        {"failed_before_ms": FAILED_MS},
        {"failed_after_ms": FAILED_MS},
    ],
    ids=str,
)
def test_a_selection_takes_no_letter_that_differs_in_one_field(other: dict[str, Any]) -> None:
    assert not replace(ALL_OF_LETTER, **other).takes(LETTER)


def test_a_letter_without_a_room_is_not_selected_by_application() -> None:
    assert not Selection(app_id="661e").takes(replace(LETTER, room=None))


def test_selected_letters_come_in_the_order_in_which_they_failed() -> None:
    assert letters.select([LETTER, DIED, replace(LETTER, kind="rejected")], Selection()) == [
        DIED,
        LETTER,
        replace(LETTER, kind="rejected"),
    ]


def test_letters_are_grouped_by_reason_with_the_largest_group_first() -> None:
    older = replace(LETTER, failed_at_ms=FAILED_MS - 5, error_message="task audio: the API answered HTTP 502")
    oldest = replace(LETTER, failed_at_ms=FAILED_MS - 9, error_message="task s-1: the API answered HTTP 500")
    unlike = replace(LETTER, error_message="the API gave no answer")
    other = replace(LETTER, code="Other", error_message=None)
    assert letters.group([other, LETTER, DIED, older, unlike, oldest]) == [
        Group("exhausted", "InternalError", 3, FAILED_MS - 9, "task s-1: the API answered HTTP 500"),
        Group("died", None, 1, SENT_MS, None),
        Group("exhausted", "InternalError", 1, FAILED_MS, "the API gave no answer"),
        Group("exhausted", "Other", 1, FAILED_MS, None),
    ]


def test_a_redriven_letter_is_the_unchanged_message_with_its_event_time() -> None:
    assert letters.redriven(LETTER) == Message(BODY, {"EventTime": T}, group="661e")


@pytest.mark.parametrize("body", ["nonsense", json.dumps({"AppId": "a b", "RoomId": "room-1"})])
def test_a_redriven_letter_without_a_valid_application_has_no_group(body: str) -> None:
    # SQS refuses a group with blanks in it, so the letter could never be sent.
    assert letters.redriven(letters.read_letter(message({}, body=body))).group is None


class TestSavedCopies:
    def test_saved_letters_are_restored_unchanged_and_never_overwritten(self, tmp_path: Path) -> None:
        file = tmp_path / "saved.jsonl"
        saved = [LETTER, replace(DIED, message_id="m-1", body="two\nlines, \u2028 and \x85 \u623f\u95f4", room=None)]
        save(file, saved)
        restored = [letters.read_letter(message(one.attributes, body=one.body)) for one in load(file)]
        assert restored == saved
        with pytest.raises(FileExistsError):
            save(file, [LETTER])

    @pytest.mark.parametrize("line", ["", "no JSON", "[]", "{}", '{"Body": 1, "ErrorKind": "died", "EventTime": 1}'])
    def test_a_line_without_a_letter_is_refused_with_its_number(self, tmp_path: Path, line: str) -> None:
        file = tmp_path / "saved.jsonl"
        file.write_text(json.dumps(letters.to_json(LETTER)) + "\n" + line + "\n")
        with pytest.raises(ValueError, match="line 2"):
            load(file)


class TestTimes:
    @pytest.mark.parametrize(
        ("text", "seconds"), [("0s", 0), ("90s", 90), ("15m", 900), ("2h", 7_200), ("3d", 259_200), ("1w", 604_800)]
    )
    def test_an_age_is_a_number_and_a_unit(self, text: str, seconds: int) -> None:
        assert parse_age(text) == seconds

    @pytest.mark.parametrize("text", ["", "15", "m", "-1m", "1.5h", "1h30m", "15 m", "1M", "1y", "٣m"])
    def test_any_other_text_is_refused_as_an_age(self, text: str) -> None:
        with pytest.raises(ValueError, match="is not an age"):
            parse_age(text)

    @pytest.mark.parametrize(
        ("time_ms", "text"),
        [
            (T, "2026-11-22 06:12:00.123 UTC"),
            (-62_135_625_600_000, "-62135625600000 ms"),
            (10**15, "1000000000000000 ms"),
        ],
    )
    def test_a_time_is_shown_in_utc_or_as_the_number_that_it_is(self, time_ms: int, text: str) -> None:
        assert readable_time(time_ms) == text

    @pytest.mark.parametrize(
        ("seconds", "text"),
        [
            (0, "0 s ago"),
            (119, "119 s ago"),
            (120, "2 min ago"),
            (7_200, "2 h ago"),
            (172_800, "2 d ago"),
            (-90, "in 90 s"),
            (-604_799, "in 7 d"),
        ],
    )
    def test_an_age_is_shown_in_the_largest_unit_that_gives_two_or_more(self, seconds: int, text: str) -> None:
        assert readable_age(T - seconds * 1_000, T) == text


@pytest.mark.parametrize(
    ("item", "state"),
    [
        (Item("#room", stop_event_time_ms=T), "ended"),
        (Item("#look", gone_at_ms=T), "found gone"),
        (Item("audio", open_since_ms=T), "open: seen, no stop event yet"),
        (Item("audio", started_at_ms=T, open_since_ms=T), "open: started, no stop event since"),
        (
            Item("audio", open_since_ms=T, stop_event_time_ms=T - 1, outcome="stopped"),
            "open again, after it was stopped",
        ),
        (Item("audio", stop_event_time_ms=T, outcome="stopped"), "stopped"),
        (
            Item("audio", stop_event_time_ms=T, outcome="stopped", watch="1"),
            "stopped, only watched: the sweeper checks once more",
        ),
        (Item("audio"), "over"),
    ],
)
def test_an_item_shows_its_state(item: Item, state: str) -> None:
    assert item.state == state
    assert f": {state}\n" in room_text(Room("661e", "room-1"), [item], T).plain


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, 房间, two\nlines", "plain, 房间, two\nlines"),
        ("\x1b[2Jgone\r\x07", "\\x1b[2Jgone\\r\\x07"),
        ("\u202etxet\u200b", "\\u202etxet\\u200b"),
    ],
)
def test_nothing_that_a_letter_holds_steers_the_terminal(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_tallies_add_up_and_keep_the_first_reason() -> None:
    total = Tally(done=3) + Tally(done=8, refused=2, reason="first") + Tally(undeleted=1, reason="second")
    assert total == Tally(done=11, refused=2, undeleted=1, reason="first")
    assert total.total == 14


class Sqs:
    """A queue that delivers dead letters while at most MOST_IN_FLIGHT are in flight."""

    def __init__(self, waiting: int, in_flight: int) -> None:
        self._waiting = waiting
        self._in_flight = in_flight
        self._received = 0

    def get_queue_attributes(self, **_: object) -> Any:
        names = ("ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible")
        counts = {names[0]: str(self._waiting), names[1]: str(self._in_flight)}
        return {"Attributes": counts | {"ApproximateNumberOfMessagesDelayed": "0", "MessageRetentionPeriod": "60"}}

    def receive_message(self, **_: object) -> Any:
        count = min(10, self._waiting - self._received, MOST_IN_FLIGHT - self._in_flight - self._received)
        numbers = range(self._received, self._received + count)
        self._received += count
        return {"Messages": [message({}, message_id=f"m-{number}") for number in numbers]}


@pytest.mark.parametrize(
    ("in_flight", "complete"), [(0, True), (MOST_IN_FLIGHT - 26, True), (MOST_IN_FLIGHT - 20, False)]
)
def test_a_reading_is_not_complete_if_sqs_delivers_no_more_letters(in_flight: int, complete: bool) -> None:
    client: Any = Sqs(25, in_flight)
    reading = DeadLetterQueue(client, "url", lambda: False).read()
    assert (len(reading.letters), reading.complete) == (min(25, MOST_IN_FLIGHT - in_flight), complete)


def deny(**_: object) -> None:
    raise ClientError({"Error": {"Code": "AccessDeniedException", "Message": "no"}}, "Any")


def test_a_stack_of_another_application_is_refused() -> None:
    outputs = [{"OutputKey": "EventQueueUrl", "OutputValue": "url"}]
    client: Any = SimpleNamespace(describe_stacks=lambda **_: {"Stacks": [{"Outputs": outputs}]})
    with pytest.raises(NotDeployed, match=r"'theirs' is not .* output EventQueueArn is missing"):
        find_deployment(client, "theirs")


def test_a_denied_request_is_not_reported_as_a_missing_stack() -> None:
    client: Any = SimpleNamespace(describe_stacks=deny)
    with pytest.raises(ClientError, match="AccessDenied"):
        find_deployment(client, "ours")


class Lambda:
    """Answers as Lambda does about a queue's mapping: with its state, or with a refusal while the state is changing."""

    def __init__(self, *states: str, busy: int = 0) -> None:
        self._states = list(states)
        self._busy = busy
        self.updates: list[bool] = []

    def list_event_source_mappings(self, EventSourceArn: str) -> Any:  # noqa: N803
        assert EventSourceArn == "arn"
        state = self._states.pop(0) if len(self._states) > 1 else self._states[0]
        return {"EventSourceMappings": [{"UUID": "u", "State": state}]}

    def update_event_source_mapping(self, UUID: str, Enabled: bool) -> None:  # noqa: N803
        assert UUID == "u"
        self.updates.append(Enabled)
        if self._busy >= len(self.updates):
            raise ClientError({"Error": {"Code": "ResourceInUseException"}}, "UpdateEventSourceMapping")


class TestPausing:
    @pytest.fixture(autouse=True)
    def slept(self, monkeypatch: pytest.MonkeyPatch) -> list[float]:
        """Let sleep move the clock and return at once. Returns the seconds of each sleep."""
        clock, naps = [0.0], list[float]()

        def sleep(seconds: float) -> None:
            naps.append(seconds)
            clock[0] += seconds

        monkeypatch.setattr("tools.event_source.time", SimpleNamespace(monotonic=lambda: clock[0], sleep=sleep))
        return naps

    @pytest.mark.parametrize(
        ("states", "on", "busy", "updates"),
        [
            (["Enabled", "Disabling", "Disabled"], False, 0, 1),
            (["Disabled"], False, 0, 0),
            (["Disabling", "Disabled", "Enabling", "Enabled"], True, 1, 2),
            (["Updating", "Updating", "Enabled", "Disabling", "Disabled"], False, 2, 3),
            (["Enabling", "Enabled"], True, 1, 1),
        ],
    )
    def test_a_mapping_is_switched_after_any_earlier_change_and_waited_for(
        self, states: list[str], on: bool, busy: int, updates: int
    ) -> None:
        client: Any = Lambda(*states, busy=busy)
        assert switch(client, "arn", on=on, interrupted=lambda: False) == EventSource("u", states[-1])
        assert client.updates == [on] * updates

    def test_the_wait_for_a_mapping_that_never_settles_ends_at_its_deadline(self, slept: list[float]) -> None:
        client: Any = Lambda("Updating", busy=10_000)
        assert switch(client, "arn", on=False, interrupted=lambda: False).state == "Updating"
        assert SETTLING_SECONDS <= sum(slept) <= SETTLING_SECONDS + 2

    def test_a_denied_request_is_not_repeated(self) -> None:
        client: Any = Lambda("Enabled")
        client.update_event_source_mapping = deny
        with pytest.raises(ClientError, match="AccessDenied"):
            switch(client, "arn", on=False, interrupted=lambda: False)

    def test_an_interrupted_wait_shows_the_state_that_the_mapping_has(self) -> None:
        client: Any = Lambda("Enabled", "Disabling")
        mapping = switch(client, "arn", on=False, interrupted=lambda: True)
        assert mapping.state == "Disabling"
        assert "the mapping is Disabling" in switch_text(mapping, Depth(0, 0, 60), on=False, stack_name="s")

    @pytest.mark.parametrize("count", [0, 2])
    def test_a_queue_without_exactly_one_mapping_is_refused(self, count: int) -> None:
        client: Any = SimpleNamespace(list_event_source_mappings=lambda **_: {"EventSourceMappings": [{}] * count})
        with pytest.raises(NoEventSource, match=f"^the event queue has {count} event source mappings"):
            switch(client, "arn", on=True, interrupted=lambda: False)

    def test_the_answer_to_pause_says_how_long_events_are_kept_and_how_to_go_on(self) -> None:
        text = switch_text(EventSource("1", "Disabled"), Depth(1, 2, 345_600), on=False, stack_name="mine")
        assert "1 event waits on the queue, 2 in work.\n" in text
        assert "for 4 days" in text
        assert text.endswith("stopper resume --stack-name mine")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_noted_and_the_second_has_its_usual_effect(number: signal.Signals) -> None:
    handled = []

    def usual(*_: object) -> None:
        handled.append(number)

    before = signal.signal(number, usual)
    try:
        with interruptible() as interrupted:
            assert not interrupted()
            os.kill(os.getpid(), number)
            assert interrupted()
            assert handled == []
            os.kill(os.getpid(), number)
            assert handled == [number]
        with interruptible():
            pass
        assert signal.getsignal(number) is usual
    finally:
        signal.signal(number, before)


def test_set_reads_values_and_clears_parameters() -> None:
    read = parameters.read(("MaxConcurrency=20", "RtcEndpoint=https://a.example/?a=b"), ("AlarmTopicArn",))
    assert read == {"MaxConcurrency": "20", "RtcEndpoint": "https://a.example/?a=b", "AlarmTopicArn": ""}


@pytest.mark.parametrize(
    ("assignments", "cleared", "refusal"),
    [
        (
            ("AlarmTopicArn= ",),
            (),
            "^AlarmTopicArn has no value: write AlarmTopicArn=VALUE, or remove .* with --clear AlarmTopicArn",
        ),
        ((), (), "^the parameters are missing, .*: write each parameter once"),
        (("MaxConcurrency",), (), "^the parameters are missing, .*: write each parameter once"),
        (("A=1", "A=2"), (), "^the parameters are missing, .*: write each parameter once"),
        (("A=1",), ("A",), "^the parameters are missing, .*: write each parameter once"),
    ],
)
def test_set_refuses_values_that_are_empty_missing_or_given_twice(
    assignments: tuple[str, ...], cleared: tuple[str, ...], refusal: str
) -> None:
    with pytest.raises(ValueError, match=refusal):
        parameters.read(assignments, cleared)
