import json
import os
import signal
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st

from segments.errors import InvalidMessage
from segments.events import Room, parse_event
from tools import letters, parameters
from tools.deployment import Deployment, NotDeployed, find_deployment
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
    def test_a_letter_says_what_its_attributes_say(self) -> None:
        assert letters.read_letter(message(ATTRIBUTES)) == LETTER

    def test_a_binary_attribute_is_no_event_time(self) -> None:
        # localstack/localstack, test_sqs.snapshot.json, test_send_message_with_binary_attributes
        received = message({}) | {"MessageAttributes": {"EventTime": {"BinaryValue": b"bytes", "DataType": "Binary"}}}
        letter = letters.read_letter(received)
        assert (letter.kind, letter.event_time_ms) == ("died", SENT_MS)

    def test_a_letter_without_attributes_died_with_the_function(self) -> None:
        assert letters.read_letter(message({}, message_id="m-2")) == DIED

    @pytest.mark.parametrize(
        ("body_time", "attribute", "time_ms"),
        [
            (None, None, SENT_MS),
            ("2026-11-22T06:12:00.123Z", None, T),
            ("2099-01-01T00:00:00Z", None, SENT_MS),
            ("no time", None, SENT_MS),
            (None, T - 5, T - 5),
            ("2026-11-22T06:12:00.123Z", T - 5, T - 5),
            (None, "2026-11-22T06:12:00.123Z", T),
            (None, "never", SENT_MS),
            (None, "9" * 5_000, SENT_MS),
            # Sent again with these, it would be a dead letter again.
            ("2026-11-22T06:12:00.123Z", 1_795_327_920, T),
            (None, -62_135_625_600_000, SENT_MS),
        ],
    )
    def test_a_letter_that_died_keeps_the_time_that_the_function_would_have_read(
        self, body_time: str | None, attribute: str | int | None, time_ms: int
    ) -> None:
        body = json.dumps(json.loads(BODY) | ({"EventTime": body_time} if body_time else {}))
        attributes: dict[str, str | int] = {} if attribute is None else {"EventTime": attribute}
        assert letters.read_letter(message(attributes, body=body)).event_time_ms == time_ms

    @pytest.mark.parametrize(
        ("body", "room"),
        [
            (BODY, Room("661e", "room-1")),
            (json.dumps({"detail-type": "RoomEnded", "detail": json.loads(BODY)}), Room("661e", "room-1")),
            (json.dumps({"Type": "Notification", "Message": BODY}), Room("661e", "room-1")),
            (json.dumps({"AppId": "661e", "RoomId": "a wrong id", "EventType": "Typo"}), Room("661e", "a wrong id")),
            (json.dumps({"AppId": 661, "RoomId": "room-1"}), None),
            (json.dumps({"RoomId": "room-1"}), None),
            (json.dumps({"EventType": "UserJoin", "EventData": "{}"}), None),
            ("[]", None),
            ("no JSON", None),
        ],
    )
    def test_a_letter_belongs_to_its_room_even_if_it_breaks_a_rule(self, body: str, room: Room | None) -> None:
        assert letters.read_letter(message({}, body=body)).room == room

    @given(
        st.text(),
        st.dictionaries(
            st.sampled_from(list(ATTRIBUTES)), st.text() | st.integers() | st.integers(0, 10**20).map(str), max_size=8
        ),
    )
    def test_whatever_a_letter_holds_it_can_be_read_and_shown(
        self, body: str, attributes: dict[str, str | int]
    ) -> None:
        letter = letters.read_letter(message(attributes, body=body))
        shown = letter_text(letter, FAILED_MS).plain
        assert all(character.isprintable() or character == "\n" for character in shown)


@pytest.mark.parametrize(
    ("selection", "taken"),
    [
        (Selection(), True),
        (Selection(kind="exhausted"), True),
        (Selection(kind="died"), False),
        (Selection(code="InternalError"), True),
        (Selection(code="Other"), False),
        (Selection(app_id="661e", room_id="room-1"), True),
        (Selection(app_id="661e", room_id="room-2"), False),
        (Selection(app_id="other"), False),
        (Selection(source_message_id="source-1"), True),
        (Selection(source_message_id="m-1"), False),
        (Selection(failed_before_ms=FAILED_MS), False),
        (Selection(failed_before_ms=FAILED_MS + 1), True),
        (Selection(failed_after_ms=FAILED_MS), False),
        (Selection(failed_after_ms=FAILED_MS - 1), True),
        (Selection(kind="exhausted", code="Other"), False),
    ],
)
def test_a_selection_takes_the_letters_that_fit_all_of_it(selection: Selection, taken: bool) -> None:
    assert selection.takes(LETTER) is taken


def test_a_letter_of_no_room_is_in_no_room() -> None:
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
    other = replace(LETTER, code="Other", error_message=None)
    assert letters.group([other, LETTER, DIED, older, oldest]) == [
        Group("exhausted", "InternalError", 3, FAILED_MS - 9, "task s-1: the API answered HTTP 500"),
        Group("died", None, 1, SENT_MS, None),
        Group("exhausted", "Other", 1, FAILED_MS, None),
    ]


def test_letters_with_one_code_and_unlike_messages_are_counted_apart() -> None:
    def invalid(event: dict[str, str]) -> DeadLetter:
        with pytest.raises(InvalidMessage) as refused:
            parse_event(json.dumps(json.loads(BODY) | event), SENT_MS)
        return replace(LETTER, kind="invalid_message", code=refused.value.code, error_message=str(refused.value))

    found = letters.group(
        [invalid({"EventType": "RoomEnd"}), *(invalid({"RoomId": f"a room {n}"}) for n in range(200))]
    )
    assert [(one.code, one.count) for one in found] == [("InvalidField", 200), ("InvalidField", 1)]
    assert ["RoomId" in str(one.example) for one in found] == [True, False]


@pytest.mark.parametrize("letter", [LETTER, DIED])
def test_a_redriven_letter_is_the_unchanged_message_with_its_event_time(letter: DeadLetter) -> None:
    assert letters.redriven(letter) == Message(BODY, {"EventTime": letter.event_time_ms}, group="661e")


@pytest.mark.parametrize("body", ["nonsense", "{}", json.dumps({"AppId": "a b", "RoomId": "room-1"})])
def test_a_redriven_letter_of_no_application_has_no_group(body: str) -> None:
    # SQS refuses a group with blanks in it, so the letter could never be sent.
    assert letters.redriven(letters.read_letter(message({}, body=body))).group is None


class TestSavedCopies:
    def test_a_saved_letter_is_restored_with_all_its_attributes(self, tmp_path: Path) -> None:
        save(tmp_path / "saved.jsonl", [LETTER])
        assert load(tmp_path / "saved.jsonl") == [Message(BODY, ATTRIBUTES)]

    def test_a_letter_that_died_is_restored_with_its_time_and_its_source(self, tmp_path: Path) -> None:
        save(tmp_path / "saved.jsonl", [DIED])
        (restored,) = load(tmp_path / "saved.jsonl")
        assert letters.read_letter(message(restored.attributes, message_id="m-9", body=restored.body)) == replace(
            DIED, message_id="m-9"
        )

    @given(st.text(st.characters(exclude_categories=["Cs"])))
    def test_any_body_survives(self, body: str) -> None:
        line = json.dumps(letters.to_json(replace(LETTER, body=body)))
        assert letters.restored(line).body == body
        assert line.splitlines() == [line]

    def test_a_copy_is_never_overwritten(self, tmp_path: Path) -> None:
        (tmp_path / "saved.jsonl").write_text("the letters of yesterday")
        with pytest.raises(FileExistsError):
            save(tmp_path / "saved.jsonl", [LETTER])

    @pytest.mark.parametrize("line", ["", "no JSON", "[]", "{}", '{"Body": 1, "ErrorKind": "died", "EventTime": 1}'])
    def test_what_is_no_letter_is_refused_by_its_line(self, tmp_path: Path, line: str) -> None:
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
    def test_anything_else_is_no_age(self, text: str) -> None:
        with pytest.raises(ValueError, match="is not an age"):
            parse_age(text)

    @pytest.mark.parametrize(
        ("time_ms", "text"),
        [
            (T, "2026-11-22 06:12:00.123 UTC"),
            (0, "0 ms"),
            (-62_135_625_600_000, "-62135625600000 ms"),
            (10**15, "1000000000000000 ms"),
        ],
    )
    def test_a_time_is_written_in_utc(self, time_ms: int, text: str) -> None:
        assert readable_time(time_ms) == text

    @pytest.mark.parametrize(
        ("seconds", "text"),
        [
            (0, "0 s ago"),
            (119, "119 s ago"),
            (120, "2 min ago"),
            (7_199, "119 min ago"),
            (7_200, "2 h ago"),
            (172_799, "47 h ago"),
            (172_800, "2 d ago"),
            (-90, "in 90 s"),
            (-604_800, "in 7 d"),
            (-604_799, "in 7 d"),
        ],
    )
    def test_an_age_is_told_in_the_largest_unit_of_which_it_is_two(self, seconds: int, text: str) -> None:
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
            "stopped, only watched: the sweeper asks once more",
        ),
        (Item("audio"), "over"),
        (Item("audio", started_at_ms=T, stop_event_time_ms=T, outcome="already_stopped"), "already_stopped"),
    ],
)
def test_an_item_tells_its_state(item: Item, state: str) -> None:
    assert item.state == state
    assert f": {state}\n" in room_text(Room("661e", "room-1"), [item], T).plain


def test_a_room_tells_when_it_was_found_gone_and_since_when_its_tasks_are_open() -> None:
    items = [Item("#look", gone_at_ms=T - 240_000), Item("audio", open_since_ms=T - 240_000)]
    lines = room_text(Room("661e", "room-1"), items, T).plain.splitlines()
    assert [" ".join(line.split()) for line in (lines[3], lines[6])] == [
        f"found gone {readable_time(T - 240_000)} (4 min ago)",
        f"open since {readable_time(T - 240_000)} (4 min ago)",
    ]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, 房间, two\nlines", "plain, 房间, two\nlines"),
        ("\x1b[2Jgone\r\x07", "\\x1b[2Jgone\\r\\x07"),
        ("\u202etxet\u200b", "\\u202etxet\\u200b"),
        ("\x9b31m \u2028", "\\x9b31m \\u2028"),
    ],
)
def test_nothing_that_a_letter_holds_steers_the_terminal(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_tallies_add_up_and_keep_the_first_reason() -> None:
    total = Tally(done=3) + Tally(done=8, refused=2, reason="first") + Tally(undeleted=1, reason="second")
    assert total == Tally(done=11, refused=2, undeleted=1, reason="first")
    assert total.total == 14


class Sqs:
    """A queue that delivers letters while at most MOST_IN_FLIGHT are in flight."""

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
    ("waiting", "in_flight", "complete"),
    [
        (25, 0, True),
        (25, MOST_IN_FLIGHT - 26, True),
        (25, MOST_IN_FLIGHT - 20, False),
        (0, MOST_IN_FLIGHT, False),
    ],
)
def test_a_queue_of_which_sqs_gives_out_no_more_is_not_called_read(
    waiting: int, in_flight: int, complete: bool
) -> None:
    client: Any = Sqs(waiting, in_flight)
    reading = DeadLetterQueue(client, "url", lambda: False).read()
    assert (len(reading.letters), reading.complete) == (min(waiting, MOST_IN_FLIGHT - in_flight), complete)


class CloudFormation:
    """Answers describe_stacks as CloudFormation does for one stack, or as it does when it refuses."""

    class meta:  # noqa: N801
        region_name = "eu-west-1"

    def __init__(self, outputs: dict[str, str] | None = None, code: str = "ValidationError") -> None:
        self._outputs = outputs
        self._code = code

    def describe_stacks(self, StackName: str) -> Any:  # noqa: N803
        if self._outputs is None:
            raise ClientError({"Error": {"Code": self._code, "Message": f"no {StackName}"}}, "DescribeStacks")
        outputs = [{"OutputKey": name, "OutputValue": value} for name, value in self._outputs.items()]
        parameters = [{"ParameterKey": "Mode", "ParameterValue": "stop"}]
        created_at = datetime.fromtimestamp(T / 1000, UTC)
        return {"Stacks": [{"Outputs": outputs, "Parameters": parameters, "CreationTime": created_at}]}


class TestDeployment:
    NEEDED = ("EventQueueUrl", "EventQueueArn", "DeadLetterQueueUrl", "SegmentTableName", "StopSegmentFunctionName")
    OUTPUTS = dict(zip((*NEEDED, "CallbackUrl"), "eadtfc", strict=True))  # noqa: RUF012

    def test_a_stack_of_ours_is_known_by_its_outputs(self) -> None:
        client: Any = CloudFormation(self.OUTPUTS)
        assert find_deployment(client, "ours") == Deployment("ours", self.OUTPUTS, {"Mode": "stop"}, T)

    @pytest.mark.parametrize("missing", NEEDED)
    def test_a_stack_that_lacks_one_is_not_ours(self, missing: str) -> None:
        client: Any = CloudFormation({name: value for name, value in self.OUTPUTS.items() if name != missing})
        with pytest.raises(NotDeployed, match=f"'theirs' is not .* no output {missing}"):
            find_deployment(client, "theirs")

    def test_a_stack_that_is_not_there_is_told_with_its_region(self) -> None:
        client: Any = CloudFormation()
        with pytest.raises(NotDeployed, match="no stack 'gone' in eu-west-1"):
            find_deployment(client, "gone")

    def test_another_refusal_is_not_taken_for_a_missing_stack(self) -> None:
        client: Any = CloudFormation(code="AccessDenied")
        with pytest.raises(ClientError):
            find_deployment(client, "ours")


class Lambda:
    """Returns the answers that AWS was recorded to give of a queue's mapping: its states, and refusals to change it."""

    def __init__(self, *states: str, busy: int = 0) -> None:
        self._states = list(states)
        self._busy = busy
        self.updates: list[bool] = []

    def list_event_source_mappings(self, EventSourceArn: str) -> Any:  # noqa: N803
        assert EventSourceArn == "arn"
        state = self._states.pop(0) if len(self._states) > 1 else self._states[0]
        # localstack/localstack, test_lambda_api.snapshot.json: none of 47 mappings of queues has LastProcessingResult.
        mapping = {
            "UUID": "u",
            "BatchSize": 5,
            "FunctionResponseTypes": ["ReportBatchItemFailures"],
            "MaximumBatchingWindowInSeconds": 0,
            "State": state,
            "StateTransitionReason": "USER_INITIATED",
        }
        return {"EventSourceMappings": [mapping]}

    def update_event_source_mapping(self, UUID: str, Enabled: bool) -> None:  # noqa: N803
        assert UUID == "u"
        self.updates.append(Enabled)
        if self._busy >= len(self.updates):
            message = "Cannot update the event source mapping because it is in use."
            raise ClientError(
                {"Error": {"Code": "ResourceInUseException", "Message": message}}, "UpdateEventSourceMapping"
            )


class TestPausing:
    @pytest.fixture(autouse=True)
    def slept(self, monkeypatch: pytest.MonkeyPatch) -> list[float]:
        """Let time pass at once; return how often."""
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
            (["Disabled", "Enabling", "Enabled"], True, 0, 1),
            (["Disabled"], False, 0, 0),
            (["Disabling", "Disabled", "Enabling", "Enabled"], True, 1, 2),
            (["Updating", "Updating", "Enabled", "Disabling", "Disabled"], False, 2, 3),
            (["Enabling", "Enabled"], True, 1, 1),
        ],
    )
    def test_the_mapping_is_switched_and_waited_for_whatever_it_is_changing_from(
        self, states: list[str], on: bool, busy: int, updates: int
    ) -> None:
        client: Any = Lambda(*states, busy=busy)
        assert switch(client, "arn", on=on, interrupted=lambda: False) == EventSource("u", states[-1])
        assert client.updates == [on] * updates

    def test_a_mapping_that_never_settles_is_waited_for_no_longer_than_the_deadline(self, slept: list[float]) -> None:
        client: Any = Lambda("Updating", busy=10_000)
        assert switch(client, "arn", on=False, interrupted=lambda: False).state == "Updating"
        assert SETTLING_SECONDS <= sum(slept) <= SETTLING_SECONDS + 2

    def test_another_refusal_is_told(self) -> None:
        def deny(**_: object) -> None:
            raise ClientError({"Error": {"Code": "AccessDeniedException", "Message": "no"}}, "UpdateEventSourceMapping")

        client: Any = Lambda("Enabled")
        client.update_event_source_mapping = deny
        with pytest.raises(ClientError, match="AccessDenied"):
            switch(client, "arn", on=False, interrupted=lambda: False)

    def test_whoever_does_not_want_to_wait_is_told_how_far_it_is(self) -> None:
        client: Any = Lambda("Enabled", "Disabling")
        mapping = switch(client, "arn", on=False, interrupted=lambda: True)
        assert mapping.state == "Disabling"
        assert "the mapping is Disabling" in switch_text(mapping, Depth(0, 0, 60), on=False, stack_name="s")

    @pytest.mark.parametrize("count", [0, 2])
    def test_none_or_several_are_a_trouble(self, count: int) -> None:
        client: Any = Lambda("Enabled")
        mappings = client.list_event_source_mappings("arn")["EventSourceMappings"] * count
        client.list_event_source_mappings = lambda **_: {"EventSourceMappings": mappings}
        with pytest.raises(NoEventSource, match=f"^{count} event source mappings"):
            switch(client, "arn", on=True, interrupted=lambda: False)

    def test_what_a_pause_means_is_said(self) -> None:
        text = switch_text(EventSource("1", "Disabled"), Depth(1, 2, 345_600), on=False, stack_name="mine")
        assert text.startswith("Paused: nothing is stopped from now on. 1 event waits on the queue, 2 in work.\n")
        assert "for 4 days" in text
        assert text.endswith("stopper resume --stack-name mine")


class TestInterruption:
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_the_first_signal_is_noted_and_handlers_come_back(self, number: signal.Signals) -> None:
        before = signal.getsignal(number)
        with interruptible() as interrupted:
            assert not interrupted()
            os.kill(os.getpid(), number)
            assert interrupted()
        assert signal.getsignal(number) is before

    def test_the_second_one_ends_the_program_as_ever(self) -> None:
        # As a program begins: one that a shell has put into the background ignores it.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        with interruptible():
            os.kill(os.getpid(), signal.SIGINT)
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)


class TestSet:
    def test_values_are_read_and_parameters_are_cleared(self) -> None:
        read = parameters.read(("MaxConcurrency=20", "RtcEndpoint=https://a.example/?a=b"), ("AlarmTopicArn",))
        assert read == {"MaxConcurrency": "20", "RtcEndpoint": "https://a.example/?a=b", "AlarmTopicArn": ""}

    @pytest.mark.parametrize("assignment", ["CallbackSecretArn=", "AlarmTopicArn= ", "MaxConcurrency=\n"])
    def test_an_empty_value_takes_nothing_away_by_accident(self, assignment: str) -> None:
        name = assignment.partition("=")[0]
        with pytest.raises(ValueError, match=f"^{name} has no value: --clear {name} makes it empty"):
            parameters.read((assignment,), ())

    @pytest.mark.parametrize(
        ("assignments", "cleared"), [((), ()), (("MaxConcurrency",), ()), (("A=1", "A=2"), ()), (("A=1",), ("A",))]
    )
    def test_each_parameter_is_named_once(self, assignments: tuple[str, ...], cleared: tuple[str, ...]) -> None:
        with pytest.raises(ValueError, match=r"^write each parameter once"):
            parameters.read(assignments, cleared)
