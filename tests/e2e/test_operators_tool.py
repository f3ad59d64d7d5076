"""The operators' command `stopper`, against a deployed stack."""

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from sandbox.faults import INTERNAL_ERROR
from sandbox.stack import ROOT, STACK_NAME, Sandbox, number_the_concurrency, sandbox, wait_for
from segments.errors import InvalidMessage, Rejected, Retryable, StopError
from segments.times import now_ms
from stop_segment.arrivals import Arrival
from stop_segment.failures import Failure
from stop_segment.queues import Queues
from tests.e2e.operator import command, environment, run_tool

APP_ID = "661e"
HOUR_MS = 3_600_000
LIST = ("letters", "list")
ROOM = ("room", APP_ID, "room-1")
KINDS: dict[str, StopError] = {
    "exhausted": Retryable("InternalError", "the API answered HTTP 500", "20261122REQUEST"),
    "invalid_message": InvalidMessage("NotJson", "the body is not JSON"),
    "rejected": Rejected("InvalidParameter.NotExistAppId", "the API answered HTTP 400"),
}


@pytest.fixture(scope="module")
def stack() -> Iterator[Sandbox]:
    """Deploy a dedicated stack, because tests empty its dead-letter queue. The stack retries messages only for a short
    time."""
    with sandbox({"GiveUpAfterMinutes": "0"}) as running:
        yield running


@pytest.fixture(autouse=True)
def _empty_queue(stack: Sandbox) -> Iterator[None]:
    """Remove all dead letters before a test, and all faults of the API after it."""
    stack.dead_letters()
    yield
    stack.rtc.heal()


@pytest.fixture
def room_id() -> str:
    return f"room-{uuid4().hex}"


def answer(stack: Sandbox, *arguments: str) -> Any:
    done = run_tool(stack, *arguments, "--output", "json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def room_ended(room_id: str, task_id: str = "audio") -> str:
    return json.dumps({"EventType": "RoomEnded", "AppId": APP_ID, "RoomId": room_id, "TaskId": task_id})


def write_letters(
    stack: Sandbox, bodies: list[str], *, kind: str = "exhausted", event_time_ms: int | None = None
) -> None:
    """Write dead letters as the function does."""
    queues = Queues(stack.aws.client("sqs"), stack.outputs["EventQueueUrl"], stack.outputs["DeadLetterQueueUrl"], "")
    time_ms = now_ms() if event_time_ms is None else event_time_ms
    failures = [
        Failure(Arrival(f"source-{n}", "handle", body, time_ms, 3), KINDS[kind]) for n, body in enumerate(bodies)
    ]
    assert len(queues.send_dead_letters([(failure, kind) for failure in failures], now_ms())) == len(bodies)


def letter_counts(stack: Sandbox) -> tuple[int, int]:
    """Return how many letters wait, and how many a reader holds."""
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    attributes = (
        stack.aws.client("sqs")
        .get_queue_attributes(QueueUrl=stack.outputs["DeadLetterQueueUrl"], AttributeNames=names)
        .get("Attributes")
    )
    return int(attributes[names[0]]), int(attributes[names[1]])


def wait_until_served(stack: Sandbox) -> None:
    wait_for(lambda: stack.undone() == 0, "the event queue to be empty", seconds=120)


class TestRedrive:
    def test_many_letters_are_redriven_and_a_second_redrive_changes_nothing(self, stack: Sandbox, room_id: str) -> None:
        rooms = {f"{room_id}-{number}" for number in range(120)}
        for room in rooms:
            stack.rtc.start_task(APP_ID, room, "audio")
        event_time_ms, ends = now_ms(), []
        for _ in range(2):
            write_letters(stack, [room_ended(room) for room in sorted(rooms)], event_time_ms=event_time_ms)
            done = run_tool(stack, "letters", "redrive", "--per-second", "200", "--yes")
            assert (done.returncode, done.stdout) == (0, "120 of 120 letters redriven.\n")
            assert re.search(r"Redriven .*120/120", done.stderr)
            wait_until_served(stack)
            assert letter_counts(stack) == (0, 0)
            ends.append((stack.records(), len(stack.rtc.requests)))
        assert ends[0] == ends[1]
        stopped = {room for (room, _), item in stack.records().items() if item.get("outcome") == "stopped"}
        assert {f"{APP_ID}#{room}" for room in rooms} <= stopped

    def test_letters_redriven_after_an_outage_stop_their_tasks_but_no_task_that_started_since(
        self, stack: Sandbox, room_id: str
    ) -> None:
        for task_id in ("audio", "restarted"):
            stack.rtc.start_task(APP_ID, room_id, task_id)
        stack.rtc.fail(INTERNAL_ERROR)
        sent_ids = stack.send([room_ended(room_id, "audio"), room_ended(room_id, "restarted")])
        wait_for(lambda: letter_counts(stack) == (2, 0), "the dead letters", seconds=120)
        listed = answer(stack, "letters", "list", "--room-id", room_id)
        assert [(one["ErrorKind"], one["count"]) for one in listed["groups"]] == [("exhausted", 2)]
        shown = answer(stack, "letters", "show", "--id", sent_ids[0])
        assert [letter["Body"] for letter in shown["letters"]] == [room_ended(room_id, "audio")]

        stack.rtc.heal()
        stack.rtc.start_task(APP_ID, room_id, "restarted")
        stack.send([json.dumps(json.loads(room_ended(room_id, "restarted")) | {"EventType": "SegmentStarted"})])
        wait_until_served(stack)
        assert answer(stack, "letters", "redrive", "--room-id", room_id, "--yes")["done"] == 2
        wait_until_served(stack)
        assert not stack.rtc.is_running(APP_ID, room_id, "audio")
        assert stack.rtc.is_running(APP_ID, room_id, "restarted")
        assert letter_counts(stack) == (0, 0)

    @pytest.mark.long
    def test_only_selected_letters_are_shown_and_none_moves_without_yes(self, stack: Sandbox, room_id: str) -> None:
        write_letters(stack, [room_ended(room_id, f"task-{number}") for number in range(3)])
        write_letters(stack, ["no JSON"], kind="invalid_message")
        shown = answer(stack, "letters", "show", "--kind", "exhausted", "--limit", "2")
        assert (len(shown["letters"]), shown["left_off"]) == (2, 1)
        dry = run_tool(stack, "letters", "redrive", "--kind", "exhausted")
        assert dry.stdout.endswith("Nothing was done. With --yes, 3 letters would be redriven.\n")
        assert dry.stderr == ""
        warned = run_tool(stack, "letters", "redrive").stderr
        assert warned.startswith("1 letter of the kind invalid_message will fail again")
        for selection in (("--code", "Other"), ("--older-than", "1h"), ("--app-id", "other"), ("--kind", "died")):
            assert answer(stack, "letters", "redrive", *selection, "--yes")["done"] == 0
        assert letter_counts(stack) == (4, 0)

        queue = {"QueueUrl": stack.outputs["DeadLetterQueueUrl"]}
        (held,) = stack.aws.client("sqs").receive_message(**queue, MaxNumberOfMessages=1)["Messages"]
        assert "Another reader, perhaps a killed command, holds" in run_tool(stack, "letters", "list").stderr
        stack.aws.client("sqs").delete_message(**queue, ReceiptHandle=held["ReceiptHandle"])

    def test_interrupted_redrive_gives_back_the_other_letters(self, stack: Sandbox, room_id: str) -> None:
        rooms = {f"{room_id}-{number}" for number in range(60)}
        write_letters(stack, [room_ended(room) for room in rooms])
        with subprocess.Popen(
            command("letters", "redrive", "--per-second", "10", "--yes"),
            cwd=ROOT,
            env=environment(stack),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            wait_for(lambda: sum(letter_counts(stack)) <= 40, "some letters to be redriven")
            process.send_signal(signal.SIGINT)
            printed, errors = process.communicate(timeout=30)
        left, held = letter_counts(stack)
        assert (process.returncode, printed, held) == (130, f"{60 - left} of 60 letters redriven.\n", 0)
        assert "Interrupted" in errors
        assert 0 < left <= 40
        assert answer(stack, "letters", "redrive", "--yes")["done"] == left
        wait_until_served(stack)
        assert rooms <= {room.split("#")[1] for room, _ in stack.records()}
        assert letter_counts(stack) == (0, 0)

    @pytest.mark.long
    def test_every_letter_stays_if_the_event_queue_refuses_them(self, stack: Sandbox, room_id: str) -> None:
        write_letters(stack, [room_ended(f"{room_id}-{number}") for number in range(12)])
        iam = stack.aws.client("iam")
        iam.create_user(UserName=room_id)
        statements = [
            {"Effect": "Allow", "Action": ["cloudformation:*", "sqs:*"], "Resource": "*"},
            {"Effect": "Deny", "Action": "sqs:SendMessage*", "Resource": stack.outputs["EventQueueArn"]},
        ]
        policy = json.dumps({"Version": "2012-10-17", "Statement": statements})
        iam.put_user_policy(UserName=room_id, PolicyName="reader", PolicyDocument=policy)
        key = iam.create_access_key(UserName=room_id)["AccessKey"]
        done = run_tool(
            stack,
            *("letters", "redrive", "--yes"),
            AWS_ACCESS_KEY_ID=key["AccessKeyId"],
            AWS_SECRET_ACCESS_KEY=key["SecretAccessKey"],
        )
        assert (done.returncode, done.stdout) == (3, "0 of 12 letters redriven.\n")
        assert "AccessDenied" in done.stderr
        assert "Traceback" not in done.stderr
        assert letter_counts(stack) == (12, 0)


@pytest.mark.long
def test_purged_letters_are_saved_first_and_can_be_restored(stack: Sandbox, room_id: str, tmp_path: Path) -> None:
    write_letters(stack, [room_ended(room_id)], kind="rejected", event_time_ms=now_ms() - HOUR_MS)
    write_letters(stack, ["no JSON \x7f \u202e"], kind="invalid_message")
    before = answer(stack, "letters", "show")["letters"]
    purge, file = ("letters", "purge", "--kind", "rejected"), tmp_path / "purged.jsonl"
    assert run_tool(stack, *purge, "--yes").returncode == 2
    assert run_tool(stack, *purge, "--yes", "--save", str(tmp_path / "no folder" / "file")).returncode == 1
    assert run_tool(stack, *purge, "--save", str(file)).returncode == 0
    assert not file.exists()
    assert letter_counts(stack) == (2, 0)
    assert answer(stack, *purge, "--save", str(file), "--yes")["done"] == 1
    assert letter_counts(stack) == (1, 0)
    assert run_tool(stack, *purge, "--save", str(file), "--yes").returncode == 2
    assert answer(stack, "letters", "restore", str(file))["done"] == 1
    assert sorted(answer(stack, "letters", "show")["letters"], key=str) == sorted(before, key=str)


def test_room_and_open_show_everything_in_the_table(stack: Sandbox, room_id: str) -> None:
    stack.rtc.start_task(APP_ID, room_id, "audio")
    started = json.loads(room_ended(room_id)) | {"EventType": "SegmentStarted", "EventTime": "2026-11-01T10:00:00Z"}
    stack.send([json.dumps(started)])
    wait_until_served(stack)
    (listed,) = (one for one in answer(stack, "open")["tasks"] if one["room_id"] == room_id)
    assert (listed["app_id"], listed["task_id"], listed["open_since"]) == (APP_ID, "audio", 1_793_527_200_000)
    assert re.search(rf"\d+ d +{APP_ID} +\S+ +audio *$", run_tool(stack, "open").stdout, re.MULTILINE)
    ended = {"EventType": "RoomEnded", "AppId": APP_ID, "RoomId": room_id, "EventId": "evt-1"}
    stack.send([json.dumps(ended)])
    wait_until_served(stack)
    known = answer(stack, "room", APP_ID, room_id)
    plain = stack.records()
    assert known["items"] == [
        {name: value for name, value in plain[f"{APP_ID}#{room_id}", task_id].items() if name != "room"}
        for task_id in ("#room", "audio")
    ]
    printed = run_tool(stack, "room", APP_ID, room_id).stdout
    assert "the room itself: ended" in printed
    assert re.search(r"task audio: stopped\n +started +2026-11-01 10:00:00.000 UTC", printed)
    unknown = run_tool(stack, "room", APP_ID, "nowhere")
    assert (unknown.returncode, unknown.stdout) == (1, "The table has no record of this room.\n")


def test_a_paused_stack_stops_nothing_until_it_is_resumed(stack: Sandbox, room_id: str) -> None:
    stack.rtc.start_task(APP_ID, room_id, "audio")
    paused = run_tool(stack, "pause")
    assert paused.returncode == 0, paused.stderr
    assert paused.stdout.startswith("Paused: nothing is stopped from now on. 0 events wait on the queue, 0 in work.\n")
    stack.send([room_ended(room_id)])
    assert answer(stack, "pause") == {"state": "Disabled", "waiting": 1, "in_work": 0}
    assert stack.rtc.is_running(APP_ID, room_id, "audio")

    assert answer(stack, "resume")["state"] == "Enabled"
    wait_until_served(stack)
    assert not stack.rtc.is_running(APP_ID, room_id, "audio")


def test_set_changes_a_parameter_but_not_the_code(stack: Sandbox) -> None:
    def deployed() -> dict[str, str]:
        name = stack.outputs["StopSegmentFunctionName"]
        function = stack.aws.client("lambda").get_function_configuration(FunctionName=name)
        return {"CODE": function["CodeSha256"], **function["Environment"]["Variables"]}

    before = deployed()
    for assignment, code, refusal in (
        ("MaxConcurency=7", 2, "MaxConcurency is not a parameter: did you mean MaxConcurrency?"),
        ("RtcQpsLimit=4", 3, r"RtcQpsLimit.* must be a number not less than 5"),
    ):
        done = run_tool(stack, "set", assignment, "--yes")
        assert (done.returncode, done.stdout) == (code, "")
        assert re.search(refusal, done.stderr)
    assert answer(stack, "set", "MaxConcurrency=7")["after"] == {"MaxConcurrency": "7"}
    assert deployed() == before

    assert answer(stack, "set", "MaxConcurrency=7", "--yes")["before"] == {"MaxConcurrency": "4"}

    assert deployed() == before | {"MAX_CONCURRENCY": "7"}
    assert answer(stack, "set", "MaxConcurrency=7", "--yes")["after"] == {}
    number_the_concurrency(stack.aws)


@pytest.mark.parametrize(
    ("arguments", "stack_name", "changes", "sentence"),
    [
        (LIST, "nowhere", {}, "there is no stack 'nowhere' in us-east-1"),
        (ROOM, STACK_NAME, {"AWS_ACCESS_KEY_ID": None, "AWS_SECRET_ACCESS_KEY": None}, "Unable to locate cred"),
        (LIST, STACK_NAME, {"AWS_DEFAULT_REGION": None}, "You must specify a region"),
        (ROOM, STACK_NAME, {"AWS_ENDPOINT_URL": "https://127.0.0.1:1"}, "Could not connect"),
        (LIST, STACK_NAME, {"AWS_ENDPOINT_URL": "no URL"}, "Invalid endpoint"),
    ],
)
def test_a_command_that_cannot_reach_its_stack_says_why(
    stack: Sandbox, arguments: tuple[str, ...], stack_name: str, changes: dict[str, str | None], sentence: str
) -> None:
    away = {"AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": os.devnull, "HOME": "/nonexistent"}
    done = run_tool(stack, *arguments, stack_name=stack_name, **(away | changes))
    assert (done.returncode, done.stdout) == (3, "")
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
