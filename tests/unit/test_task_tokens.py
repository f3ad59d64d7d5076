"""A workflow that waits with a task token learns how its message ended: the words, in every history."""

from __future__ import annotations

import copy
import io
import json
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any, Self

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from segments.errors import InvalidMessage, NoAnswer, Rejected
from segments.events import MOST_TOKEN_CHARACTERS, Event, EventType, Room, parse_event, task_token
from segments.rules import Outcome
from stop_segment.arrivals import Arrival
from stop_segment.failures import Failure
from stop_segment.queues import Queues
from stop_segment.stopper import Done, Served
from stop_segment.workflows import (
    MOST_CAUSE_CHARACTERS,
    MOST_ERROR_CHARACTERS,
    MOST_OUTPUT_BYTES,
    failed,
    failed_before,
    served_well,
)
from tests.contracts import breaks, closed, schema
from tests.environments import STOP_SETTINGS, import_handler

pytestmark = pytest.mark.filterwarnings("ignore:No application metrics to publish")
T = 1_795_327_920_123
TOKEN = "AQCIAAAAKgAAAAMAAAAA/+=\u2028"
EVENT = Event(EventType.ROOM_ENDED, Room("661e", "room-1"), T, ("audio",), "evt-1", "biz-1", task_token=TOKEN)


def output_of(answer: str) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(answer)
    assert told["TaskToken"] == TOKEN
    assert breaks(told["Output"], closed(schema("workflow-output"))) == []
    output: dict[str, Any] = told["Output"]
    return output


class TestWords:
    def test_an_output_says_what_became_of_each_task(self) -> None:
        done = [Done("audio", Outcome.STOPPED, "R-1"), Done("screen", Outcome.DUPLICATE)]
        assert output_of(served_well("m-1", EVENT, done)) == {
            "EventType": "RoomEnded",
            "AppId": "661e",
            "RoomId": "room-1",
            "EventTime": "2026-11-22T06:12:00.123Z",
            "EventId": "evt-1",
            "BusinessId": "biz-1",
            "Tasks": [
                {"TaskId": "audio", "Outcome": "stopped", "RequestId": "R-1"},
                {"TaskId": "screen", "Outcome": "duplicate"},
            ],
        }

    def test_an_outcome_of_the_room_stands_beside_no_tasks(self) -> None:
        bare = replace(EVENT, event_id=None, business_id=None, task_ids=())
        output = output_of(served_well("m-1", bare, [Done(None, Outcome.NO_OPEN_TASKS)]))
        assert (output["Outcome"], output["Tasks"]) == ("no_open_tasks", [])
        assert not output.keys() & {"EventId", "BusinessId"}

    @pytest.mark.parametrize("count", [0, 1, 800, 10_000])
    def test_an_output_is_no_longer_than_step_functions_takes(self, count: int) -> None:
        done = [Done(f"{number:0128}", Outcome.ALREADY_STOPPED, "2" * 40) for number in range(count)]
        output = output_of(served_well("m-1", EVENT, done))
        assert len(json.dumps(output)) <= MOST_OUTPUT_BYTES < 262_144
        assert len(output["Tasks"]) + output.get("TasksLeftOut", 0) == count
        assert ("TasksLeftOut" in output) is (count > 800)
        assert len(output["Tasks"]) >= min(count, 500)

    # SendTaskFailure, Step Functions API Reference: error at most 256 characters, cause at most 32,768.
    def test_an_error_is_no_longer_than_step_functions_takes(self) -> None:
        said = {"ErrorKind": "rejected", "ErrorCode": "N" * 300, "ErrorMessage": "x" * 40_000, "SourceMessageId": "m-1"}
        told = json.loads(failed_before(Arrival("m-2", "h", "{}", T, attributes=said, content=EVENT)))
        assert len(told["Error"]) == MOST_ERROR_CHARACTERS == 256
        assert len(told["Cause"]) == MOST_CAUSE_CHARACTERS == 32_768
        assert told["Cause"].startswith("rejected: xxx")
        assert (told["TaskToken"], told["SourceMessageId"]) == (TOKEN, "m-1")

    def test_an_error_is_the_letter_s(self) -> None:
        failure = Failure(Arrival("m-1", "h", "{}", T, content=EVENT), Rejected("NoApp", "no such app"))
        told = json.loads(failed(failure, "rejected"))
        assert (told["Error"], told["Cause"]) == ("NoApp", "rejected: no such app")


def test_the_page_shows_an_event_and_an_output() -> None:
    page = (Path(__file__).parents[2] / "docs" / "workflows.md").read_text()
    event, output = (json.loads(text) for text in re.findall(r"^```json\n(.*?)^```", page, re.MULTILINE | re.DOTALL))
    assert parse_event(json.dumps({"EventType": "RoomEnded"} | event), T) is not None
    assert breaks(output, closed(schema("workflow-output"))) == []


class TestReading:
    @pytest.mark.parametrize("token", ["x", '\u2028\ud800 "\\', "x" * MOST_TOKEN_CHARACTERS])
    def test_a_token_may_hold_any_characters(self, token: str) -> None:
        body = json.dumps({"EventType": "RoomEnded", "AppId": "661e", "RoomId": "room-1", "TaskToken": token})
        event = parse_event(body, T)
        assert event is not None
        assert event.task_token == token == task_token(body)
        assert token not in repr(event)

    @pytest.mark.parametrize("token", ["", "x" * (MOST_TOKEN_CHARACTERS + 1), 7, [], {}])
    def test_a_token_of_another_form_is_refused_and_cannot_be_answered(self, token: object) -> None:
        body = json.dumps({"EventType": "RoomEnded", "AppId": "661e", "RoomId": "room-1", "TaskToken": token})
        with pytest.raises(InvalidMessage, match=r"message\.TaskToken"):
            parse_event(body, T)
        assert task_token(body) is None

    def test_envelopes_hold_it_too_but_no_callback_does(self) -> None:
        detail = {"AppId": "661e", "RoomId": "room-1", "TaskToken": TOKEN}
        bus = {"detail-type": "RoomEnded", "detail": detail}
        topic = {"Type": "Notification", "Message": json.dumps(bus)}
        for envelope in (bus, topic):
            event = parse_event(json.dumps(envelope), T)
            assert event is not None
            assert event.task_token == TOKEN
        callback = {"EventType": "RoomDestroy", "EventData": json.dumps(detail), "AppId": "661e", "TaskToken": TOKEN}
        event = parse_event(json.dumps(callback), T)
        assert event is not None
        assert event.task_token is None

    @pytest.mark.parametrize("body", ["", "[]", "null", "{}", '{"TaskToken": null}'])
    def test_a_message_without_one_has_none(self, body: str) -> None:
        assert task_token(body) is None


# The histories: the handler with real queues' code, on an SQS that refuses what a history says.
MAX_RECEIVE_COUNT = 3
MINUTE_MS = 60_000
ENDS = {"good": None, "retryable": NoAnswer("Timeout", "no answer"), "rejected": Rejected("NoApp", "no such app")}


@dataclass
class Sqs:
    """A client of SQS, with the queues behind it; it refuses each send that its history says."""

    refusals: Iterator[bool]
    sent: defaultdict[str, list[dict[str, Any]]] = field(default_factory=lambda: defaultdict(list))

    def send_message_batch(self, *, QueueUrl: str, Entries: list[dict[str, Any]]) -> dict[str, Any]:  # noqa: N803
        taken = [entry for entry in Entries if not next(self.refusals, False)]
        self.sent[QueueUrl] += taken
        return {"Successful": [{"Id": entry["Id"]} for entry in taken]}

    def change_message_visibility_batch(self, **_: object) -> None:
        """Take a back-off, which no history needs."""


@dataclass
class Stopper:
    """Serves each message as its history says, and then well."""

    ends: Iterator[str]

    def batch(self, _: object) -> Self:
        return self

    async def serve(self, _: Event) -> Served:
        error = ENDS[next(self.ends, "good")]
        return Served([], [("audio", error)]) if error else Served([Done("audio", Outcome.STOPPED)])


class Invocation:
    """The function's own data, as Lambda passes it."""

    function_name = memory_limit_in_mb = invoked_function_arn = aws_request_id = "it"

    def get_remaining_time_in_millis(self) -> int:
        return 60_000


class Clock:
    ms = T

    def __call__(self) -> int:
        return self.ms


@pytest.fixture(scope="module")
def module() -> Iterator[ModuleType]:
    """Make a function environment without any AWS."""
    aws = {"AWS_DEFAULT_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x"}
    powertools = {"POWERTOOLS_METRICS_NAMESPACE": "TaskTokens", "POWERTOOLS_SERVICE_NAME": "task-tokens"}
    made = import_handler(
        "stop_segment",
        ("segments.telemetry", "segments.clients", "stop_segment.logs"),
        STOP_SETTINGS | aws | powertools | {"GIVE_UP_AFTER_MINUTES": "10"},
    )
    made.logger.setLevel("CRITICAL")
    yield made
    made.loop.close()


def message(body: str, sent_ms: int, attributes: dict[str, Any]) -> dict[str, Any]:
    return {
        "messageId": f"m-{sent_ms}-{len(attributes)}",
        "receiptHandle": "handle",
        "body": body,
        "attributes": {"ApproximateReceiveCount": "0", "SentTimestamp": str(sent_ms)},
        "messageAttributes": {name: {"stringValue": value["StringValue"]} for name, value in attributes.items()},
        "eventSource": "aws:sqs",
    }


def live(module: ModuleType, body: str, ends: list[str], refusals: list[bool], *, answers: bool = True) -> Sqs:
    """Receive a message and all copies of it until none is left; return the sent messages."""
    clock, sqs, stopper = Clock(), Sqs(iter(refusals)), Stopper(iter(ends))
    urls = ["events", "letters", "", "answers"]
    settings = replace(module.settings, answer_queue_url="answers" if answers else "", max_receive_count=3)
    waiting = [message(body, T, {})]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "settings", settings)
        patch.setattr(module, "queues", Queues(sqs, *urls))  # type: ignore[arg-type]
        patch.setattr(module, "stopper", stopper)
        patch.setattr(module, "now_ms", clock)
        for _ in range(60):
            if not waiting:
                return sqs
            clock.ms += MINUTE_MS
            one = copy.deepcopy(waiting.pop(0))
            count = int(one["attributes"]["ApproximateReceiveCount"]) + 1
            one["attributes"]["ApproximateReceiveCount"] = str(count)
            if count > MAX_RECEIVE_COUNT:
                sqs.sent["letters"].append({"MessageBody": one["body"], "BySqs": True})
                continue
            if module.handler({"Records": [one]}, Invocation())["batchItemFailures"]:
                waiting.append(one)
            copies, sqs.sent["events"] = sqs.sent["events"], []
            waiting += [message(body, clock.ms, entry["MessageAttributes"]) for entry in copies]
    raise AssertionError("the message goes on for ever")


BODY = json.dumps(
    {"EventType": "RoomEnded", "AppId": "661e", "RoomId": "room-1", "TaskId": "audio", "TaskToken": TOKEN}
)
UNREADABLE = json.dumps({"EventType": "RoomEnd", "AppId": "661e", "RoomId": "room-1", "TaskToken": TOKEN})
HISTORIES = {
    "body": st.sampled_from([BODY, UNREADABLE]),
    "ends": st.lists(st.sampled_from(sorted(ENDS)), max_size=14),
    # Not two in a row: if SQS refuses an answer and then the copy that asks for it, it is only counted.
    "refusals": st.lists(st.booleans(), max_size=10).map(
        lambda drawn: [now and not before for before, now in zip([False, *drawn], drawn, strict=False)]
    ),
}


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(**HISTORIES)
def test_a_token_is_answered_at_least_once_and_never_with_success_beside_a_dead_letter(
    module: ModuleType, body: str, ends: list[str], refusals: list[bool]
) -> None:
    sent = live(module, body, ends, refusals).sent
    answers = [json.loads(entry["MessageBody"]) for entry in sent["answers"]]
    # A message that SQS moved by itself has no answer: at its last receive neither its letter nor its copy could be
    # sent.
    assert answers or any("BySqs" in letter for letter in sent["letters"])
    assert all(answer["TaskToken"] == TOKEN for answer in answers)
    if sent["letters"]:
        assert all("Error" in answer for answer in answers)
    else:
        assert all("Output" in answer for answer in answers)


def test_what_the_dead_letter_says_the_workflow_is_told_although_at_first_it_could_not_be(module: ModuleType) -> None:
    sent = live(module, BODY, ["rejected"], [False, True, False, True]).sent
    (answer,), (letter,) = sent["answers"], sent["letters"]
    assert (
        json.loads(answer["MessageBody"])["Error"] == letter["MessageAttributes"]["ErrorCode"]["StringValue"] == "NoApp"
    )
    assert json.loads(answer["MessageBody"])["Cause"] == "rejected: task audio: no such app"


def test_a_message_with_a_dead_letter_has_no_other_end_however_long_its_workflow_cannot_be_told(
    module: ModuleType,
) -> None:
    sent = live(module, BODY, ["rejected"], [False, True, False, *[True] * MAX_RECEIVE_COUNT]).sent
    assert sent["answers"] == []
    assert ["BySqs" in letter for letter in sent["letters"]] == [False, True]


@pytest.mark.parametrize(("ends", "letters"), [(["good"], 0), (["rejected"], 1)])
def test_without_a_workflow_arn_a_token_is_left_alone(module: ModuleType, ends: list[str], letters: int) -> None:
    sent = live(module, BODY, ends, [], answers=False).sent
    assert (len(sent["answers"]), len(sent["letters"])) == (0, letters)


def test_a_message_without_a_token_costs_no_call_more(module: ModuleType) -> None:
    body = json.dumps({"EventType": "RoomEnded", "AppId": "661e", "RoomId": "room-1", "TaskId": "audio"})
    assert live(module, body, ["good"], []).sent == {"events": []}


@pytest.mark.parametrize("answers", [True, False])
@pytest.mark.parametrize("ends", [["good"], ["rejected"], ["retryable"] * 9])
def test_no_log_line_holds_a_token(module: ModuleType, ends: list[str], answers: bool) -> None:
    log = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module.logger.registered_handler, "stream", log)
        module.logger.setLevel("DEBUG")
        live(module, BODY, ends, [False, True, True, False, True], answers=answers)
        module.logger.setLevel("CRITICAL")
    assert "661e" in log.getvalue()
    assert TOKEN[:16] not in log.getvalue()


def test_a_mark_without_a_token_does_not_keep_a_message_from_being_served(module: ModuleType) -> None:
    body = json.dumps({"EventType": "RoomEnded", "AppId": "661e", "RoomId": "room-1", "TaskId": "audio"})
    arrival = module.arrive(message(body, T, {"GivenUp": {"StringValue": "true"}}))
    assert not arrival.is_given_up
