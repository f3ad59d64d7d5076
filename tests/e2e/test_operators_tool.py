"""The operator's command line, against the deployed stack."""

import json
import os
import re
import signal
import subprocess
import time
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
    """Deploy a stack with an unshared dead-letter queue, which gives messages up at once."""
    with sandbox({"GiveUpAfterMinutes": "0"}) as running:
        yield running


@pytest.fixture(autouse=True)
def _empty_queue(stack: Sandbox) -> Iterator[None]:
    """Let each test begin without letters."""
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
    """Count the letters that wait, and those that a reader holds."""
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    attributes = (
        stack.aws.client("sqs")
        .get_queue_attributes(QueueUrl=stack.outputs["DeadLetterQueueUrl"], AttributeNames=names)
        .get("Attributes")
    )
    return int(attributes[names[0]]), int(attributes[names[1]])


def wait_until_served(stack: Sandbox) -> None:
    wait_for(lambda: stack.undone() == 0, "the event queue to be empty", seconds=120)


def stopped_rooms(stack: Sandbox) -> set[str]:
    return {room.split("#")[1] for (room, task), item in stack.records().items() if item.get("outcome") == "stopped"}


class TestRedrive:
    def test_many_letters_are_redriven_and_a_second_time_changes_nothing(self, stack: Sandbox, room_id: str) -> None:
        rooms = {f"{room_id}-{number}" for number in range(120)}
        for room in rooms:
            stack.rtc.start_task(APP_ID, room, "audio")
        bodies, event_time_ms = [room_ended(room) for room in sorted(rooms)], now_ms()

        write_letters(stack, bodies, event_time_ms=event_time_ms)
        done = run_tool(stack, "letters", "redrive", "--per-second", "200", "--yes")
        assert (done.returncode, done.stdout) == (0, "120 of 120 letters redriven.\n")
        assert re.search(r"Redriven .*120/120", done.stderr)
        wait_until_served(stack)
        assert letter_counts(stack) == (0, 0)
        assert rooms <= stopped_rooms(stack)

        records, requests = stack.records(), len(stack.rtc.requests)
        write_letters(stack, bodies, event_time_ms=event_time_ms)
        done = run_tool(stack, "letters", "redrive", "--per-second", "200", "--yes")
        assert (done.returncode, done.stdout) == (0, "120 of 120 letters redriven.\n")
        wait_until_served(stack)
        assert letter_counts(stack) == (0, 0)
        assert (stack.records(), len(stack.rtc.requests)) == (records, requests)

    def test_once_the_api_is_back_the_letters_that_it_caused_stop_their_tasks_but_no_task_that_has_started_since(
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

    def test_a_message_that_died_with_the_function_is_redriven_with_the_time_at_which_it_was_sent(
        self, stack: Sandbox, room_id: str
    ) -> None:
        stack.rtc.start_task(APP_ID, room_id, "audio")
        stack.aws.client("sqs").send_message(
            QueueUrl=stack.outputs["DeadLetterQueueUrl"], MessageBody=room_ended(room_id)
        )
        (letter,) = answer(stack, "letters", "show", "--kind", "died")["letters"]
        time.sleep(0.5)
        assert answer(stack, "letters", "redrive", "--kind", "died", "--yes")["done"] == 1
        wait_until_served(stack)
        assert stack.records()[f"{APP_ID}#{room_id}", "audio"]["stop_event_time"] == letter["EventTime"]

    @pytest.mark.long
    def test_a_dry_run_leaves_every_letter_and_so_does_a_selection_that_takes_none(
        self, stack: Sandbox, room_id: str
    ) -> None:
        write_letters(stack, [room_ended(room_id)])
        write_letters(stack, ["no JSON"], kind="invalid_message")
        dry = run_tool(stack, "letters", "redrive", "--kind", "exhausted")
        assert (dry.returncode, "Nothing was done. With --yes, 1 letter would be redriven." in dry.stdout) == (0, True)
        for selection in (("--code", "Other"), ("--older-than", "1h"), ("--app-id", "other"), ("--kind", "died")):
            assert answer(stack, "letters", "redrive", *selection, "--yes")["done"] == 0
        assert letter_counts(stack) == (2, 0)

    @pytest.mark.parametrize(
        ("number", "code"), [pytest.param(signal.SIGKILL, -9, marks=pytest.mark.long), (signal.SIGINT, 130)]
    )
    def test_ended_half_way_it_loses_nothing(
        self, stack: Sandbox, room_id: str, number: signal.Signals, code: int
    ) -> None:
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
            process.send_signal(number)
            told, errors = process.communicate(timeout=30)
        assert process.returncode == code
        left, held = letter_counts(stack)
        if number == signal.SIGINT:  # it gives the other letters back at once
            assert (told, held) == (f"{60 - left} of 60 letters redriven.\n", 0)
            assert "Interrupted" in errors
        else:
            assert "held by another reader" in run_tool(stack, "letters", "list").stderr
            wait_for(lambda: letter_counts(stack)[1] == 0, "the letters to show up again", seconds=90)
        left, _ = letter_counts(stack)
        assert 0 < left <= 40
        assert answer(stack, "letters", "redrive", "--yes")["done"] == left
        wait_until_served(stack)
        assert rooms <= {room.split("#")[1] for room, _ in stack.records()}
        assert letter_counts(stack) == (0, 0)

    @pytest.mark.long
    def test_where_the_event_queue_refuses_every_letter_stays(self, stack: Sandbox, room_id: str) -> None:
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


class TestPurge:
    def test_nothing_is_purged_without_a_copy(self, stack: Sandbox, tmp_path: Path) -> None:
        write_letters(stack, ["no JSON"], kind="invalid_message")
        taken = tmp_path / "taken.jsonl"
        taken.write_text("the letters of yesterday")
        assert run_tool(stack, "letters", "purge", "--yes").returncode == 2
        assert run_tool(stack, "letters", "purge", "--yes", "--save", str(taken)).returncode == 2
        assert run_tool(stack, "letters", "purge", "--yes", "--save", str(tmp_path / "no folder" / "f")).returncode == 1
        assert run_tool(stack, "letters", "purge", "--save", str(tmp_path / "dry.jsonl")).returncode == 0
        assert [path.name for path in tmp_path.iterdir()] == ["taken.jsonl"]
        assert letter_counts(stack) == (1, 0)

    @pytest.mark.long
    def test_what_was_purged_can_be_restored(self, stack: Sandbox, room_id: str, tmp_path: Path) -> None:
        write_letters(stack, [room_ended(room_id)], kind="rejected", event_time_ms=now_ms() - HOUR_MS)
        write_letters(stack, ["no JSON \x7f \u202e"], kind="invalid_message")
        before = answer(stack, "letters", "show")["letters"]
        file = str(tmp_path / "purged.jsonl")
        assert answer(stack, "letters", "purge", "--save", file, "--kind", "rejected", "--yes")["done"] == 1
        assert letter_counts(stack) == (1, 0)
        assert answer(stack, "letters", "restore", file)["done"] == 1
        assert sorted(answer(stack, "letters", "show")["letters"], key=str) == sorted(before, key=str)


@pytest.mark.long
def test_who_redrives_letters_that_cannot_work_is_warned(stack: Sandbox, room_id: str) -> None:
    write_letters(stack, [room_ended(room_id)])
    assert "will fail again" not in run_tool(stack, "letters", "redrive").stderr
    write_letters(stack, ["no JSON"], kind="invalid_message")
    write_letters(stack, [room_ended(room_id)], kind="rejected")
    warned = run_tool(stack, "letters", "redrive").stderr
    assert warned.startswith("2 letters of the kind invalid_message or rejected will fail again")
    assert "will fail again" not in run_tool(stack, "letters", "redrive", "--kind", "exhausted").stderr


@pytest.mark.long
def test_no_more_letters_are_shown_than_are_asked_for(stack: Sandbox, room_id: str) -> None:
    write_letters(stack, [room_ended(room_id, f"task-{n}") for n in range(3)])
    shown = answer(stack, "letters", "show", "--limit", "2")
    assert (len(shown["letters"]), shown["left_off"]) == (2, 1)
    assert "--limit leaves out 1 letter." in run_tool(stack, "letters", "show", "--limit", "2").stdout
    assert answer(stack, "letters", "show", "--limit", "3")["left_off"] == 0


def test_a_room_is_told_with_all_that_the_table_knows(stack: Sandbox, room_id: str) -> None:
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
    told = run_tool(stack, "room", APP_ID, room_id).stdout
    assert "the room itself: ended" in told
    assert re.search(r"task audio: stopped\n +started +2026-11-01 10:00:00.000 UTC", told)
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


class TestSet:
    @staticmethod
    def deployed(stack: Sandbox) -> dict[str, str]:
        """Return the code and settings of the deployed stop function."""
        name = stack.outputs["StopSegmentFunctionName"]
        function = stack.aws.client("lambda").get_function_configuration(FunctionName=name)
        variables = function["Environment"]["Variables"]
        return {"code": function["CodeSha256"], **{key: variables[key] for key in ("MAX_CONCURRENCY", "RTC_QPS_LIMIT")}}

    def test_a_parameter_is_changed_and_the_code_is_not(self, stack: Sandbox, room_id: str) -> None:
        before = self.deployed(stack)
        assert answer(stack, "set", "MaxConcurrency=7")["after"] == {"MaxConcurrency": "7"}
        assert self.deployed(stack) == before

        assert answer(stack, "set", "MaxConcurrency=7", "--yes")["before"] == {"MaxConcurrency": "4"}

        assert self.deployed(stack) == before | {"MAX_CONCURRENCY": "7"}
        assert answer(stack, "set", "MaxConcurrency=7", "--yes")["after"] == {}
        number_the_concurrency(stack.aws)
        stack.rtc.start_task(APP_ID, room_id, "audio")
        stack.send([room_ended(room_id)])
        wait_for(lambda: not stack.rtc.is_running(APP_ID, room_id, "audio"), "the task to be stopped")

    def test_a_value_out_of_its_range_is_refused_by_the_name_of_its_parameter(self, stack: Sandbox) -> None:
        before = self.deployed(stack)
        done = run_tool(stack, "set", "RtcQpsLimit=4", "--yes")
        assert (done.returncode, done.stdout) == (3, "")
        assert re.search(r"RtcQpsLimit.* must be a number not less than 5", done.stderr)
        assert self.deployed(stack) == before

    def test_an_unknown_parameter_ends_in_a_sentence(self, stack: Sandbox) -> None:
        done = run_tool(stack, "set", "MaxConcurency=7", "--yes")
        assert (done.returncode, done.stdout) == (2, "")
        assert "MaxConcurency is not a parameter: did you mean MaxConcurrency?" in done.stderr


class TestTroubles:
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
    def test_each_ends_in_a_sentence(
        self, stack: Sandbox, arguments: tuple[str, ...], stack_name: str, changes: dict[str, str | None], sentence: str
    ) -> None:
        away = {"AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": os.devnull, "HOME": "/nonexistent"}
        done = run_tool(stack, *arguments, stack_name=stack_name, **(away | changes))
        assert (done.returncode, done.stdout) == (3, "")
        assert sentence in done.stderr
        assert "Traceback" not in done.stderr
