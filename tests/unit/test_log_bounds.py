"""The stop function's log has a bound, in lines and in bytes."""

import io
import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pytest

from segments.errors import CircuitOpen, NoTimeLeft, Rejected, Retryable, StopError
from segments.events import Event, EventType, Room
from segments.stop_rules import Outcome
from segments.telemetry import logger, metrics
from stop_segment.arrivals import Arrival
from stop_segment.logs import log_served
from stop_segment.stopper import Done, Served

LONG_ID = "i" * 128
MESSAGES, TASKS = 10, 101  # of a batch; that a message can name, with TaskId beside TaskIds
MOST_LINES_A_MESSAGE = 100 + len(Outcome) + 4  # a line each, and one for each outcome or error of the others
MOST_BYTES_A_LINE = 5_000


@dataclass
class Said:
    """The log and the counts."""

    stream: io.StringIO = field(default_factory=io.StringIO)
    counted: Counter[str] = field(default_factory=Counter)

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.stream.getvalue().splitlines()]


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> Said:
    said = Said()
    monkeypatch.setattr(logger.registered_handler, "stream", said.stream)

    def count(name: str, _: object, value: float) -> None:
        said.counted[name] += int(value)

    monkeypatch.setattr(metrics, "add_metric", count)
    return said


def arrival(event_type: EventType = EventType.ROOM_ENDED) -> Arrival:
    event = Event(event_type, Room(LONG_ID, LONG_ID), 1_795_327_920_123, (), LONG_ID, LONG_ID)
    return Arrival("m-1", "handle", "{}", 1_795_327_920_123, content=event)


def done(tasks: int, outcome: Outcome = Outcome.STOPPED) -> list[Done]:
    return [Done(f"{number:0128}", outcome, LONG_ID) for number in range(tasks)]


def failed(tasks: int, error: StopError) -> list[tuple[str, StopError]]:
    return [(f"{number:0128}", error) for number in range(tasks)]


@pytest.mark.parametrize("error", [NoTimeLeft("NoTimeLeft", "no turn"), CircuitOpen("CircuitOpen", "no call")])
def test_tasks_that_had_no_turn_are_one_line(said: Said, error: StopError) -> None:
    log_served(arrival(), Served(done(2), failed(98, error)))
    assert [line["message"] for line in said.lines] == ["stopped", "stopped", "tasks failed"]
    line = said.lines[-1]
    assert (line["tasks"], line["error_code"], len(line["task_ids"])) == (98, error.code, 10)


def test_a_task_whose_request_failed_has_a_line_with_its_request(said: Said) -> None:
    log_served(arrival(), Served([], failed(3, Rejected("Code", "no", "20261122REQUEST"))))
    assert [line["request_id"] for line in said.lines] == ["20261122REQUEST"] * 3


@pytest.mark.parametrize("tasks", [TASKS, 10_000])
def test_a_room_with_many_tasks_has_a_bound_of_lines_and_counts_them_all(said: Said, tasks: int) -> None:
    served = Served(
        done(tasks, Outcome.STOPPED) + done(tasks, Outcome.DUPLICATE),
        failed(tasks, Retryable("Code", "\u4e2d" * 1_000, LONG_ID)) + failed(tasks, NoTimeLeft("NoTimeLeft", "no")),
    )
    log_served(arrival(EventType.ROOM_GONE), served)
    assert len(said.lines) <= MOST_LINES_A_MESSAGE
    assert said.counted == {"Stopped": tasks, "Orphans": tasks, "Duplicate": tasks}
    assert sum(line.get("tasks", 1) for line in said.lines) == 4 * tasks


def test_a_batch_of_the_largest_messages_writes_a_bounded_log(said: Said) -> None:
    longest = Retryable(LONG_ID, "\u4e2d" * 1_000, LONG_ID)
    for _ in range(MESSAGES):
        log_served(arrival(), Served(done(1), failed(TASKS - 1, longest)))
    lines = said.stream.getvalue().splitlines()
    assert len(lines) <= MESSAGES * MOST_LINES_A_MESSAGE
    assert max(len(line.encode()) for line in lines) <= MOST_BYTES_A_LINE
