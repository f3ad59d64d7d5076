"""The stop function writes a bounded log about a message, in lines and in bytes."""

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
MOST_TASKS = 101  # of a message, with TaskId beside TaskIds
MOST_LINES_A_MESSAGE = (
    100 + len(Outcome) + 4
)  # 100 tasks with a line each, and a line for each outcome or error of the others
MOST_BYTES_A_LINE = 5_000


@dataclass
class Log:
    """The log and the metrics of the stop function."""

    stream: io.StringIO = field(default_factory=io.StringIO)
    counted: Counter[str] = field(default_factory=Counter)

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.stream.getvalue().splitlines()]


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Log:
    log = Log()
    monkeypatch.setattr(logger.registered_handler, "stream", log.stream)

    def count(name: str, _: object, value: float) -> None:
        log.counted[name] += int(value)

    monkeypatch.setattr(metrics, "add_metric", count)
    return log


def arrival(event_type: EventType = EventType.ROOM_ENDED) -> Arrival:
    event = Event(event_type, Room(LONG_ID, LONG_ID), 1_795_327_920_123, (), LONG_ID, LONG_ID)
    return Arrival("m-1", "handle", "{}", 1_795_327_920_123, content=event)


def done(tasks: int, outcome: Outcome = Outcome.STOPPED) -> list[Done]:
    return [Done(f"{number:0128}", outcome, LONG_ID) for number in range(tasks)]


def failed(tasks: int, error: StopError) -> list[tuple[str, StopError]]:
    return [(f"{number:0128}", error) for number in range(tasks)]


@pytest.mark.parametrize("error", [NoTimeLeft("NoTimeLeft", "no turn"), CircuitOpen("CircuitOpen", "no call")])
def test_tasks_without_a_request_share_one_line(log: Log, error: StopError) -> None:
    log_served(arrival(), Served(done(2), failed(98, error)))
    assert [line["message"] for line in log.lines] == ["stopped", "stopped", "tasks failed"]
    line = log.lines[-1]
    assert (line["tasks"], line["error_code"], len(line["task_ids"])) == (98, error.code, 10)


def test_a_failed_request_has_a_line_with_its_request_id(log: Log) -> None:
    log_served(arrival(), Served([], failed(3, Rejected("Code", "no", "20261122REQUEST"))))
    assert [line["request_id"] for line in log.lines] == ["20261122REQUEST"] * 3


@pytest.mark.parametrize(("good", "bad"), [(1, MOST_TASKS), (MOST_TASKS, 1), (0, 10_000), (10_000, 10_000)])
def test_the_log_about_a_large_room_is_bounded_and_counts_every_task(log: Log, good: int, bad: int) -> None:
    served = Served(
        done(good, Outcome.STOPPED) + done(good, Outcome.DUPLICATE),
        failed(bad, Retryable(LONG_ID, "\u4e2d" * 1_000, LONG_ID)) + failed(bad, NoTimeLeft("NoTimeLeft", "no")),
    )
    log_served(arrival(EventType.ROOM_GONE), served)
    assert len(log.lines) <= MOST_LINES_A_MESSAGE
    assert max(len(line.encode()) for line in log.stream.getvalue().splitlines()) <= MOST_BYTES_A_LINE
    assert log.counted == Counter({"Stopped": good, "Orphans": good, "Duplicate": good})
    assert sum(line.get("tasks", 1) for line in log.lines) == 2 * (good + bad)
