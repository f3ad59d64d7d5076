"""The stop function as Lambda calls it, with an embedded AWS and the double of the RTC API."""

import asyncio
import io
import json
import random
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import uuid4

import pytest

from sandbox.embedded_aws import EmbeddedAws
from sandbox.faults import QPS_OVER_LIMIT, SERVICE_UNAVAILABLE, Fault
from sandbox.rtc_double import RtcDouble
from segments.events import parse_event
from tests.environments import ACCEPTED, RTC_KEY, Context, hooked, import_handler, sqs_record, stop_variables, taken
from tests.unit.test_fuzz_messages import MAKERS

APP_ID = "661e"
MAX_RECEIVE_COUNT = 6
CALL_SECONDS = 2 + 5  # the connect and the read time-out
SQS_CALL_SECONDS = 2 * (1 + 3) + 1  # two attempts to connect and read, and the longest wait between them
SETTLING_SECONDS = 2 * SQS_CALL_SECONDS + 1  # letters and copies at once, then notices and back-offs
RECORD_SECONDS = 2
NOT_JSON = "nothing that says p4yload"
NAMESPACE = "StopperTests"
SERVICE = "stop-function-tests"
KEY_REFUSED = Fault("error", status=401, code="InvalidAccessKey", code_n=100009)
REJECTED = Fault("error", status=400, code="InvalidParameter.NotExistAppId")


@dataclass
class Function:
    """A function environment, its queues, and the RTC API that it calls."""

    module: ModuleType
    double: RtcDouble
    sqs: Any
    event_queue: str
    dead_letter_queue: str
    calls: Counter[str] = field(default_factory=Counter)

    def invoke(self, *records: dict[str, Any], remaining_ms: int = 60_000) -> list[str]:
        """Serve a batch; return the ids of the messages that SQS must keep."""
        answer = self.module.handler({"Records": list(records)}, Context(remaining_ms))
        assert list(answer) == ["batchItemFailures"]
        assert all(list(failure) == ["itemIdentifier"] for failure in answer["batchItemFailures"])
        return [failure["itemIdentifier"] for failure in answer["batchItemFailures"]]

    def letters(self, *records: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """Receive the dead letters of these messages, by the messages' ids."""
        found = {}
        for message in taken(self.sqs, self.dead_letter_queue):
            texts = {name: value["StringValue"] for name, value in message["MessageAttributes"].items()}
            found[texts["SourceMessageId"]] = texts | {"Body": message["Body"]}
        return {record["messageId"]: found[record["messageId"]] for record in records if record["messageId"] in found}

    def note_call(self, model: Any, **_: object) -> None:
        self.calls[model.name] += 1


class Room:
    """A room that no other test uses, with the task `audio`."""

    def __init__(self, double: RtcDouble) -> None:
        self.id = f"room-{uuid4().hex}"
        self.task = (APP_ID, self.id, "audio")
        self.double = double

    def start(self) -> None:
        self.double.start_task(*self.task)

    def fail(self, fault: Fault) -> None:
        self.double.fail(fault, task=self.task)

    def is_running(self) -> bool:
        return self.double.is_running(*self.task)

    def message(
        self, event_type: str = "RoomEnded", *, receive_count: int = 1, seconds_ago: int = 0, **more: object
    ) -> dict[str, Any]:
        """Create a message about the task, unless `more` names others."""
        content = {"EventType": event_type, "AppId": APP_ID, "RoomId": self.id, "TaskId": "audio"} | more
        return sqs_record(json.dumps(content), receive_count=receive_count, seconds_ago=seconds_ago)


@pytest.fixture(scope="module")
def double() -> Iterator[RtcDouble]:
    with RtcDouble(secrets=ACCEPTED) as running:
        yield running


@pytest.fixture(scope="module")
def environment(aws: EmbeddedAws, double: RtcDouble) -> Iterator[Function]:
    """Create the template's resources, and a function environment that starts with them as Lambda would start it."""
    variables = stop_variables(aws, double.url) | {
        "MAX_CONCURRENCY": "2",
        "POWERTOOLS_SERVICE_NAME": SERVICE,
        "POWERTOOLS_METRICS_NAMESPACE": NAMESPACE,
    }
    module = import_handler("stop_segment", ("segments.telemetry", "segments.clients", "stop_segment.logs"), variables)
    sqs = aws.client("sqs")
    made = Function(module, double, sqs, variables["EVENT_QUEUE_URL"], variables["DEAD_LETTER_QUEUE_URL"])
    for client in (module.stopper.table._client, module.queues.client):
        client.meta.events.register("before-call", made.note_call)
    yield made
    module.loop.close()
    sqs.close()


@pytest.fixture
def function(environment: Function, log: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> Iterator[Function]:
    """Let the environment write its log to this test."""
    monkeypatch.setattr(environment.module.logger.registered_handler, "stream", log)
    environment.calls.clear()
    yield environment
    environment.double.heal()


@pytest.fixture
def room(double: RtcDouble) -> Room:
    return Room(double)


@pytest.fixture
def new_room(double: RtcDouble) -> Callable[[], Room]:
    return lambda: Room(double)


@dataclass
class Output:
    """The function's output."""

    logs: list[dict[str, Any]]
    metrics: list[dict[str, Any]]
    text: str

    def values(self, name: str) -> list[float]:
        """Return the values of a metric."""
        return [value for line in self.metrics for value in line.get(name, [])]


@pytest.fixture
def output(log: io.StringIO, capsys: pytest.CaptureFixture[str]) -> Callable[[], Output]:
    """Read the output since the last reading, without the metric of the cold start."""

    def read() -> Output:
        logs, metrics = log.getvalue(), capsys.readouterr().out
        log.seek(0)
        log.truncate()
        lines = [json.loads(line) for line in metrics.splitlines()]
        return Output(
            [json.loads(line) for line in logs.splitlines()],
            [line for line in lines if "ColdStart" not in line],
            logs + metrics,
        )

    return read


def kept_of(records: Sequence[dict[str, Any]], *numbers: int) -> list[str]:
    return [records[number]["messageId"] for number in numbers]


def test_every_random_message_has_exactly_one_end(function: Function, output: Callable[[], Output]) -> None:
    dice = random.Random(7)
    for _ in range(4):
        # SQS delivers no lone surrogates, no NUL characters and no empty bodies.
        bodies = [dice.choice(MAKERS)(dice).encode(errors="replace").decode() for _ in range(10)]
        records = [sqs_record(body.replace("\x00", " ") or " ") for body in bodies]
        records[0]["messageAttributes"] = {"EventTime": {"binaryValue": "MTEwMA==", "dataType": "Binary"}}
        kept, letters = function.invoke(*records), function.letters(*records)
        ended = [line["message_id"] for line in output().logs if line.get("outcome")]
        for one in records:
            message_id = one["messageId"]
            assert message_id in ended
            assert (message_id in kept) + (message_id in letters) <= 1
            if message_id in letters:
                assert ended.count(message_id) == 1
        assert function.letters() == {}


def test_a_message_whose_dead_letter_cannot_be_sent_is_kept(function: Function, output: Callable[[], Output]) -> None:
    # The queue refuses a letter of more than one MiB; SQS would not have delivered such a message.
    records = [sqs_record("x" * 1_048_577), sqs_record(NOT_JSON)]
    assert function.invoke(*records) == kept_of(records, 0)
    assert list(function.letters(*records)) == kept_of(records, 1)
    said = output()
    assert [(line["message"], line["outcome"]) for line in said.logs] == [
        ("dead letter not sent", "retried"),
        ("invalid_message", "invalid_message"),
    ]
    assert said.values("DeadLettered") == [1]


def test_on_the_last_receive_a_later_copy_with_the_original_times_replaces_the_message(
    function: Function, room: Room, monkeypatch: pytest.MonkeyPatch, output: Callable[[], Output]
) -> None:
    def remove_delay(params: dict[str, Any], **_: object) -> None:
        delays.extend(entry.pop("DelaySeconds") for entry in params["Entries"])

    delays: list[int] = []
    monkeypatch.setattr(function.module, "jitter", lambda: 0.5)
    taken(function.sqs, function.event_queue)
    room.fail(SERVICE_UNAVAILABLE)
    event_time = "2026-11-22T06:12:00.123Z"
    message = room.message(EventTime=event_time, receive_count=MAX_RECEIVE_COUNT, seconds_ago=600)

    with hooked(function.module.queues.client, "provide-client-params.sqs.SendMessageBatch", remove_delay):
        assert function.invoke(message) == []

    (copy,) = taken(function.sqs, function.event_queue)
    sent_ms = int(message["attributes"]["SentTimestamp"])
    assert copy["Body"] == message["body"]
    assert {name: (value["DataType"], value["StringValue"]) for name, value in copy["MessageAttributes"].items()} == {
        "EventTime": ("Number", str(min(1_795_327_920_123, sent_ms))),
        "FirstSentAt": ("Number", str(sent_ms)),
    }
    assert copy["Attributes"]["MessageGroupId"] == APP_ID
    assert delays == [300]
    assert function.letters(message) == {}
    assert "requeued" in [line.get("outcome") for line in output().logs]


def test_an_unexpected_error_retries_only_its_message_which_becomes_a_dead_letter_at_last(
    function: Function,
    new_room: Callable[[], Room],
    monkeypatch: pytest.MonkeyPatch,
    output: Callable[[], Output],
) -> None:
    good, bad = new_room(), new_room()
    good.start()
    table = function.module.stopper.table
    note_stop = table.note_stop

    def fail_for_one(task: Any, *rest: object) -> None:
        if task.room.room_id == bad.id:
            raise ValueError("p4yload")
        note_stop(task, *rest)

    def read(body: str, *arguments: Any, **options: Any) -> Any:
        if body == "[]":
            raise RecursionError
        return parse_event(body, *arguments, **options)

    monkeypatch.setattr(table, "note_stop", fail_for_one)
    monkeypatch.setattr("stop_segment.arrivals.parse_event", read)
    last = bad.message(receive_count=MAX_RECEIVE_COUNT)
    records = [bad.message(), good.message(), last, sqs_record("[]")]

    assert sorted(function.invoke(*records)) == sorted(kept_of(records, 0, 3))

    assert not good.is_running()
    letter = function.letters(last)[last["messageId"]]
    assert (letter["ErrorKind"], letter["ErrorCode"]) == ("exhausted", "FunctionFailed")
    assert letter["ErrorMessage"] == "the function failed on the message: ValueError"
    ends = [line for line in output().logs if line["message_id"] == records[0]["messageId"]]
    assert [(line["level"], line.get("outcome")) for line in ends] == [("ERROR", None), ("WARNING", "retried")]
    assert ends[1]["error_code"] == "FunctionFailed"


class TestTimeLeft:
    ENOUGH_MS = 1000 * (CALL_SECONDS + RECORD_SECONDS + SETTLING_SECONDS)
    LEAD_MS = 20  # the first turn waits for `pace.LEAD_SECONDS`, while the table is read

    @pytest.mark.parametrize(("spare_ms", "is_made"), [(-1, False), (LEAD_MS, True)])
    def test_a_call_is_made_only_if_it_can_end_in_time(
        self, function: Function, room: Room, output: Callable[[], Output], spare_ms: int, is_made: bool
    ) -> None:
        room.start()
        message = room.message()
        kept = function.invoke(message, remaining_ms=self.ENOUGH_MS + spare_ms)
        assert (kept == [], room.is_running()) == (is_made, not is_made)
        assert len(function.double.requests_for(APP_ID, room.id, action=None)) == is_made
        codes = [line.get("error_code") for line in output().logs]
        assert codes == ([None] if is_made else ["NoTimeLeft"] * 2)  # of the task, of the message

    def test_a_message_that_is_not_served_in_time_does_not_delay_the_ends_of_others(
        self, function: Function, new_room: Callable[[], Room], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A message is served until settling begins: dead letters have their time even if the table does not answer."""
        hung, good = new_room(), new_room()
        answers = threading.Event()
        table = function.module.stopper.table
        note_start = table.note_start

        def hang(task: Any, *rest: object) -> Any:
            if task.room.room_id == hung.id:
                answers.wait()
            return note_start(task, *rest)

        waits: list[float] = []
        timeout = asyncio.timeout

        def note(seconds: float) -> asyncio.Timeout:
            waits.append(seconds)
            return timeout(seconds)

        monkeypatch.setattr(table, "note_start", hang)
        monkeypatch.setattr(asyncio, "timeout", note)
        records = [hung.message("SegmentStarted"), good.message("SegmentStarted"), sqs_record(NOT_JSON)]
        try:
            assert function.invoke(*records, remaining_ms=1000 * SETTLING_SECONDS + 500) == kept_of(records, 0)
        finally:
            answers.set()
        assert list(function.letters(*records)) == kept_of(records, 2)
        assert waits == [0.5] * 3


class TestSettling:
    """The handling of failed messages, in the time that the handler reserves for this step."""

    def test_the_calls_of_a_step_are_made_at_once_and_the_steps_are_as_many_as_there_is_time_for(
        self, function: Function, new_room: Callable[[], Room], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Each barrier stands for a step: it opens when all calls of the step are under way."""
        queues, down = function.module.queues, new_room()
        down.fail(SERVICE_UNAVAILABLE)
        notices = function.sqs.create_queue(QueueName=f"notices-{uuid4().hex}")["QueueUrl"]
        monkeypatch.setattr(queues, "failed_stop_queue_url", notices)
        settings = replace(function.module.settings, failed_stop_queue_url=notices)
        monkeypatch.setattr(function.module, "settings", settings)
        steps = [threading.Barrier(5, timeout=10), threading.Barrier(2, timeout=10)]
        passed: list[int] = []

        def meet(**_: object) -> None:
            passed.append(steps[len(passed) // 5].wait())

        records = [
            *(sqs_record("x" * 500_000) for _ in range(6)),  # two in a call
            down.message(receive_count=MAX_RECEIVE_COUNT, Note="x" * 700_000),
            down.message(receive_count=MAX_RECEIVE_COUNT, Note="x" * 700_000),
            down.message(),
        ]
        function.invoke(records[-1])  # it opens the connection
        function.double.heal()
        down.fail(SERVICE_UNAVAILABLE)
        with hooked(queues.client, "before-call.sqs", meet):
            assert function.invoke(*records) == kept_of(records, 8)
        assert len(passed) == 5 + 2
        assert len(steps) == function.module.SETTLING_CALLS
        function.letters()

    def test_the_reserved_time_is_enough_for_the_longest_calls(self, function: Function) -> None:
        config = function.module.queues.client.meta.config
        attempts = config.retries["total_max_attempts"]
        waits = sum(2**attempt for attempt in range(attempts - 1))  # botocore's standard mode, at most
        call_seconds = attempts * (config.connect_timeout + config.read_timeout) + waits
        assert call_seconds == SQS_CALL_SECONDS
        assert function.module.SETTLING_CALLS * call_seconds <= function.module.SETTLING_SECONDS
        settings = function.module.settings
        reserved = function.module.SETTLING_SECONDS + function.module.RECORD_SECONDS + CALL_SECONDS
        assert (settings.rtc_connect_timeout_seconds, settings.rtc_read_timeout_seconds) == (2, 5)
        template = (Path(__file__).parents[2] / "template.yaml").read_text()
        (timeout,) = re.findall(r"Handler: stop_segment.*?Timeout: ([0-9]+)", template, re.DOTALL)
        assert reserved <= int(timeout) / 2  # half of an invocation is for calls

    @pytest.mark.parametrize(
        "step",
        [
            "handler.log_outcome",
            "handler.log_served",
            "handler.log_failure",
            "handler._publish",
            "metrics.add_metric",
            "logger.info",
            "logger.warning",
            "queues.postpone",
            "queues.send_notices",
            "queues.send_copies",
        ],
    )
    def test_a_step_that_raises_changes_the_end_of_no_message(
        self, function: Function, new_room: Callable[[], Room], monkeypatch: pytest.MonkeyPatch, step: str
    ) -> None:
        good, down, old = new_room(), new_room(), new_room()
        good.start()
        for room in (down, old):
            room.fail(SERVICE_UNAVAILABLE)
        records = [
            sqs_record(NOT_JSON),
            good.message(),
            down.message(),
            old.message(receive_count=MAX_RECEIVE_COUNT),
            sqs_record(json.dumps({"EventType": "UserJoinRoom", "EventData": "{}"})),
            sqs_record("[]"),
        ]
        module = function.module
        places = {"handler": module, "metrics": module.metrics, "logger": module.logger, "queues": module.queues}

        def fail(*_: object, **__: object) -> None:
            raise ValueError

        place, _, name = step.partition(".")
        monkeypatch.setattr(places[place], name, fail)
        copies = "send_copies" in step
        assert sorted(function.invoke(*records)) == sorted(kept_of(records, 2, *([3] if copies else [])))
        assert sorted(function.letters(*records)) == sorted(kept_of(records, 0, 5))
        assert not good.is_running()


def test_a_message_with_many_tasks_does_not_delay_the_others_of_its_batch(
    function: Function, new_room: Callable[[], Room]
) -> None:
    huge, vast, *small = rooms = [new_room() for _ in range(5)]
    task_ids = [f"t{number}" for number in range(50)]
    records = [one.message(TaskId=None, TaskIds=task_ids) for one in (huge, vast)]
    records += [one.message() for one in small]
    assert function.invoke(*records) == []
    ids = [one.id for one in rooms]
    order = [request.task[1] for request in function.double.requests if request.task[1] in ids]
    assert len(order) == 103
    # Not first come, first served: the small ones would be last. Threads mix up requests of nearly the same time.
    assert max(order.index(one.id) for one in small) < 40
    assert min(order[:50].count(one.id) for one in (huge, vast)) > 12


class TestCallsOfAws:
    def test_a_batch_costs_one_read_and_a_write_for_each_stop_and_its_redelivery_one_read(
        self, function: Function, new_room: Callable[[], Room]
    ) -> None:
        rooms = [new_room() for _ in range(10)]
        records = [one.message() for one in rooms]
        assert function.invoke(*records) == []
        assert function.calls == {"BatchGetItem": 1, "UpdateItem": 10}
        function.calls.clear()
        assert function.invoke(*records) == []
        assert function.calls == {"BatchGetItem": 1}
        assert [len(function.double.requests_for(APP_ID, one.id)) for one in rooms] == [1] * 10

    def test_all_dead_letters_of_a_batch_take_one_call_and_so_do_all_back_offs(
        self, function: Function, room: Room
    ) -> None:
        room.fail(SERVICE_UNAVAILABLE)
        bad = [sqs_record(NOT_JSON) for _ in range(5)]
        function.invoke(*bad, room.message(), room.message())
        assert function.calls == {"BatchGetItem": 1, "SendMessageBatch": 1, "ChangeMessageVisibilityBatch": 1}
        function.letters()


@pytest.mark.parametrize("fault", [SERVICE_UNAVAILABLE, REJECTED, KEY_REFUSED, QPS_OVER_LIMIT])
def test_no_line_holds_the_payload_or_the_secret(
    function: Function, room: Room, output: Callable[[], Output], fault: Fault
) -> None:
    room.fail(fault)
    message = room.message(BusinessId="p4yload", Note="p4yload")
    bus_event = {"detail-type": "RoomEnded", "detail": {"AppId": APP_ID, "RoomId": "p4yload#"}}
    function.invoke(message, sqs_record(NOT_JSON), sqs_record(json.dumps(bus_event)))
    text = output().text
    assert "p4yload" not in text
    assert not any(value in text for value in RTC_KEY.values())
    function.letters()


def test_metrics_have_their_names_units_and_one_dimension(
    function: Function, new_room: Callable[[], Room], output: Callable[[], Output]
) -> None:
    stopped, gone, down, wrong, refused, slow, empty = (new_room() for _ in range(7))
    faults = [SERVICE_UNAVAILABLE, REJECTED, KEY_REFUSED, QPS_OVER_LIMIT]
    for one, fault in zip((down, wrong, refused, slow), faults, strict=True):
        one.fail(fault)
    stopped.start()
    function.invoke(
        stopped.message(seconds_ago=3),
        stopped.message(seconds_ago=4),
        gone.message(),
        down.message(),
        down.message(receive_count=MAX_RECEIVE_COUNT, seconds_ago=3_600),
        down.message(receive_count=MAX_RECEIVE_COUNT),
        wrong.message(),
        refused.message(),
        slow.message(),
        empty.message(TaskId=None),
        gone.message("SegmentStarted", TaskId="screen"),
        sqs_record(NOT_JSON),
        sqs_record(json.dumps({"EventType": "UserJoinRoom", "EventData": "{}"})),
    )
    said = output()
    (line,) = [line for line in said.logs if line.get("outcome") == "stopped"]
    (request,) = function.double.requests_for(APP_ID, stopped.id)
    assert (line["room_id"], line["task_id"], line["level"]) == (stopped.id, "audio", "INFO")
    assert (line["request_id"], line["function_request_id"]) == (request.request_id, "invocation-1")
    counts = {
        "Stopped": 1,
        "Duplicate": 1,
        "AlreadyStopped": 1,
        "Retried": 3,
        "DeadLettered": 3,
        "Exhausted": 1,
        "Requeued": 1,
        "Rejected": 1,
        "CredentialsRefused": 1,
        "ApiThrottled": 1,
        "NoOpenTasks": 1,
        "Known": 1,
        "InvalidMessage": 1,
        "Ignored": 1,
    }
    assert {name: sum(said.values(name)) for name in counts} == counts
    lengths = {"TimeToStop": 2, "TurnWait": 6, "ApiLatency": 6}
    assert {name: len(said.values(name)) for name in lengths} == lengths
    assert max(said.values("TimeToStop")) >= 3_000
    units = dict.fromkeys(counts, "Count") | dict.fromkeys(lengths, "Milliseconds")
    for line in said.metrics:
        (directive,) = line["_aws"]["CloudWatchMetrics"]
        assert directive["Namespace"] == NAMESPACE
        assert directive["Dimensions"] == [["service"]]
        assert line["service"] == SERVICE
        assert {metric["Name"]: metric["Unit"] for metric in directive["Metrics"]}.items() <= units.items()
    function.letters()
