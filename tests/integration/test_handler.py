"""The stop function as Lambda calls it, against an embedded AWS and the RTC API's double."""

import asyncio
import io
import json
import random
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import uuid4

import pytest

from sandbox.embedded_aws import EmbeddedAws
from sandbox.faults import QPS_OVER_LIMIT, SERVICE_UNAVAILABLE, Fault
from sandbox.rtc_double import RtcDouble
from segments.events import parse_event
from segments.times import now_ms
from tests.environments import RTC_KEY, STOP_SETTINGS, Context, hooked, import_handler, taken
from tests.segment_table import create_segment_table
from tests.unit.test_fuzz_messages import MAKERS

APP_ID = "661e"
MAX_RECEIVE_COUNT = 6
CALL_SECONDS = 2 + 5  # the connect and the read time-out
SQS_CALL_SECONDS = 2 * (1 + 3) + 1  # two attempts to connect and read, and the longest wait between them
SETTLING_SECONDS = 2 * SQS_CALL_SECONDS + 1  # letters beside copies, then notices beside back-offs
RECORD_SECONDS = 2
NOT_JSON = "nothing that says p4yload"
NAMESPACE = "StopperTests"
SERVICE = "stop-function-tests"
KEY_REFUSED = Fault("error", status=401, code="InvalidAccessKey", code_n=100009)
REJECTED = Fault("error", status=400, code="InvalidParameter.NotExistAppId")


@dataclass
class Function:
    """A function environment, and its surroundings."""

    module: ModuleType
    double: RtcDouble
    sqs: Any
    event_queue: str
    dead_letter_queue: str
    calls: Counter[str] = field(default_factory=Counter)

    def invoke(self, *records: dict[str, Any], remaining_ms: int = 60_000) -> list[str]:
        """Serve a batch; return the ids of the messages that SQS is to keep."""
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
    """A room that no other test knows."""

    def __init__(self, double: RtcDouble) -> None:
        self.id = f"room-{uuid4().hex}"
        self.double = double

    def start(self, *task_ids: str) -> None:
        for task_id in task_ids:
            self.double.start_task(APP_ID, self.id, task_id)

    def fail(self, task_id: str, fault: Fault) -> None:
        self.double.fail(fault, task=(APP_ID, self.id, task_id))

    def running(self, *task_ids: str) -> list[bool]:
        return [self.double.is_running(APP_ID, self.id, task_id) for task_id in task_ids]

    def requests(self) -> list[tuple[str, str]]:
        """Return each request's action and task."""
        requests = self.double.requests_for(APP_ID, self.id, action=None)
        return [(request.action, request.task[2]) for request in requests]

    def message(
        self, event_type: str = "RoomEnded", *, receive_count: int = 1, seconds_ago: int = 0, **more: object
    ) -> dict[str, Any]:
        body = json.dumps({"EventType": event_type, "AppId": APP_ID, "RoomId": self.id} | more)
        return record(body, receive_count=receive_count, seconds_ago=seconds_ago)


def record(body: str, *, receive_count: int = 1, seconds_ago: int = 0, receipt_handle: str = "x") -> dict[str, Any]:
    """Return a message as Lambda gets it from SQS."""
    return {
        "messageId": str(uuid4()),
        "receiptHandle": receipt_handle,
        "body": body,
        "attributes": {
            "ApproximateReceiveCount": str(receive_count),
            "SentTimestamp": str(now_ms() - 1000 * seconds_ago),
        },
        "messageAttributes": {},
        "eventSource": "aws:sqs",
    }


GIVE_UP_AFTER_SECONDS = 3_600


@pytest.fixture(scope="module")
def double() -> Iterator[RtcDouble]:
    with RtcDouble(secrets={RTC_KEY["AccessKeyId"]: RTC_KEY["SecretAccessKey"]}) as running:
        yield running


@pytest.fixture(scope="module")
def environment(aws: EmbeddedAws, double: RtcDouble, secrets_manager: Any) -> Iterator[Function]:
    """Create a stack like the template's, and a function environment that starts in it as Lambda would start it."""
    mark = uuid4().hex
    sqs, dynamodb = aws.client("sqs"), aws.client("dynamodb")
    event_queue, dead_letter_queue = (
        sqs.create_queue(QueueName=f"{name}-{mark}")["QueueUrl"] for name in ("events", "letters")
    )
    create_segment_table(dynamodb, f"segments-{mark}")
    secret = secrets_manager.create_secret(Name=f"rtc-{mark}", SecretString=json.dumps(RTC_KEY))
    variables = STOP_SETTINGS | {
        "EVENT_QUEUE_URL": event_queue,
        "DEAD_LETTER_QUEUE_URL": dead_letter_queue,
        "SEGMENT_TABLE_NAME": f"segments-{mark}",
        "RTC_ENDPOINT": double.url,
        "RTC_CREDENTIALS_SECRET_ARN": secret["ARN"],
        "MAX_CONCURRENCY": "2",
        "MAX_RECEIVE_COUNT": str(MAX_RECEIVE_COUNT),
        "POWERTOOLS_SERVICE_NAME": SERVICE,
        "POWERTOOLS_METRICS_NAMESPACE": NAMESPACE,
    }
    module = import_handler(
        "stop_segment",
        ("segments.telemetry", "segments.clients", "stop_segment.logs"),
        aws.environment | variables,
    )
    made = Function(module, double, sqs, event_queue, dead_letter_queue)
    for client in (module.stopper.table._client, module.queues.client):
        client.meta.events.register("before-call", made.note_call)
    yield made
    module.loop.close()
    for client in (sqs, dynamodb):
        client.close()


@pytest.fixture
def log() -> io.StringIO:
    return io.StringIO()


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
class Told:
    """The function's output."""

    logs: list[dict[str, Any]]
    metrics: list[dict[str, Any]]
    text: str

    def outcomes(self) -> list[str | None]:
        return [line.get("outcome") for line in self.logs]


@pytest.fixture
def told(log: io.StringIO, capsys: pytest.CaptureFixture[str]) -> Callable[[], Told]:
    """Read the output since the last time, without the metric of a cold start, which comes once."""

    def read() -> Told:
        logs, metrics = log.getvalue(), capsys.readouterr().out
        log.seek(0)
        log.truncate()
        lines = [json.loads(line) for line in metrics.splitlines()]
        return Told(
            [json.loads(line) for line in logs.splitlines()],
            [line for line in lines if "ColdStart" not in line],
            logs + metrics,
        )

    return read


def kept_of(records: Sequence[dict[str, Any]], *numbers: int) -> list[str]:
    return [records[number]["messageId"] for number in numbers]


class TestBatch:
    def test_whatever_arrives_every_message_has_one_end(self, function: Function, told: Callable[[], Told]) -> None:
        dice = random.Random(7)
        for _ in range(4):
            # A wide character in a body is sent as one; a lone surrogate cannot come out of SQS.
            bodies = [dice.choice(MAKERS)(dice).encode(errors="replace").decode() for _ in range(10)]
            records = [record(body.replace("\x00", " ") or " ") for body in bodies]
            records[0]["messageAttributes"] = {"EventTime": {"binaryValue": "MTEwMA==", "dataType": "Binary"}}
            kept, letters = function.invoke(*records), function.letters(*records)
            ended = [line["message_id"] for line in told().logs if line.get("outcome")]
            for one in records:
                message_id = one["messageId"]
                assert message_id in ended
                assert (message_id in kept) + (message_id in letters) <= 1
                if message_id in letters:
                    assert ended.count(message_id) == 1
            assert function.letters() == {}


class TestDeadLetters:
    def test_a_message_whose_letter_cannot_be_sent_is_kept(self, function: Function, told: Callable[[], Told]) -> None:
        # The queue refuses a letter of more than one MiB; SQS would not have delivered such a message.
        records = [record("x" * 1_048_577), record(NOT_JSON)]
        assert function.invoke(*records) == kept_of(records, 0)
        assert list(function.letters(*records)) == kept_of(records, 1)
        said = told()
        assert [(line["message"], line["outcome"]) for line in said.logs] == [
            ("dead letter not sent", "retried"),
            ("invalid_message", "invalid_message"),
        ]
        assert values(said, "DeadLettered") == [1]


class TestOutages:
    """Failures of the service, the key or the table are tried again from a copy, after the last receive of SQS."""

    EVENT_TIME_MS = 1_795_327_920_123

    def failed(self, room: Room, **more: Any) -> dict[str, Any]:
        """Return a message on its last receive, while the API fails."""
        room.start("audio")
        room.fail("audio", SERVICE_UNAVAILABLE)
        event_time = datetime.fromtimestamp(self.EVENT_TIME_MS / 1000, UTC).isoformat(timespec="milliseconds")
        return room.message(TaskId="audio", EventTime=event_time, receive_count=MAX_RECEIVE_COUNT, **more)

    def test_on_the_last_receive_a_copy_with_the_times_of_the_original_goes_to_the_event_queue_and_waits(
        self, function: Function, room: Room, monkeypatch: pytest.MonkeyPatch, told: Callable[[], Told]
    ) -> None:
        def wait_not(params: dict[str, Any], **_: object) -> None:
            delays.extend(entry.pop("DelaySeconds") for entry in params["Entries"])

        delays: list[int] = []
        monkeypatch.setattr(function.module, "jitter", lambda: 0.5)
        taken(function.sqs, function.event_queue)
        message = self.failed(room, seconds_ago=600)

        with hooked(function.module.queues.client, "provide-client-params.sqs.SendMessageBatch", wait_not):
            assert function.invoke(message) == []

        (copy,) = taken(function.sqs, function.event_queue)
        sent_ms = int(message["attributes"]["SentTimestamp"])
        assert copy["Body"] == message["body"]
        assert {
            name: (value["DataType"], value["StringValue"]) for name, value in copy["MessageAttributes"].items()
        } == {
            "EventTime": ("Number", str(min(self.EVENT_TIME_MS, sent_ms))),
            "FirstSentAt": ("Number", str(sent_ms)),
        }
        assert copy["Attributes"]["MessageGroupId"] == APP_ID
        assert delays == [300]
        assert function.letters(message) == {}
        assert "requeued" in told().outcomes()

    def test_where_the_copy_cannot_be_sent_the_message_is_kept(
        self, function: Function, room: Room, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(function.module.queues, "event_queue_url", function.event_queue + "-gone")
        message = self.failed(room)
        assert function.invoke(message) == kept_of([message], 0)
        assert function.letters(message) == {}


class TestFaultsOfOurs:
    def test_an_unexpected_error_keeps_its_message_until_its_last_receive_and_no_other(
        self,
        function: Function,
        new_room: Callable[[], Room],
        monkeypatch: pytest.MonkeyPatch,
        told: Callable[[], Told],
    ) -> None:
        good, bad = new_room(), new_room()
        good.start("audio")
        bad.start("audio")
        table = function.module.stopper.table
        note_stop = table.note_stop

        def fail_for_one(task: Any, *rest: object) -> None:
            if task.room.room_id == bad.id:
                raise ValueError("p4yload")
            note_stop(task, *rest)

        monkeypatch.setattr(table, "note_stop", fail_for_one)
        last = bad.message(TaskId="audio", receive_count=MAX_RECEIVE_COUNT)
        records = [bad.message(TaskId="audio"), good.message(TaskId="audio"), last]

        assert function.invoke(*records) == kept_of(records, 0)

        assert good.running("audio") == [False]
        letter = function.letters(last)[last["messageId"]]
        assert (letter["ErrorKind"], letter["ErrorCode"]) == ("exhausted", "FunctionFailed")
        assert letter["ErrorMessage"] == "the function failed: ValueError"
        ends = [line for line in told().logs if line["message_id"] == records[0]["messageId"]]
        assert [(line["level"], line.get("outcome")) for line in ends] == [("ERROR", None), ("WARNING", "retried")]
        assert ends[1]["error_code"] == "FunctionFailed"


class TestTimeLeft:
    ENOUGH_MS = 1000 * (CALL_SECONDS + RECORD_SECONDS + SETTLING_SECONDS)
    LEAD_MS = 20  # the first turn waits for `pace.LEAD_SECONDS`, while the table is read

    def test_a_call_that_may_not_end_in_time_is_not_made(
        self, function: Function, room: Room, told: Callable[[], Told]
    ) -> None:
        room.start("audio")
        message = room.message(TaskId="audio")
        assert function.invoke(message, remaining_ms=self.ENOUGH_MS - 1) == kept_of([message], 0)
        assert room.requests() == []
        assert [line.get("error_code") for line in told().logs] == ["NoTimeLeft"] * 2  # of the task, of the message

    def test_a_call_that_can_end_in_time_is_made(self, function: Function, room: Room) -> None:
        room.start("audio")
        assert function.invoke(room.message(TaskId="audio"), remaining_ms=self.ENOUGH_MS + self.LEAD_MS) == []
        assert room.running("audio") == [False]

    def test_what_needs_no_call_is_served_at_the_last_moment(self, function: Function, room: Room) -> None:
        message = room.message(TaskId="audio")
        function.invoke(message)
        assert (
            function.invoke(
                message, room.message("SegmentStarted", TaskId="screen"), remaining_ms=1000 * SETTLING_SECONDS + 500
            )
            == []
        )

    def test_a_message_that_is_not_served_in_time_takes_no_end_from_the_others(
        self, function: Function, new_room: Callable[[], Room], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The deadline is that of `settling`: what is sent there has its time, however long a table does not answer."""
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
        records = [
            hung.message("SegmentStarted", TaskId="audio"),
            good.message("SegmentStarted", TaskId="audio"),
            record(NOT_JSON),
        ]
        try:
            assert function.invoke(*records, remaining_ms=1000 * SETTLING_SECONDS + 500) == kept_of(records, 0)
        finally:
            answers.set()
        assert list(function.letters(*records)) == kept_of(records, 2)
        assert waits == [0.5] * 3


class TestSettling:
    """The handling of failed messages, in the time that is reserved for it."""

    def test_the_calls_after_each_other_are_as_many_as_there_is_time_for(
        self, function: Function, new_room: Callable[[], Room], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Each barrier stands for one call's time: it opens when all calls of a step are under way at once."""
        queues, down = function.module.queues, new_room()
        down.fail("audio", SERVICE_UNAVAILABLE)
        notices = function.sqs.create_queue(QueueName=f"notices-{uuid4().hex}")["QueueUrl"]
        monkeypatch.setattr(queues, "failed_stop_queue_url", notices)
        settings = replace(function.module.settings, failed_stop_queue_url=notices)
        monkeypatch.setattr(function.module, "settings", settings)
        steps = [threading.Barrier(5, timeout=10), threading.Barrier(2, timeout=10)]
        passed: list[int] = []

        def meet(**_: object) -> None:
            passed.append(steps[len(passed) // 5].wait())

        records = [
            *(record("x" * 500_000) for _ in range(6)),  # two in a call
            down.message(TaskId="audio", receive_count=MAX_RECEIVE_COUNT, Note="x" * 700_000),
            down.message(TaskId="audio", receive_count=MAX_RECEIVE_COUNT, Note="x" * 700_000),
            down.message(TaskId="audio"),
        ]
        function.invoke(records[-1])  # the connection is there
        function.double.heal()
        down.fail("audio", SERVICE_UNAVAILABLE)
        with hooked(queues.client, "before-call.sqs", meet):
            assert function.invoke(*records) == kept_of(records, 8)
        assert len(passed) == 5 + 2
        assert len(steps) == function.module.SETTLING_CALLS
        function.letters()

    def test_the_time_that_is_kept_is_that_of_the_calls(self, function: Function) -> None:
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
            "handler._tell",
            "metrics.add_metric",
            "logger.info",
            "logger.warning",
            "queues.postpone",
            "queues.send_notices",
            "queues.send_copies",
        ],
    )
    def test_nothing_that_raises_takes_a_message_s_end(
        self, function: Function, new_room: Callable[[], Room], monkeypatch: pytest.MonkeyPatch, step: str
    ) -> None:
        good, down, old = new_room(), new_room(), new_room()
        good.start("audio")
        for room in (down, old):
            room.fail("audio", SERVICE_UNAVAILABLE)
        records = [
            record(NOT_JSON),
            good.message(TaskId="audio"),
            down.message(TaskId="audio"),
            old.message(TaskId="audio", receive_count=MAX_RECEIVE_COUNT),
            record(json.dumps({"EventType": "UserJoinRoom", "EventData": "{}"})),
            record("[]"),
        ]
        module = function.module
        places = {"handler": module, "metrics": module.metrics, "logger": module.logger, "queues": module.queues}

        def fail(*_: object, **__: object) -> None:
            raise ValueError("whatever it is")

        place, _, name = step.partition(".")
        monkeypatch.setattr(places[place], name, fail)
        copies = "send_copies" in step
        assert sorted(function.invoke(*records)) == sorted(kept_of(records, 2, *([3] if copies else [])))
        assert sorted(function.letters(*records)) == sorted(kept_of(records, 0, 5))
        assert good.running("audio") == [False]

    def test_a_message_that_cannot_be_read_for_a_fault_of_ours_is_the_only_one_that_is_tried_again(
        self, function: Function, room: Room, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        records = [record(NOT_JSON), room.message(TaskId="audio"), record("[]")]

        def read(body: str, *arguments: Any, **options: Any) -> Any:
            if body == "[]":
                raise RecursionError
            return parse_event(body, *arguments, **options)

        monkeypatch.setattr("stop_segment.arrivals.parse_event", read)
        assert function.invoke(*records) == kept_of(records, 2)
        assert list(function.letters(*records)) == kept_of(records, 0)


class TestFairness:
    def test_the_neighbours_of_a_message_with_many_tasks_have_their_turns(
        self, function: Function, new_room: Callable[[], Room]
    ) -> None:
        huge, vast, *small = rooms = [new_room() for _ in range(5)]
        task_ids = [f"t{number}" for number in range(50)]
        records = [one.message(TaskIds=task_ids) for one in (huge, vast)]
        records += [one.message(TaskId="audio") for one in small]
        assert function.invoke(*records) == []
        ids = [one.id for one in rooms]
        order = [request.task[1] for request in function.double.requests if request.task[1] in ids]
        assert len(order) == 103
        # First come, first served would be 100 to 102. Threads and connections mix up what leaves at nearly one time.
        assert max(order.index(one.id) for one in small) < 40
        assert min(order[:50].count(one.id) for one in (huge, vast)) > 12


class TestCallsOfAws:
    def test_a_batch_costs_one_read_and_a_write_for_each_stop_and_its_redelivery_only_the_read(
        self, function: Function, new_room: Callable[[], Room]
    ) -> None:
        rooms = [new_room() for _ in range(10)]
        records = [one.message(TaskId="audio") for one in rooms]
        assert function.invoke(*records) == []
        assert function.calls == {"BatchGetItem": 1, "UpdateItem": 10}
        function.calls.clear()
        assert function.invoke(*records) == []
        assert function.calls == {"BatchGetItem": 1}
        assert [len(one.requests()) for one in rooms] == [1] * 10

    def test_letters_and_back_offs_take_one_call_each(self, function: Function, room: Room) -> None:
        room.fail("audio", SERVICE_UNAVAILABLE)
        bad = [record(NOT_JSON) for _ in range(5)]
        function.invoke(*bad, room.message(TaskId="audio"), room.message(TaskId="audio"))
        assert function.calls == {"BatchGetItem": 1, "SendMessageBatch": 1, "ChangeMessageVisibilityBatch": 1}
        function.letters()


class TestLogs:
    @pytest.mark.parametrize("fault", [SERVICE_UNAVAILABLE, REJECTED, KEY_REFUSED, QPS_OVER_LIMIT])
    def test_no_line_holds_the_payload_or_the_secret(
        self, function: Function, room: Room, told: Callable[[], Told], fault: Fault
    ) -> None:
        room.fail("audio", fault)
        message = room.message(TaskId="audio", BusinessId="p4yload", Note="p4yload")
        bus_event = {"detail-type": "RoomEnded", "detail": {"AppId": APP_ID, "RoomId": "p4yload#"}}
        function.invoke(message, record(NOT_JSON), record(json.dumps(bus_event)))
        text = told().text
        assert "p4yload" not in text
        assert not any(value in text for value in RTC_KEY.values())
        function.letters()


def values(said: Told, name: str) -> list[float]:
    return [value for line in said.metrics for value in line.get(name, [])]


class TestMetrics:
    def test_metrics_have_their_names_units_and_one_dimension(
        self, function: Function, new_room: Callable[[], Room], told: Callable[[], Told]
    ) -> None:
        stopped, gone, down, wrong, refused, slow, empty = (new_room() for _ in range(7))
        faults = [SERVICE_UNAVAILABLE, REJECTED, KEY_REFUSED, QPS_OVER_LIMIT]
        for one, fault in zip((down, wrong, refused, slow), faults, strict=True):
            one.fail("audio", fault)
        stopped.start("audio")
        function.invoke(
            stopped.message(TaskId="audio", seconds_ago=3),
            stopped.message(TaskId="audio", seconds_ago=4),
            gone.message(TaskId="audio"),
            down.message(TaskId="audio"),
            down.message(TaskId="audio", receive_count=MAX_RECEIVE_COUNT, seconds_ago=GIVE_UP_AFTER_SECONDS),
            down.message(TaskId="audio", receive_count=MAX_RECEIVE_COUNT),
            wrong.message(TaskId="audio"),
            refused.message(TaskId="audio"),
            slow.message(TaskId="audio"),
            empty.message(),
            gone.message("SegmentStarted", TaskId="screen"),
            record(NOT_JSON),
            record(json.dumps({"EventType": "UserJoinRoom", "EventData": "{}"})),
        )
        said = told()
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
        assert {name: sum(values(said, name)) for name in counts} == counts
        lengths = {"TimeToStop": 2, "TurnWait": 6, "ApiLatency": 6}
        assert {name: len(values(said, name)) for name in lengths} == lengths
        assert max(values(said, "TimeToStop")) >= 3_000
        units = dict.fromkeys(counts, "Count") | dict.fromkeys(lengths, "Milliseconds")
        for line in said.metrics:
            (directive,) = line["_aws"]["CloudWatchMetrics"]
            assert directive["Namespace"] == NAMESPACE
            assert directive["Dimensions"] == [["service"]]
            assert line["service"] == SERVICE
            assert {metric["Name"]: metric["Unit"] for metric in directive["Metrics"]}.items() <= units.items()
        function.letters()
