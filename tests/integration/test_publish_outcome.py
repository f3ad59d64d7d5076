"""The outcome function as Lambda calls it, with a bus of an embedded AWS and a queue behind it."""

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any
from uuid import uuid4

import pytest
from botocore.awsrequest import AWSResponse
from botocore.compat import HTTPHeaders

from sandbox.embedded_aws import EmbeddedAws
from sandbox.stack import ROOT, wait_for
from tests.environments import Context, hooked, import_handler, taken

NAMESPACE = "OutcomeTests"
SERVICE = "outcome-function-tests"
STOPPED_AT = 1_795_327_921_456


@dataclass
class Function:
    """A function environment, the queue behind its bus, and the size of each of its PutEvents calls."""

    module: ModuleType
    sqs: Any
    queue: str
    calls: list[int] = field(default_factory=list)

    def invoke(self, *changes: dict[str, Any]) -> list[str]:
        """Publish a batch; return the sequence numbers that the stream is to deliver again."""
        answer = self.module.handler({"Records": list(changes)}, Context())
        return [failure["itemIdentifier"] for failure in answer["batchItemFailures"]]

    def events(self) -> list[dict[str, Any]]:
        """Receive the events of the bus from the queue."""
        return [json.loads(message["Body"]) for message in taken(self.sqs, self.queue)]

    def tasks(self) -> list[str]:
        return sorted(event["detail"]["TaskId"] for event in self.events())

    def note_call(self, params: dict[str, Any], **_: object) -> None:
        """Note a call that EventBridge would take: the embedded AWS knows no limit in bytes."""
        entries = json.loads(params["body"])["Entries"]
        # EventBridge's guide, "Calculating PutEvents event entry size": 14 is the Time.
        sizes = [14 + sum(len(entry[key].encode()) for key in ("Source", "DetailType", "Detail")) for entry in entries]
        assert sum(sizes) <= 262_144
        self.calls.append(len(entries))


@pytest.fixture(scope="module")
def environment(aws: EmbeddedAws) -> Iterator[Function]:
    """Create a bus with a queue as its target, and a function environment that starts as Lambda would start it."""
    bus = f"outcomes-{uuid4().hex}"
    sqs, events = aws.client("sqs"), aws.client("events")
    queue = sqs.create_queue(QueueName=bus)["QueueUrl"]
    queue_arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    events.create_event_bus(Name=bus)
    pattern = {"source": ["rtc-segment-stopper"], "detail-type": ["SegmentStopped"]}
    rule = events.put_rule(Name=bus, EventBusName=bus, EventPattern=json.dumps(pattern))["RuleArn"]
    events.put_targets(Rule=bus, EventBusName=bus, Targets=[{"Id": "queue", "Arn": queue_arn}])
    policy = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"Service": "events.amazonaws.com"},
                "Action": "sqs:SendMessage",
                "Resource": queue_arn,
                "Condition": {"ArnEquals": {"aws:SourceArn": rule}},
            }
        ],
    }
    sqs.set_queue_attributes(QueueUrl=queue, Attributes={"Policy": json.dumps(policy)})
    variables = {
        "OUTCOME_EVENT_BUS_NAME": bus,
        "POWERTOOLS_SERVICE_NAME": SERVICE,
        "POWERTOOLS_METRICS_NAMESPACE": NAMESPACE,
    }
    module = import_handler("publish_outcome", (), aws.environment | variables)
    made = Function(module, sqs, queue)
    module._events.meta.events.register("before-call.events.PutEvents", made.note_call)
    yield made
    for client in (sqs, events, module._events):
        client.close()


@pytest.fixture
def log() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def function(environment: Function, log: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> Function:
    """Let the environment write its log to this test."""
    monkeypatch.setattr(environment.module.logger.registered_handler, "stream", log)
    environment.calls.clear()
    return environment


def image(values: dict[str, str | int]) -> dict[str, dict[str, str]]:
    return {
        name: {"N": str(value)} if name.endswith(("_at", "_time")) else {"S": str(value)}
        for name, value in values.items()
    }


def task(task_id: str, **more: str | int) -> dict[str, str | int]:
    return dict[str, str | int](room="661e#room-1", task_id=task_id, expires_at=1_795_932_730) | more


def stopped(task_id: str, **more: str | int) -> dict[str, str | int]:
    values = task(task_id, stop_event_time=1_795_327_920_123, stopped_at=STOPPED_AT, outcome="stopped")
    return values | task(task_id, event_type="RoomEnded", request_id="20261122REQUEST") | more


def change(
    number: int, old: dict[str, str | int] | None, new: dict[str, str | int] | None, user: str | None = None
) -> dict[str, Any]:
    """Return a change as Lambda gets it from the table's stream."""
    images = {name: image(item) for name, item in (("OldImage", old), ("NewImage", new)) if item is not None}
    whole: dict[str, Any] = {
        "eventID": f"event-{number}",
        "eventName": "REMOVE" if new is None else "MODIFY" if old else "INSERT",
        "eventSource": "aws:dynamodb",
        "dynamodb": {"SequenceNumber": str(number), "StreamViewType": "NEW_AND_OLD_IMAGES"} | images,
    }
    return whole | ({"userIdentity": {"type": "Service", "principalId": user}} if user else {})


def stops(count: int, first: int = 1) -> list[dict[str, Any]]:
    return [change(number, None, stopped(f"t{number:03}")) for number in range(first, first + count)]


def metrics(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_a_stop_arrives_on_the_bus(function: Function) -> None:
    assert function.invoke(change(1, task("audio"), stopped("audio", business_id="biz-1", event_id="evt-1"))) == []
    (event,) = function.events()
    assert (event["source"], event["detail-type"]) == ("rtc-segment-stopper", "SegmentStopped")
    assert (event["detail"]["TaskId"], event["detail"]["StoppedAt"]) == ("audio", "2026-11-22T06:12:01.456Z")


@pytest.mark.parametrize(
    "batch",
    [
        [change(1, None, task("started", started_at=1))],
        [change(1, stopped("expired"), None, user="dynamodb.amazonaws.com")],
        [{"eventSource": "aws:dynamodb", "eventName": "MODIFY", "dynamodb": {"SequenceNumber": "1"}}],
        [{"eventSource": "aws:dynamodb", "eventName": "MODIFY"}],
    ],
)
def test_a_batch_without_a_stop_is_no_call(function: Function, batch: list[dict[str, Any]]) -> None:
    assert function.invoke(*batch) == []
    assert function.calls == []


@pytest.mark.parametrize(("count", "calls"), [(10, [10]), (11, [10, 1]), (25, [10, 10, 5])])
def test_many_stops_go_in_calls_of_ten(function: Function, count: int, calls: list[int]) -> None:
    assert function.invoke(*stops(count)) == []
    assert function.calls == calls
    assert function.tasks() == [f"t{number:03}" for number in range(1, count + 1)]


def notice(number: int, letters: int = 0) -> dict[str, Any]:
    """Return a notice as Lambda gets it from the queue of failed stops, with so many characters of 3 bytes in it."""
    detail = {"FailedAt": "2026-11-22T06:12:01.456Z", "ErrorMessage": "\u4e2d" * letters, "Number": number}
    body = json.dumps(detail, ensure_ascii=False)
    return {"messageId": f"message-{number}", "body": body, "eventSource": "aws:sqs"}


def test_large_notices_go_in_calls_that_eventbridge_takes(function: Function) -> None:
    batch = [notice(number, letters) for number, letters in enumerate([40_000, 40_000, 40_000, 5, 87_300, 5])]
    assert function.invoke(*batch) == []
    assert function.calls == [2, 2, 1, 1]


class TestPassingOver:
    """A record that can never become an event delays nothing: it is logged, counted and passed over."""

    def test_a_record_that_no_function_wrote_fails_only_itself(
        self, function: Function, log: io.StringIO, capsys: pytest.CaptureFixture[str]
    ) -> None:
        batch = [
            change(1, None, stopped("first")),
            change(2, None, stopped("old", stop_event_time=-62_135_625_600_000)),
            change(3, None, stopped("half")),
            change(4, None, stopped("other", stopped_at=0, room="661e")),
            {
                "eventID": "event-5",
                "eventSource": "aws:dynamodb",
                "dynamodb": {"NewImage": {"stopped_at": 5, "room": None}},
            },
            change(6, None, stopped("last")),
        ]
        batch[2]["dynamodb"]["NewImage"]["stopped_at"] = {"N": "1.5"}
        assert function.invoke(*batch) == []
        assert function.tasks() == ["first", "last"]
        line = json.loads(log.getvalue())
        assert (line["level"], line["message"], line["count"]) == ("ERROR", "outcome events passed over", 4)
        assert line["records"] == ["event-2", "event-3", "event-4", "event-5"]
        assert line["reasons"] == [
            "AttributeError",
            "room must be an AppId, #, and a RoomId",
            "stop_event_time must be a time in Unix ms, not before 2018",
            "stopped_at must be a time in Unix ms, not before 2018",
        ]
        (line,) = metrics(capsys.readouterr().out)
        assert (line["OutcomesPublished"], line["OutcomesPassedOver"]) == ([2], [4])

    def test_a_notice_that_is_none_or_too_large_fails_only_itself(
        self, function: Function, log: io.StringIO, capsys: pytest.CaptureFixture[str]
    ) -> None:
        broken = notice(2) | {"body": "nonsense"}
        assert function.invoke(notice(1), broken, notice(3, letters=87_400), notice(4)) == []
        assert function.calls == [2]
        line = json.loads(log.getvalue())
        assert line["records"] == ["message-2", "message-3"]
        (line,) = metrics(capsys.readouterr().out)
        assert (line["OutcomesPublished"], line["OutcomesPassedOver"]) == ([2], [2])

    def test_a_log_line_names_ten_of_many(self, function: Function, log: io.StringIO) -> None:
        assert function.invoke(*[change(number, None, stopped("old", stopped_at=0)) for number in range(100)]) == []
        assert len(log.getvalue().splitlines()) == 1
        line = json.loads(log.getvalue())
        assert (line["count"], len(line["records"])) == (100, 10)


class TestFailure:
    def test_an_answer_that_says_nothing_of_an_entry_is_no_success(self, function: Function) -> None:
        def cut_short(parsed: dict[str, Any], **_: object) -> None:
            del parsed["Entries"][1:]

        with hooked(function.module._events, "after-call.events.PutEvents", cut_short):
            assert function.invoke(*stops(3)) == ["2", "3"]
        function.events()

    def test_only_the_entries_that_were_not_taken_are_delivered_again(self, function: Function) -> None:
        # The embedded AWS takes all entries of a call or none; EventBridge may take some.
        def refuse_two(parsed: dict[str, Any], **_: object) -> None:
            parsed["FailedEntryCount"] = 2
            parsed["Entries"][1] = {"ErrorCode": "ThrottlingException", "ErrorMessage": "later"}
            parsed["Entries"][3] = {"ErrorMessage": "who knows"}

        with hooked(function.module._events, "after-call.events.PutEvents", refuse_two):
            assert function.invoke(*stops(5)) == ["2", "4"]
        function.events()

    def test_a_call_that_fails_hinders_no_other(self, function: Function, capsys: pytest.CaptureFixture[str]) -> None:
        # As EventBridge answers a call that is too large; the embedded AWS knows no such limit.
        def refuse(request: Any, **_: object) -> AWSResponse | None:
            if b"t011" not in request.body:
                return None
            return refusal(request.url, "ValidationException")

        with hooked(function.module._events, "before-send.events.PutEvents", refuse):
            assert function.invoke(*stops(25)) == [str(number) for number in range(11, 21)]
        assert function.tasks() == [f"t{number:03}" for number in (*range(1, 11), *range(21, 26))]
        (line,) = metrics(capsys.readouterr().out)
        assert (line["OutcomesPublished"], line["OutcomesNotPublished"]) == ([15], [10])

    def test_while_eventbridge_is_away_every_stop_is_delivered_again(
        self, function: Function, aws_away: EmbeddedAws, monkeypatch: pytest.MonkeyPatch, log: io.StringIO
    ) -> None:
        monkeypatch.setattr(function.module, "_events", aws_away.client("events"))
        assert function.invoke(*stops(12)) == [str(number) for number in range(1, 13)]
        assert json.loads(log.getvalue())["reasons"] == ["EndpointConnectionError"]


def test_what_was_published_is_counted(function: Function, capsys: pytest.CaptureFixture[str]) -> None:
    function.invoke(*stops(3), change(9, None, task("started", started_at=1)))
    (line,) = metrics(capsys.readouterr().out)
    (directive,) = line["_aws"]["CloudWatchMetrics"]
    assert directive["Namespace"] == NAMESPACE
    assert directive["Dimensions"] == [["service"]]
    assert directive["Metrics"] == [{"Name": "OutcomesPublished", "Unit": "Count"}]
    assert (line["OutcomesPublished"], line["service"]) == ([3], SERVICE)
    function.events()


@dataclass
class Workflow:
    """A state machine that waits with its task token, which a queue holds."""

    states: Any
    sqs: Any
    queue: str
    arn: str

    def start(self) -> tuple[str, str]:
        """Begin an execution; return its ARN and its task token."""
        execution = self.states.start_execution(stateMachineArn=self.arn)["executionArn"]
        (message,) = wait_for(
            lambda: self.sqs.receive_message(QueueUrl=self.queue, VisibilityTimeout=600).get("Messages"), "a task token"
        )
        self.sqs.delete_message(QueueUrl=self.queue, ReceiptHandle=message["ReceiptHandle"])
        return execution, message["Body"]

    def end(self, execution: str) -> dict[str, Any]:
        def ended() -> dict[str, Any]:
            found: dict[str, Any] = self.states.describe_execution(executionArn=execution)
            return {} if found["status"] == "RUNNING" else found

        return wait_for(ended, "an execution to end")


@pytest.fixture(scope="module")
def workflow(aws: EmbeddedAws) -> Iterator[Workflow]:
    sqs, states = aws.client("sqs"), aws.client("stepfunctions")
    queue = sqs.create_queue(QueueName=f"tokens-{uuid4().hex}")["QueueUrl"]
    wait = {
        "Type": "Task",
        "Resource": "arn:aws:states:::sqs:sendMessage.waitForTaskToken",
        "Parameters": {"QueueUrl": queue, "MessageBody.$": "$$.Task.Token"},
        "End": True,
    }
    principal = {"Effect": "Allow", "Principal": {"Service": "states.amazonaws.com"}, "Action": "sts:AssumeRole"}
    role = aws.client("iam").create_role(
        RoleName=f"waits-{uuid4().hex}",
        AssumeRolePolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [principal]}),
    )["Role"]["Arn"]
    made = states.create_state_machine(
        name=f"waits-{uuid4().hex}",
        definition=json.dumps({"StartAt": "Wait", "States": {"Wait": wait}}),
        roleArn=role,
    )
    # The environment's own client is made at the first answer, when its variables are no longer here.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("publish_outcome.workflow_answers.step_functions", lambda: states)
        yield Workflow(states, sqs, queue, made["stateMachineArn"])
    sqs.close()
    states.close()


def answer(number: int, token: str, **told: object) -> dict[str, Any]:
    body = json.dumps({"TaskToken": token, "SourceMessageId": f"m-{number}", **told})
    return {"messageId": str(number), "eventSource": "aws:sqs", "body": body}


class TestWorkflows:
    def test_a_batch_of_answers_and_failed_stops_is_told_to_whom_each_concerns(
        self, function: Function, workflow: Workflow, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (served, served_token), (failed, failed_token) = workflow.start(), workflow.start()
        detail = json.loads((ROOT / "contracts" / "samples" / "segment-stop-failed.json").read_text())["detail"]
        notice = {"messageId": "3", "eventSource": "aws:sqs", "body": json.dumps(detail)}
        output = {"Tasks": [{"TaskId": "audio", "Outcome": "stopped"}]}
        cause = "rejected: no such app"

        assert (
            function.invoke(
                answer(1, served_token, Output=output), answer(2, failed_token, Error="NoApp", Cause=cause), notice
            )
            == []
        )

        ended = workflow.end(served)
        assert (ended["status"], json.loads(ended["output"])) == ("SUCCEEDED", output)
        ended = workflow.end(failed)
        assert (ended["status"], ended["error"], ended["cause"]) == ("FAILED", "NoApp", cause)
        (line,) = metrics(capsys.readouterr().out)
        assert line["WorkflowAnswered"] == [1, 1]
        assert line["OutcomesPublished"] == [1]

    def test_a_token_that_nobody_waits_with_is_counted_and_forgotten(
        self, function: Function, workflow: Workflow, log: io.StringIO, capsys: pytest.CaptureFixture[str]
    ) -> None:
        execution, token = workflow.start()
        assert function.invoke(answer(1, token, Output={})) == []
        workflow.end(execution)
        assert function.invoke(answer(2, token, Output={}), answer(3, "forged", Error="E", Cause="c")) == []
        _, line = metrics(capsys.readouterr().out)
        assert line["WorkflowGone"] == [1, 1]
        assert [json.loads(text)["source_message_id"] for text in log.getvalue().splitlines()] == ["m-2", "m-3"]
        assert token not in log.getvalue()

    @pytest.mark.parametrize("code", ["TaskTimedOut", "InvalidToken"])
    def test_aws_has_other_words_for_it(self, function: Function, workflow: Workflow, code: str) -> None:
        # Step Functions API Reference, SendTaskSuccess: the embedded AWS calls it TaskDoesNotExist.
        def refuse(request: Any, **_: object) -> AWSResponse:
            return refusal(request.url, code)

        client = workflow.states
        with hooked(client, "before-send.sfn.SendTaskSuccess", refuse):
            assert function.invoke(answer(1, "t", Output={})) == []

    def test_an_answer_that_is_refused_is_delivered_again_and_hinders_no_other(
        self, function: Function, workflow: Workflow, log: io.StringIO, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def refuse(request: Any, **_: object) -> AWSResponse | None:
            return refusal(request.url, "AccessDeniedException") if b"another" in request.body else None

        execution, token = workflow.start()
        client = workflow.states
        with hooked(client, "before-send.sfn.SendTaskSuccess", refuse):
            assert function.invoke(answer(1, "another", Output={}), answer(2, token, Output={})) == ["1"]
        assert workflow.end(execution)["status"] == "SUCCEEDED"
        (line,) = metrics(capsys.readouterr().out)
        assert (line["WorkflowAnswered"], line["WorkflowNotAnswered"]) == ([1], [1])
        (said,) = [json.loads(text) for text in log.getvalue().splitlines()]
        assert (said["level"], said["reason"], said["source_message_id"]) == (
            "WARNING",
            "AccessDeniedException",
            "m-1",
        )

    def test_while_step_functions_is_away_every_answer_is_delivered_again(
        self, function: Function, aws_away: EmbeddedAws, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        away = aws_away.client("stepfunctions")
        monkeypatch.setattr("publish_outcome.workflow_answers.step_functions", lambda: away)
        many = [answer(number, "t", Output={}) for number in range(10)]
        assert function.invoke(*many) == [str(number) for number in range(10)]


def refusal(url: str, code: str) -> AWSResponse:
    body = json.dumps({"__type": code, "message": "no"}).encode()
    raw = io.BytesIO(body)
    raw.stream = lambda *_, **__: iter([body])  # type: ignore[attr-defined]
    return AWSResponse(url, 400, HTTPHeaders(), raw)
