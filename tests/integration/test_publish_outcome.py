"""The publishing function as Lambda calls it, with an embedded AWS. tests/e2e/ receives its events from a bus."""

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import pytest
from botocore.awsrequest import AWSResponse
from botocore.compat import HTTPHeaders

from sandbox.embedded_aws import EmbeddedAws
from tests.environments import Context, hooked, import_handler

NAMESPACE = "OutcomeTests"
SERVICE = "outcome-function-tests"
STOPPED_AT = 1_795_327_921_456


@dataclass
class Function:
    """A function environment, and the entries of each of its PutEvents calls."""

    module: ModuleType
    calls: list[list[dict[str, str]]] = field(default_factory=list)

    def invoke(self, *changes: dict[str, Any]) -> list[str]:
        """Publish a batch; return the sequence numbers that the stream must deliver again."""
        answer = self.module.handler({"Records": list(changes)}, Context())
        return [failure["itemIdentifier"] for failure in answer["batchItemFailures"]]

    def sizes(self) -> list[int]:
        return [len(entries) for entries in self.calls]

    def note_call(self, params: dict[str, Any], **_: object) -> None:
        """Note a call that EventBridge would take: the embedded AWS has no limit in bytes."""
        entries = json.loads(params["body"])["Entries"]
        # EventBridge's guide, "Calculating PutEvents event entry size": 14 is the Time.
        sizes = [14 + sum(len(entry[key].encode()) for key in ("Source", "DetailType", "Detail")) for entry in entries]
        assert sum(sizes) <= 262_144
        self.calls.append(entries)


@pytest.fixture(scope="module")
def environment(aws: EmbeddedAws) -> Iterator[Function]:
    """Create a function environment that starts as Lambda would start it."""
    variables = {
        "OUTCOME_EVENT_BUS_NAME": "outcomes",
        "POWERTOOLS_SERVICE_NAME": SERVICE,
        "POWERTOOLS_METRICS_NAMESPACE": NAMESPACE,
    }
    module = import_handler("publish_outcome", (), aws.environment | variables)
    made = Function(module)
    module._events.meta.events.register("before-call.events.PutEvents", made.note_call)
    yield made
    module._events.close()


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


def change(number: int, old: dict[str, str | int] | None, new: dict[str, str | int] | None) -> dict[str, Any]:
    """Return a change as Lambda receives it from the table's stream."""
    images = {name: image(item) for name, item in (("OldImage", old), ("NewImage", new)) if item is not None}
    return {
        "eventID": f"event-{number}",
        "eventName": "REMOVE" if new is None else "MODIFY" if old else "INSERT",
        "eventSource": "aws:dynamodb",
        "dynamodb": {"SequenceNumber": str(number), "StreamViewType": "NEW_AND_OLD_IMAGES"} | images,
    }


def stops(count: int) -> list[dict[str, Any]]:
    return [change(number, None, stopped(f"t{number:03}")) for number in range(1, count + 1)]


def metrics(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_a_stop_is_published_and_counted(function: Function, capsys: pytest.CaptureFixture[str]) -> None:
    stop = change(1, task("audio"), stopped("audio", business_id="biz-1", event_id="evt-1"))
    assert function.invoke(stop, change(9, None, task("started", started_at=1))) == []
    ((event,),) = function.calls
    assert (event["EventBusName"], event["Source"]) == ("outcomes", "rtc-segment-stopper")
    assert event["DetailType"] == "SegmentStopped"
    detail = json.loads(event["Detail"])
    assert (detail["TaskId"], detail["StoppedAt"]) == ("audio", "2026-11-22T06:12:01.456Z")
    (line,) = metrics(capsys.readouterr().out)
    (directive,) = line["_aws"]["CloudWatchMetrics"]
    assert (directive["Namespace"], directive["Dimensions"]) == (NAMESPACE, [["service"]])
    assert directive["Metrics"] == [{"Name": "OutcomesPublished", "Unit": "Count"}]
    assert (line["OutcomesPublished"], line["service"]) == ([1], SERVICE)


@pytest.mark.parametrize(
    "batch",
    [
        [change(1, None, task("started", started_at=1))],
        [change(1, stopped("expired"), None)],
        [{"eventSource": "aws:dynamodb", "eventName": "MODIFY", "dynamodb": {"SequenceNumber": "1"}}],
        [{"eventSource": "aws:dynamodb", "eventName": "MODIFY"}],
    ],
)
def test_a_batch_without_a_stop_makes_no_call(function: Function, batch: list[dict[str, Any]]) -> None:
    assert function.invoke(*batch) == []
    assert function.calls == []


def notice(number: int, letters: int = 0) -> dict[str, Any]:
    """Return a notice as Lambda receives it from the queue of failed stops, with this number of 3-byte letters."""
    detail = {"FailedAt": "2026-11-22T06:12:01.456Z", "ErrorMessage": "\u4e2d" * letters, "Number": number}
    body = json.dumps(detail, ensure_ascii=False)
    return {"messageId": f"message-{number}", "body": body, "eventSource": "aws:sqs"}


def test_no_call_is_larger_than_eventbridge_accepts(function: Function) -> None:
    batch = [notice(number, letters) for number, letters in enumerate([40_000, 40_000, 40_000, 5, 87_300, 5])]
    assert function.invoke(*batch) == []
    assert function.sizes() == [2, 2, 1, 1]


class TestPassingOver:
    """A record that can never become an event is logged, counted and passed over, and delays no other record."""

    def test_a_record_that_no_function_wrote_is_passed_over(
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
            notice(7) | {"body": "nonsense"},
            notice(8, letters=87_400),
        ]
        batch[2]["dynamodb"]["NewImage"]["stopped_at"] = {"N": "1.5"}
        assert function.invoke(*batch) == []
        assert [json.loads(event["Detail"])["TaskId"] for event in function.calls[0]] == ["first", "last"]
        line = json.loads(log.getvalue())
        assert (line["level"], line["message"], line["count"]) == ("ERROR", "outcome events passed over", 6)
        assert line["records"] == ["event-2", "event-3", "event-4", "event-5", "message-7", "message-8"]
        assert line["reasons"] == [
            "AttributeError",
            "JSONDecodeError",
            "the attribute room must be an AppId, # and a RoomId",
            "the attribute stop_event_time must be a time in Unix ms, not before 2018",
            "the attribute stopped_at must be a time in Unix ms, not before 2018",
            "the outcome event must have at most 262144 bytes",
        ]
        (line,) = metrics(capsys.readouterr().out)
        assert (line["OutcomesPublished"], line["OutcomesPassedOver"]) == ([2], [6])

    def test_a_log_line_names_at_most_ten_records(self, function: Function, log: io.StringIO) -> None:
        assert function.invoke(*[change(number, None, stopped("old", stopped_at=0)) for number in range(100)]) == []
        assert len(log.getvalue().splitlines()) == 1
        line = json.loads(log.getvalue())
        assert (line["count"], len(line["records"])) == (100, 10)


class TestFailure:
    def test_only_the_rejected_entries_are_delivered_again(self, function: Function) -> None:
        # The embedded AWS accepts all entries of a call or none; EventBridge may accept some.
        def refuse_some(parsed: dict[str, Any], **_: object) -> None:
            parsed["FailedEntryCount"] = 2
            parsed["Entries"][1] = {"ErrorCode": "ThrottlingException", "ErrorMessage": "later"}
            parsed["Entries"][3] = {"ErrorMessage": "unknown"}
            del parsed["Entries"][4:]

        with hooked(function.module._events, "after-call.events.PutEvents", refuse_some):
            assert function.invoke(*stops(6)) == ["2", "4", "5", "6"]

    def test_a_failed_call_does_not_keep_the_others_from_being_made(
        self, function: Function, capsys: pytest.CaptureFixture[str]
    ) -> None:
        # EventBridge answers a call that is too large like this; the embedded AWS has no such limit.
        def refuse(request: Any, **_: object) -> AWSResponse | None:
            if b"t011" not in request.body:
                return None
            return response(request.url, "ValidationException")

        with hooked(function.module._events, "before-send.events.PutEvents", refuse):
            assert function.invoke(*stops(25)) == [str(number) for number in range(11, 21)]
        assert function.sizes() == [10, 10, 5]
        (line,) = metrics(capsys.readouterr().out)
        assert (line["OutcomesPublished"], line["OutcomesNotPublished"]) == ([15], [10])

    def test_every_stop_is_delivered_again_while_eventbridge_does_not_answer(
        self, function: Function, aws_away: EmbeddedAws, monkeypatch: pytest.MonkeyPatch, log: io.StringIO
    ) -> None:
        monkeypatch.setattr(function.module, "_events", aws_away.client("events"))
        assert function.invoke(*stops(12)) == [str(number) for number in range(1, 13)]
        assert json.loads(log.getvalue())["reasons"] == ["EndpointConnectionError"]


def answer(number: int, token: str, **content: object) -> dict[str, Any]:
    body = json.dumps({"TaskToken": token, "SourceMessageId": f"m-{number}", **content})
    return {"messageId": str(number), "eventSource": "aws:sqs", "body": body}


def test_each_answer_to_a_workflow_is_sent_and_only_one_that_may_succeed_later_is_delivered_again(
    function: Function, aws: EmbeddedAws, monkeypatch: pytest.MonkeyPatch, log: io.StringIO, capsys: Any
) -> None:
    """The test answers with AWS's error codes: the embedded AWS has others for a workflow that no longer waits."""
    asked: dict[str, Any] = {}
    # Step Functions API Reference, SendTaskSuccess.
    codes = {"token-2": "TaskTimedOut", "token-3": "InvalidToken", "token-4": "AccessDeniedException"}

    def say(request: Any, **_: object) -> AWSResponse:
        said = json.loads(request.body)
        token = said.pop("taskToken")
        asked[token] = said
        return response(request.url, codes.get(token, ""))

    client = aws.client("stepfunctions")
    monkeypatch.setattr("publish_outcome.workflow_answers.step_functions", lambda: client)
    batch = [answer(number, f"token-{number}", Output={"n": number}) for number in range(5)]
    batch[1] = answer(1, "token-1", Error="NoApp", Cause="rejected: no such app")
    with hooked(client, "before-send.sfn", say):
        assert function.invoke(*batch, notice(5)) == ["4"]
    assert asked["token-0"] == {"output": '{"n": 0}'}
    assert asked["token-1"] == {"error": "NoApp", "cause": "rejected: no such app"}
    (line,) = metrics(capsys.readouterr().out)
    counted = {"WorkflowAnswered": [1, 1], "WorkflowGone": [1, 1], "WorkflowNotAnswered": [1], "OutcomesPublished": [1]}
    assert line | counted == line
    *gone, refused = [json.loads(text) for text in log.getvalue().splitlines()]
    assert [said["source_message_id"] for said in gone] == ["m-2", "m-3"]
    assert (refused["level"], refused["reason"]) == ("WARNING", "AccessDeniedException")
    assert refused["source_message_id"] == "m-4"
    assert "token" not in log.getvalue()
    client.close()


def response(url: str, code: str) -> AWSResponse:
    """Create an answer of AWS, which is a success if there is no error code."""
    body = json.dumps({"__type": code, "message": "no"} if code else {}).encode()
    raw = io.BytesIO(body)
    raw.stream = lambda *_, **__: iter([body])  # type: ignore[attr-defined]
    return AWSResponse(url, 400 if code else 200, HTTPHeaders(), raw)
