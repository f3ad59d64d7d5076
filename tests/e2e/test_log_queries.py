"""The queries of docs/queries.md and the commands of the runbook find the troubles of a stack."""

from __future__ import annotations

import json
import re
import sqlite3
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from sandbox.callbacks import callback
from sandbox.faults import INTERNAL_ERROR, Fault
from sandbox.shell import settings
from sandbox.stack import ROOT, Sandbox, wait_for
from tests.e2e.insights import Row, insights
from tests.e2e.observer import APP_ID, Observer, Room, now_ms, rfc3339

PAGE = (ROOT / "docs" / "operations.md").read_text()
QUERIES_PAGE = (ROOT / "docs" / "queries.md").read_text()
ROOM_OF_THE_PAGE = "room-1"
MESSAGE_OF_THE_PAGE = "0d2d2d6c-6b0e-4e4e-9c56-7a4c2b3f1a52"


@dataclass(frozen=True)
class Query:
    title: str
    log_group: str
    text: str


def queries() -> list[Query]:
    """Return the queries of the queries page and of the runbook's commands."""
    own = re.findall(r"^### (.+?)\n(.*?)^```insights\n(.*?)^```", QUERIES_PAGE, re.MULTILINE | re.DOTALL)
    of_commands = re.findall(r"^insights (\w+) \d+ '([^']+)'", PAGE, re.MULTILINE)
    assert len(own) == QUERIES_PAGE.count("```insights\n")
    assert len(of_commands) == PAGE.count("\ninsights ")
    return [
        *(Query(title, (re.findall(r"`(\w+LogGroup)`", where) or ["StopSegmentLogGroup"])[0], text)
          for title, where, text in own),
        *(Query(f"command {number}", log_group, text) for number, (log_group, text) in enumerate(of_commands)),
    ]  # fmt: skip


def log_of(observer: Observer, log_group: str) -> list[Row]:
    """Return the lines of a log, with the fields that Logs Insights finds in them."""
    pages = (
        observer.box.client("logs")
        .get_paginator("filter_log_events")
        .paginate(logGroupName=observer.resource(log_group))
    )
    lines = [
        {"@timestamp": event["timestamp"], "@message": line}
        for page in pages
        for event in page["events"]
        for line in event["message"].splitlines()
    ]
    return [{**line, **_json_fields(line["@message"])} for line in lines]


def _json_fields(line: str) -> Row:
    try:
        content = json.loads(line)
    except ValueError:
        return {}
    if not isinstance(content, dict):
        return {}
    items = {
        f"{name}.{n}": item
        for name, value in content.items()
        if isinstance(value, list)
        for n, item in enumerate(value)
    }
    return {name: value for name, value in {**content, **items}.items() if value is not None}


@dataclass(frozen=True)
class Trouble:
    """A room that was stopped at the second try, the message of its end, and the logs of every function."""

    room: Room
    message_id: str
    logs: Mapping[str, list[Row]]


@pytest.fixture(scope="module")
def trouble(box: Sandbox, observer: Observer) -> Trouble:
    """Cause everything that the pages have a query for."""

    def room(name: str) -> Room:
        return Room(observer, f"{name}-{now_ms()}")

    retried, restarted, orphan = room("retried"), room("restarted"), room("orphan")
    unpublished, observed = room("unpublished"), room("observed")
    for one in (retried, orphan, observed):
        one.start("audio", at_ms=now_ms() - 1_000)
    box.rtc.fail(INTERNAL_ERROR, next_requests=1, task=(APP_ID, retried.id, "audio"))
    ends = {
        retried.event("RoomEnded", TaskId="audio"): ["stopped"],
        room("unknown").event("RoomEnded"): ["no_open_tasks"],
        room("bad").event("RoomEnd"): ["invalid_message"],
        restarted.event("SegmentStarted", TaskId="audio"): ["known"],
        room("unswept").event("SegmentStarted", TaskId="audio"): ["known"],
        orphan.event("RoomGone", TaskIds=["audio"]): ["stopped"],
    }
    message_ids = box.send(list(ends))
    end = callback("RoomDestroy", {"RoomId": room("called").id}, rfc3339(now_ms()), app_id=APP_ID)
    with observer.without_permission("ReceiveCallbackRole", "QueueCallbacks"):
        assert box.call_back(end) == 503
    assert [box.call_back(end), box.call_back(end | {"Signature": "forged"}), box.call_back({})] == [200, 401, 400]
    box.invoke("StopSegmentFunction", {})  # this invocation fails, because every event of SQS has Records
    assert observer.ends(message_ids) == dict(zip(message_ids, ends.values(), strict=True))
    day_before = rfc3339(now_ms() - 86_400_000)
    with observer.without_permission("StopSegmentRole", "ReportFailures"):
        (unanswered,) = box.send([room("unanswered").event("RoomEnded", TaskId="audio", TaskToken="t")])
        observer.retried(unanswered)
    with (
        observer.without_permission("PublishOutcomeRole", "Publish"),
        observer.without_permission("PublishOutcomeRole", "AnswerWorkflows"),
    ):
        assert room("waited-for").end_of("RoomEnded", TaskId="audio", TaskToken="t") == ["already_stopped"]
        assert restarted.end_of("RoomEnded", TaskId="audio", EventTime=day_before) == ["superseded"]
        assert unpublished.end_of("RoomEnded", TaskId="audio") == ["already_stopped"]
        wait_for(
            lambda: (
                {"reason", "reasons"} <= {name for line in log_of(observer, "PublishOutcomeLogGroup") for name in line}
            ),
            "an event that is not published and a workflow that is not answered",
        )
    wait_for(
        lambda: any("Traceback" in line["@message"] for line in log_of(observer, "StopSegmentLogGroup")), "a traceback"
    )
    observer.renew_function("StopSegmentFunction", MODE="observe")
    assert observed.end_of("RoomEnded", TaskId="audio") == ["would_stop"]
    observer.renew_function("StopSegmentFunction", MODE="stop")
    box.rtc.fail(Fault("error", status=403, code="AccessDenied"))
    box.invoke("SweepRoomsFunction", {})
    box.rtc.heal()
    groups = ("StopSegmentLogGroup", "ReceiveCallbackLogGroup", "PublishOutcomeLogGroup", "SweepRoomsLogGroup")
    return Trouble(retried, message_ids[0], {group: log_of(observer, group) for group in groups})


@pytest.mark.long
@pytest.mark.parametrize("query", queries(), ids=lambda query: query.title)
def test_every_query_finds_lines_with_values(trouble: Trouble, query: Query) -> None:
    text = query.text.replace(f'"{ROOM_OF_THE_PAGE}"', f'"{trouble.room.id}"')
    rows = insights(text.replace(MESSAGE_OF_THE_PAGE, trouble.message_id), trouble.logs[query.log_group])
    assert rows
    assert [row for row in rows if not any(value is not None for value in row.values())] == []


@pytest.mark.long
def test_history_of_a_room_shows_how_its_stop_failed_and_succeeded(trouble: Trouble) -> None:
    (query,) = [query for query in queries() if query.title == "History of a room"]
    rows = insights(query.text.replace(ROOM_OF_THE_PAGE, trouble.room.id), trouble.logs[query.log_group])
    # A failed try logs a line for the task, then one for its message.
    assert [row["message"] for row in rows] == ["task failed", "retried", "stopped"]
    assert [row.get("error_code") for row in rows] == ["InternalError", "InternalError", None]
    assert [row["receive_count"] for row in rows] == [1, 1, 2]


@pytest.mark.long
@pytest.mark.parametrize(
    "field",
    re.findall(r"^\| ((?:`\w+`(?:, )?)+) \| \w", QUERIES_PAGE.partition("## Queries")[0], re.MULTILINE),
)
def test_every_field_of_the_page_is_in_a_log_line(trouble: Trouble, field: str) -> None:
    known = {name for lines in trouble.logs.values() for line in lines for name in line}
    # Embedded AWS has no trace ids. tests/unit/test_log_bounds.py has messages with many tasks.
    elsewhere = {"xray_trace_id", "tasks", "task_ids"}
    assert {name for name in re.findall(r"`(\w+)`", field) if name not in known} <= elsewhere


def shell_blocks(text: str) -> list[str]:
    found: list[str] = re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return found


def look_first_commands() -> list[Any]:
    sections = re.findall(r"^### (.+?)\n(.*?)(?=^##)", PAGE.partition("## Alarms")[2], re.MULTILINE | re.DOTALL)
    commands = [(heading, shell_blocks(text.partition("**Look first:**")[2])) for heading, text in sections]
    return [pytest.param(blocks[0], id=heading) for heading, blocks in commands if blocks]


def run_in_shell(box: Sandbox, command: str) -> subprocess.CompletedProcess[str]:
    preamble = shell_blocks(PAGE)[1].replace("sleep 5", ":")
    return subprocess.run(
        ["/usr/bin/env", "bash", "-euo", "pipefail", "-c", settings(box) + preamble + command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.long
@pytest.mark.usefixtures("trouble")
@pytest.mark.parametrize("command", look_first_commands())
def test_look_first_command_of_each_alarm_runs(box: Sandbox, command: str) -> None:
    done = run_in_shell(box, command)
    # `status` exits with 1 if something is wrong, as it is here.
    assert done.returncode in ((0, 1) if "stopper status" in command else (0,)), done.stderr
    assert "None" not in done.stderr


def test_drill_of_the_runbook_sets_an_alarm(box: Sandbox, observer: Observer) -> None:
    (command,) = [block for block in shell_blocks(PAGE) if "set-alarm-state" in block]
    done = run_in_shell(box, command)
    assert done.returncode == 0, done.stderr
    name = observer.resource("DeadLettersAlarm")
    (alarm,) = box.client("cloudwatch").describe_alarms(AlarmNames=[name])["MetricAlarms"]
    assert (alarm["StateValue"], alarm["StateReason"]) == ("ALARM", "a drill")


def test_script_of_the_runbook_sends_undelivered_events_to_the_event_queue(
    box: Sandbox, observer: Observer, room: Room
) -> None:
    room.start("audio")
    event = {
        "detail-type": "RoomEnded",
        "time": rfc3339(now_ms() // 1000 * 1000),
        "detail": {"AppId": APP_ID, "RoomId": room.id, "TaskId": "audio"},
    }
    queue = observer.resource("UndeliveredEventQueue")
    box.client("sqs").send_message(QueueUrl=queue, MessageBody=json.dumps(event))
    (script,) = [block for block in shell_blocks(PAGE) if "UndeliveredEventQueue" in block and "PYTHON" in block]

    done = run_in_shell(box, script)

    assert done.returncode == 0, done.stderr
    assert room.outcomes(1) == ["stopped"]
    assert "Messages" not in box.client("sqs").receive_message(QueueUrl=queue)


def test_insights_refuses_what_it_does_not_understand_and_answers_another_query() -> None:
    lines = [{"@timestamp": time_ms, "wait": n, "kind": "a"} for n, time_ms in enumerate((1_000, 2_000, 301_000))]
    for text in ("filter wait ~ 1", "sort wait sideways", "dedup wait", "stats median(wait)", "filter other = 1"):
        with pytest.raises((sqlite3.OperationalError, KeyError)):
            insights(text, lines)
    query = (
        'filter kind in ["a", "b"] and wait >= 0 | stats count_distinct(kind) as n, max(wait) as most by bin(5m) as t'
    )
    assert insights(query, lines) == [{"n": 1, "most": 1, "t": 0}, {"n": 1, "most": 2, "t": 300_000}]
