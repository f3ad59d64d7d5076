"""The example workflows run unchanged beside the stack that they call."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pytest

from sandbox.faults import SERVICE_UNAVAILABLE
from sandbox.stack import OUTCOME_BUS, ROOT, Sandbox, deploy, make_queue, wait_for
from tests.contracts import breaks, closed, schema
from tests.e2e.observer import APP_ID, Observer, Room, now_ms, rfc3339
from tests.environments import taken

EXAMPLES = ROOT / "examples" / "workflows"


@dataclass
class Examples:
    """The deployed examples, and a queue that is subscribed to the topic that they notify."""

    box: Sandbox
    arns: dict[str, str]
    topic: str
    notes_queue: str
    notes: list[dict[str, Any]] = field(default_factory=list)

    def start(self, name: str, event: dict[str, Any]) -> str:
        """Start an execution, and return its ARN."""
        states = self.box.client("stepfunctions")
        arn: str = states.start_execution(stateMachineArn=self.arns[name], input=json.dumps(event))["executionArn"]
        return arn

    def status(self, execution: str) -> str:
        found: str = self.box.client("stepfunctions").describe_execution(executionArn=execution)["status"]
        return found

    def end(self, execution: str) -> dict[str, Any]:
        """Wait for the end of an execution, and return its description."""

        def ended() -> dict[str, Any]:
            found: dict[str, Any] = self.box.client("stepfunctions").describe_execution(executionArn=execution)
            return {} if found["status"] == "RUNNING" else found

        return wait_for(ended, "an execution to end", seconds=90)

    def run(self, name: str, event: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """Run an example, and return its status with its output, or with its error and cause."""
        ended = self.end(self.start(name, event))
        if ended["status"] == "SUCCEEDED":
            return "SUCCEEDED", json.loads(ended["output"])
        return ended["status"], {"Error": ended["error"], "Cause": ended["cause"]}

    def note(self, text: str) -> dict[str, Any]:
        """Wait for a notification that contains a text."""

        def come() -> dict[str, Any]:
            self.notes += [json.loads(one["Body"]) for one in taken(self.box.client("sqs"), self.notes_queue)]
            return next((note for note in self.notes if text in note["Message"]), {})

        return wait_for(come, f"a notification of {text}")


@pytest.fixture(scope="module")
def examples(box: Sandbox) -> Examples:
    sns = box.client("sns")
    topic = sns.create_topic(Name="on-call")["TopicArn"]
    queue, queue_arn = make_queue(box.aws, "on-call", sender="sns.amazonaws.com")
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=queue_arn)
    events = {name: box.outputs[name] for name in ("EventQueueUrl", "EventQueueArn")}
    table = {"SegmentTableName": box.outputs["SegmentTableName"], "PollSeconds": "1", "MaxTries": "8"}
    parameters = {
        "close-room": events | {"NotifyTopicArn": topic},
        "poll-record": events | table,
        "on-failure": {"OutcomeEventBusName": OUTCOME_BUS, "NotifyTopicArn": topic},
    }

    def deployed(name: str) -> str:
        """Deploy an example, and return the ARN of its state machine."""
        template = EXAMPLES / name / "template.yaml"
        return deploy(box.aws, parameters[name], template, f"example-{name}")["WorkflowArn"]

    with ThreadPoolExecutor() as threads:
        arns = dict(zip(parameters, threads.map(deployed, parameters), strict=True))
    return Examples(box, arns, topic, queue)


def room_end(room: Room, **more: object) -> dict[str, Any]:
    return {"AppId": APP_ID, "RoomId": room.id, "EventTime": rfc3339(now_ms()), **more}


class TestCloseRoom:
    def test_room_is_closed_and_closing_it_again_is_a_duplicate(self, examples: Examples, room: Room) -> None:
        room.start("audio")
        event = room_end(room, TaskId="audio", EventId="evt-1")
        status, output = examples.run("close-room", event)
        assert (status, output["Outcome"]) == ("SUCCEEDED", "stopped")
        assert output["Tasks"] == [
            {"TaskId": "audio", "Outcome": "stopped", "RequestId": room.requests()[0].request_id}
        ]
        assert (output["RoomId"], output["EventId"], output["EventTime"]) == (room.id, "evt-1", event["EventTime"])
        assert breaks(output, closed(schema("workflow-output"))) == []
        assert not room.is_running("audio")

        status, output = examples.run("close-room", event)
        assert (status, output["Outcome"]) == ("SUCCEEDED", "duplicate")
        assert room.stopped == ["audio"]

    def test_whole_room_is_closed_and_a_room_without_tasks_succeeds(self, examples: Examples, room: Room) -> None:
        room.start("audio", "screen")
        for task_id in ("audio", "screen"):
            assert room.end_of("SegmentStarted", TaskId=task_id) == ["known"]
        status, output = examples.run("close-room", {"AppId": APP_ID, "RoomId": room.id})
        assert (status, {task["Outcome"] for task in output["Tasks"]}) == ("SUCCEEDED", {"stopped"})
        assert room.stopped == ["audio", "screen"]

        status, output = examples.run("close-room", {"AppId": APP_ID, "RoomId": f"{room.id}-empty"})
        assert (status, output["Outcome"], output["Tasks"]) == ("SUCCEEDED", "no_open_tasks", [])

    def test_rejected_stop_fails_with_its_error_code_and_sends_a_notification(
        self, examples: Examples, observer: Observer, room: Room
    ) -> None:
        status, failed = examples.run("close-room", room_end(room, AppId="no-such-app", TaskId="audio"))
        assert (status, failed["Error"]) == ("FAILED", "InvalidParameter.NotExistAppId")
        assert failed["Cause"].startswith("rejected: task audio: ")
        assert examples.note(f"in room {room.id}")["Subject"] == "A room could not be closed"
        (letter,) = [letter for letter in observer.letters().values() if room.id in letter.body]
        assert letter.attributes["ErrorCode"] == failed["Error"]

        # Only the dead letter holds the task token.
        token = json.loads(letter.body)["TaskToken"]
        wait_for(lambda: [e for e in observer.outcome_events() if e["detail"].get("RoomId") == room.id], "an event")
        box = observer.box
        assert token not in observer.all_logs() + str(box.records()) + str(observer.outcome_events())
        assert room.id in observer.all_logs()

    def test_outage_shorter_than_the_time_out_only_delays_the_workflow(
        self, box: Sandbox, examples: Examples, room: Room
    ) -> None:
        room.start("audio")
        box.rtc.fail(SERVICE_UNAVAILABLE, task=(APP_ID, room.id, "audio"))
        execution = examples.start("close-room", room_end(room, TaskId="audio"))
        assert "retried" in room.outcomes(1)
        assert examples.status(execution) == "RUNNING"
        box.rtc.heal()
        ended = examples.end(execution)
        assert ended["status"] == "SUCCEEDED"
        assert json.loads(ended["output"])["Outcome"] == "stopped"


class TestPollRecord:
    def test_record_of_the_stop_is_found(self, examples: Examples, room: Room) -> None:
        room.start("audio")
        status, output = examples.run("poll-record", room_end(room, TaskId="audio"))
        assert (status, output) == (
            "SUCCEEDED",
            {"Outcome": "stopped", "RequestId": room.requests()[0].request_id},
        )

    @pytest.mark.long
    def test_workflow_fails_after_its_last_reading_without_a_record(self, examples: Examples, room: Room) -> None:
        status, failed = examples.run("poll-record", room_end(room, AppId="no-such-app", TaskId="audio"))
        assert (status, failed["Error"]) == ("FAILED", "NotRecorded")
        assert failed["Cause"] == "No stop was recorded after 8 readings"


class TestOnFailure:
    def test_failed_stop_starts_the_workflow_which_sends_a_notification(
        self, box: Sandbox, examples: Examples, room: Room
    ) -> None:
        box.send([json.dumps(room_end(room, EventType="RoomEnded", AppId="no-such-app", TaskId="audio")), room.id])
        note = examples.note(f"Room {room.id} of no-such-app")
        assert note["Subject"] == "Slicing may go on"
        assert "InvalidParameter.NotExistAppId" in note["Message"]
        assert examples.note("An unknown room")["Subject"] == "A sender breaks the message contract"

    def test_execution_fails_if_it_cannot_send_its_notification(
        self, box: Sandbox, examples: Examples, room: Room
    ) -> None:
        box.client("sns").delete_topic(TopicArn=examples.topic)
        box.send([json.dumps(room_end(room, EventType="RoomEnded", AppId="no-such-app", TaskId="audio"))])
        states = box.client("stepfunctions")
        failed = wait_for(
            lambda: states.list_executions(stateMachineArn=examples.arns["on-failure"], statusFilter="FAILED")[
                "executions"
            ],
            "an execution to fail",
        )
        assert len(failed) == 1
