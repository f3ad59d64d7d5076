"""The runbook's commands and the queries of docs/queries.md, on a stack with the troubles that they look for."""

from __future__ import annotations

import json
import operator
import re
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from sandbox.callbacks import callback
from sandbox.faults import INTERNAL_ERROR, Fault
from sandbox.shell import settings
from sandbox.stack import ROOT, STACK_NAME, Sandbox, wait_for
from tests.e2e.observer import APP_ID, Observer, Room, now_ms, rfc3339

PAGE = (ROOT / "docs" / "operations.md").read_text()
QUERIES_PAGE = (ROOT / "docs" / "queries.md").read_text()
METRICS_PAGE = (ROOT / "docs" / "metrics.md").read_text()
ROOM_OF_THE_PAGE = "room-1"
MESSAGE_OF_THE_PAGE = "0d2d2d6c-6b0e-4e4e-9c56-7a4c2b3f1a52"

# A log line, or a row of a result: values by field.
Row = Mapping[str, Any]
Expression = Callable[[Row], Any]


class Insights:
    """A query in as much of the CloudWatch Logs Insights language as the page uses; anything else is a ValueError.

    Embedded AWS knows no JSON fields and leaves out what it does not understand, which would prove nothing.
    """

    _TOKEN = re.compile(
        r"""\s*(?:(?P<text>"[^"]*")|(?P<pattern>/(?:\\.|[^/\\])+/)|(?P<time>\d+[smhd]\b)|(?P<number>\d+)"""
        r"""|(?P<name>[@A-Za-z_][\w.@]*)|(?P<sign>!=|<=|>=|[-()\[\],*=<>]))"""
    )
    _SECONDS: Mapping[str, int] = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
    _COMPARISONS: Mapping[str, Callable[[Any, Any], bool]] = {
        "=": operator.eq,
        "!=": operator.ne,
        "<": operator.lt,
        ">": operator.gt,
        "<=": operator.le,
        ">=": operator.ge,
    }

    def __init__(self, query: str) -> None:
        self.fields: set[str] = set()
        self._tokens: list[tuple[str, str]] = []
        self._aliases: set[str] = set()
        # No pattern of the page holds "| ": a stage begins at one.
        self._stages = [self._stage(text) for text in re.split(r"\|\s", query.strip())]

    def run(self, lines: Sequence[Row]) -> list[Row]:
        rows = list(lines)
        for stage in self._stages:
            rows = stage(rows)
        return rows

    def _stage(self, text: str) -> Callable[[list[Row]], list[Row]]:
        command, _, rest = text.strip().partition(" ")
        self._tokens = self._scan(rest)
        stage: Callable[[list[Row]], list[Row]] = {
            "fields": self._fields,
            "filter": self._filter,
            "stats": self._stats,
            "sort": self._sort,
            "limit": self._limit,
        }[command]()
        if self._tokens:
            raise ValueError(f"{command} does not understand {self._tokens[0][1]!r}")
        return stage

    def _scan(self, text: str) -> list[tuple[str, str]]:
        tokens, at = [], 0
        text = text.rstrip()
        while at < len(text):
            found = self._TOKEN.match(text, at)
            if not found or not found.lastgroup:
                raise ValueError(f"not understood: {text[at:]!r}")
            tokens.append((found.lastgroup, found[found.lastgroup]))
            at = found.end()
        return tokens

    def _next(self) -> str:
        return self._tokens[0][1] if self._tokens else ""

    def _take(self) -> tuple[str, str]:
        return self._tokens.pop(0)

    def _take_if(self, *texts: str) -> str | None:
        return self._take()[1] if self._next() in texts else None

    def _expect(self, text: str) -> None:
        if not self._take_if(text):
            raise ValueError(f"{text!r} is missing before {self._next()!r}")

    def _listed(self, item: Callable[[], Any]) -> list[Any]:
        items = [item()]
        while self._take_if(","):
            items.append(item())
        return items

    def _named(self, item: Callable[[], Expression]) -> tuple[str, Expression]:
        before = list(self._tokens)
        expression = item()
        name = "".join(text for _, text in before[: len(before) - len(self._tokens)])
        if self._take_if("as"):
            _, name = self._take()
            self._aliases.add(name)
        return name, expression

    def _fields(self) -> Callable[[list[Row]], list[Row]]:
        columns = self._listed(lambda: self._named(self._difference))
        return lambda rows: [{**row, **{name: value(row) for name, value in columns}} for row in rows]

    def _filter(self) -> Callable[[list[Row]], list[Row]]:
        condition = self._condition()
        return lambda rows: [row for row in rows if condition(row)]

    def _sort(self) -> Callable[[list[Row]], list[Row]]:
        value = self._difference()
        descending = self._take_if("asc", "desc") == "desc"

        def sort(rows: list[Row]) -> list[Row]:
            known = [row for row in rows if value(row) is not None]
            return [*sorted(known, key=value, reverse=descending), *(row for row in rows if value(row) is None)]

        return sort

    def _limit(self) -> Callable[[list[Row]], list[Row]]:
        most = int(self._take()[1])
        return lambda rows: rows[:most]

    def _stats(self) -> Callable[[list[Row]], list[Row]]:
        figures: list[tuple[str, Any]] = self._listed(lambda: self._named(self._figure))
        keys = self._listed(lambda: self._named(self._key)) if self._take_if("by") else []

        def stats(rows: list[Row]) -> list[Row]:
            groups: dict[tuple[Any, ...], list[Row]] = {}
            for row in rows:
                groups.setdefault(tuple(value(row) for _, value in keys), []).append(row)
            names = [name for name, _ in keys]
            return [
                {**dict(zip(names, group, strict=True)), **{name: figure(members) for name, figure in figures}}
                for group, members in groups.items()
            ]

        return stats

    def _figure(self) -> Any:
        _, function = self._take()
        self._expect("(")
        if function == "count":
            self._expect("*")
            self._expect(")")
            return len
        value = self._difference()
        self._expect(")")
        figures: dict[str, Callable[[list[Any]], Any]] = {
            "count_distinct": lambda values: len(set(values)),
            "max": max,
        }
        figure = figures[function]
        return lambda rows: figure([found for row in rows if (found := value(row)) is not None])

    def _key(self) -> Expression:
        if not self._take_if("bin"):
            return self._difference()
        self._expect("(")
        _, text = self._take()
        self._expect(")")
        milliseconds = 1000 * int(text[:-1]) * self._SECONDS[text[-1]]
        return lambda row: row["@timestamp"] // milliseconds * milliseconds

    def _condition(self) -> Expression:
        terms = [self._term()]
        # The page needs no parentheses, so it mixes no "and" with "or".
        word = self._take_if("and", "or")
        while word:
            terms.append(self._term())
            if not self._take_if(word):
                break
        every = all if word == "and" else any
        return lambda row: every(term(row) for term in terms)

    def _term(self) -> Expression:
        if self._take_if("ispresent"):
            self._expect("(")
            value = self._difference()
            self._expect(")")
            return lambda row: value(row) is not None
        left = self._difference()
        if self._take_if("like"):
            pattern = re.compile(self._take()[1][1:-1])
            return lambda row: pattern.search(str(left(row))) is not None
        if self._take_if("in"):
            self._expect("[")
            values = [self._difference() for _ in self._listed_values()]
            return lambda row: left(row) in [value(row) for value in values]
        compare = self._COMPARISONS[self._take()[1]]
        right = self._difference()
        return lambda row: left(row) is not None and compare(left(row), right(row))

    def _listed_values(self) -> Iterator[None]:
        yield
        while self._take_if(","):
            yield
        self._expect("]")

    def _difference(self) -> Expression:
        left = self._value()
        if not self._take_if("-"):
            return left
        right = self._value()

        def difference(row: Row) -> Any:
            values = left(row), right(row)
            return None if None in values else values[0] - values[1]

        return difference

    def _value(self) -> Expression:
        kind, text = self._take()
        if kind == "text":
            return lambda _: text[1:-1]
        if kind == "number":
            return lambda _: int(text)
        if kind != "name":
            raise ValueError(f"{text!r} is no value")
        if text == "toMillis":
            self._expect("(")
            value = self._value()
            self._expect(")")
            return value  # a time is in Unix ms here
        if text not in self._aliases:
            self.fields.add(text)
        return lambda row: row.get(text)


@dataclass(frozen=True)
class Query:
    title: str
    log_group: str
    text: str


def queries() -> list[Query]:
    """Read the queries of the queries page, and those in the runbook's commands."""
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
    """Read a log as Logs Insights does: the fields of JSON lines, and the fields of every line."""
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
    """The room that was stopped at the second try, and the message that asked for it."""

    room: Room
    message_id: str
    logs: Mapping[str, list[Row]]


@pytest.fixture(scope="module")
def trouble(box: Sandbox, observer: Observer) -> Trouble:
    """Let every kind of thing happen that the page has a query for."""

    def room(name: str) -> Room:
        return Room(observer, f"{name}-{now_ms()}")

    retried, restarted, day_before = room("retried"), room("restarted"), rfc3339(now_ms() - 86_400_000)
    retried.start("audio")
    box.rtc.fail(INTERNAL_ERROR, next_requests=1, task=(APP_ID, retried.id, "audio"))
    (message_id,) = box.send([retried.event("RoomEnded", TaskId="audio")])
    assert room("nobody").end_of("RoomEnded") == ["no_open_tasks"]
    assert room("bad").end_of("RoomEnd") == ["invalid_message"]
    assert room("waited-for").end_of("RoomEnded", TaskId="audio", TaskToken="t") == ["already_stopped"]
    assert restarted.end_of("SegmentStarted", TaskId="audio") == ["known"]
    assert restarted.end_of("RoomEnded", TaskId="audio", EventTime=day_before) == ["superseded"]
    end = callback("RoomDestroy", {"RoomId": restarted.id}, rfc3339(now_ms()), app_id=APP_ID)
    assert [box.call_back(end), box.call_back(end | {"Signature": "forged"}), box.call_back({})] == [200, 401, 400]
    unpublished = room("unpublished")
    with observer.without_permission("PublishOutcomeRole", "Publish"):
        assert unpublished.end_of("RoomEnded", TaskId="audio") == ["already_stopped"]
        wait_for(
            lambda: any("reasons" in line for line in log_of(observer, "PublishOutcomeLogGroup")), "an unpublished stop"
        )
    # As a whole: no event of SQS's has no Records.
    box.invoke("StopSegmentFunction", {})
    assert observer.ends([message_id]) == {message_id: ["stopped"]}
    wait_for(
        lambda: any("Traceback" in line["@message"] for line in log_of(observer, "StopSegmentLogGroup")), "a fault"
    )
    orphan, unswept = room("orphan"), room("unswept")
    orphan.start("audio", at_ms=now_ms() - 1_000)
    assert orphan.end_of("RoomGone", TaskIds=["audio"]) == ["stopped"]
    assert unswept.end_of("SegmentStarted", TaskId="audio") == ["known"]
    observer.renew_function("StopSegmentFunction", MODE="observe")
    observed = room("observed")
    observed.start("audio")
    assert observed.end_of("RoomEnded", TaskId="audio") == ["would_stop"]
    observer.renew_function("StopSegmentFunction", MODE="stop")
    denied = Fault("error", status=403, code="AccessDenied")
    box.rtc.fail(denied)
    box.invoke("SweepRoomsFunction", {})
    box.rtc.heal()
    groups = ("StopSegmentLogGroup", "ReceiveCallbackLogGroup", "PublishOutcomeLogGroup", "SweepRoomsLogGroup")
    return Trouble(retried, message_id, {group: log_of(observer, group) for group in groups})


@pytest.mark.parametrize("query", queries(), ids=lambda query: query.title)
def test_every_query_finds_what_it_looks_for(trouble: Trouble, query: Query) -> None:
    text = query.text.replace(f'"{ROOM_OF_THE_PAGE}"', f'"{trouble.room.id}"')
    insights = Insights(text.replace(MESSAGE_OF_THE_PAGE, trouble.message_id))
    lines = trouble.logs[query.log_group]

    assert insights.fields - {field for line in lines for field in line} == set()
    rows = insights.run(lines)

    assert rows
    assert [row for row in rows if not any(value is not None for value in row.values())] == []


def test_the_query_about_a_room_tells_how_its_stop_failed_and_was_done(trouble: Trouble) -> None:
    (query,) = [query for query in queries() if query.title == "History of a room"]
    rows = Insights(query.text.replace(ROOM_OF_THE_PAGE, trouble.room.id)).run(trouble.logs[query.log_group])
    # The task's line, then its message's.
    assert [row["message"] for row in rows] == ["task failed", "retried", "stopped"]
    assert [row.get("error_code") for row in rows] == ["InternalError", "InternalError", None]
    assert [row["receive_count"] for row in rows] == [1, 1, 2]


def test_the_slowest_stop_is_the_first_and_took_as_long_as_its_metric_says(trouble: Trouble) -> None:
    (query,) = [query for query in queries() if "sort ms_to_stop desc" in query.text]
    rows = Insights(query.text.replace("limit 20", "limit 10000")).run(trouble.logs[query.log_group])
    times = [row["ms_to_stop"] for row in rows]
    assert times == sorted(times, reverse=True)
    (stop,) = [row for row in rows if row["room_id"] == trouble.room.id]
    # Metrics are written at the end of an invocation and name no room: those of other tests may follow within seconds.
    measured = [
        line["TimeToStop.0"]
        for line in trouble.logs[query.log_group]
        if "TimeToStop.0" in line and "Stopped" in line and 0 <= line["@timestamp"] - stop["@timestamp"] < 5_000
    ]
    assert any(ms <= stop["ms_to_stop"] < ms + 2_000 for ms in measured)


@pytest.mark.parametrize(
    "field",
    re.findall(r"^\| ((?:`\w+`(?:, )?)+) \| \w", QUERIES_PAGE.partition("## Queries")[0], re.MULTILINE),
)
def test_every_field_of_the_page_is_in_a_log_line(trouble: Trouble, field: str) -> None:
    known = {name for lines in trouble.logs.values() for line in lines for name in line}
    # Embedded AWS gives no trace id, and no message here has so many tasks as those of tests/unit/test_log_bounds.py.
    elsewhere = {"reasons", "error", "xray_trace_id", "tasks", "task_ids"}
    assert {name for name in re.findall(r"`(\w+)`", field) if name not in known} <= elsewhere


def test_every_metric_has_the_stack_as_its_one_dimension_and_the_unit_of_the_page(trouble: Trouble) -> None:
    units = dict(re.findall(r"^\| `(\w+)` \| (Count|Milliseconds) \|", METRICS_PAGE, re.MULTILINE))
    emitted = [line for lines in trouble.logs.values() for line in lines if "_aws" in line]
    assert emitted
    for line in emitted:
        for directive in line["_aws"]["CloudWatchMetrics"]:
            names = {metric["Name"]: metric["Unit"] for metric in directive["Metrics"]}
            extra = ["function_name"] if "ColdStart" in names else []
            assert directive["Namespace"] == "RtcSegmentStopper"
            assert sorted(directive["Dimensions"][0]) == [*extra, "service"]
            assert line["service"] == STACK_NAME
            assert names.items() <= units.items()


def shell_blocks(text: str) -> list[str]:
    found: list[str] = re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return found


def looked_at_first() -> list[Any]:
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
@pytest.mark.parametrize("command", looked_at_first())
def test_what_to_look_at_first_can_be_looked_at(box: Sandbox, command: str) -> None:
    done = run_in_shell(box, command)
    # `status` says by 1 that something is wrong, as here something is.
    assert done.returncode in ((0, 1) if "stopper status" in command else (0,)), done.stderr
    assert "None" not in done.stderr


def test_alarm_can_be_heard(box: Sandbox, observer: Observer) -> None:
    (command,) = [block for block in shell_blocks(PAGE) if "set-alarm-state" in block]
    done = run_in_shell(box, command)
    assert done.returncode == 0, done.stderr
    name = observer.resource("DeadLettersAlarm")
    (alarm,) = box.client("cloudwatch").describe_alarms(AlarmNames=[name])["MetricAlarms"]
    assert (alarm["StateValue"], alarm["StateReason"]) == ("ALARM", "a drill")


def test_undelivered_events_are_sent_to_the_event_queue_and_stop_their_tasks(
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


def test_the_page_asks_only_what_insights_could_answer() -> None:
    for text in ("filter a ~ 1", "sort a sideways", "dedup a", "stats median(a)", "filter a = 1 and b = 2 or c = 3"):
        with pytest.raises((ValueError, KeyError)):
            Insights(text)
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    ms = [(epoch + timedelta(seconds=n)).timestamp() * 1000 for n in (1, 2, 301)]
    lines = [{"@timestamp": time, "wait": n, "kind": "a"} for n, time in enumerate(ms)]
    query = (
        'filter kind in ["a", "b"] and wait >= 0 | stats count(*) as n, max(wait) as most by bin(5m) as t | sort t desc'
    )
    assert Insights(query).run(lines) == [{"t": 300_000, "n": 1, "most": 2}, {"t": 0, "n": 2, "most": 1}]
