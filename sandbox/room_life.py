"""The second part of the demo: two lessons in a room, reported by the RTC server through the callback URL."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from rich.table import Table
from rich.text import Text

from sandbox.callbacks import callback
from sandbox.stack import APP_ID, Sandbox, wait_for
from sandbox.tables import colored, new_table

ROOM_ID = "math-101"


@dataclass(frozen=True)
class Result:
    """The result of a callback.

    Parameters
    ----------
    status
        The HTTP status of the answer.
    ends
        The outcomes of the room's tasks in sorted order. Empty if the callback does not reach the queue.
    running
        The tasks that still run after the callback.
    """

    status: int
    ends: tuple[str, ...] = ()
    running: tuple[str, ...] = ()


@dataclass(frozen=True)
class Step:
    """A callback to send, and the expected result. `before` is called before the callback is sent."""

    title: str
    callback: dict[str, str]
    expected: Result
    before: Callable[[], object] = lambda: None


def live(box: Sandbox) -> list[tuple[Step, Result]]:
    """Send the callbacks one after another, and return the result of each callback."""
    return [(step, _send(box, step)) for step in _steps(box)]


def _steps(box: Sandbox) -> list[Step]:
    now = datetime.now(UTC)
    first, yesterday = now - timedelta(minutes=40), now - timedelta(days=1)
    both = ("audio", "screen")
    for task_id in both:
        box.rtc.start_task(APP_ID, ROOM_ID, task_id, start_time_ms=_ms(first - timedelta(minutes=10)))
    old, end, sent_again = (
        callback("RoomDestroy", {"RoomId": ROOM_ID}, _text(time)) for time in (yesterday, first, first)
    )
    return [
        Step("lesson 1: a slice of audio", _slice("audio", first), Result(200, ("known",), both)),
        Step("lesson 1: a slice of screen", _slice("screen", first), Result(200, ("known",), both)),
        Step(
            "a forged end of lesson 1",
            callback("RoomDestroy", {"RoomId": ROOM_ID}, _text(first), key="guessed"),
            Result(401, running=both),
        ),
        Step("yesterday's end, replayed", old, Result(200, running=both)),
        Step("lesson 1 ends", end, Result(200, ("stopped", "stopped"))),
        Step(
            "lesson 2: a slice of audio",
            _slice("audio", now),
            Result(200, ("known",), ("audio",)),
            before=lambda: box.rtc.start_task(APP_ID, ROOM_ID, "audio", start_time_ms=_ms(now)),
        ),
        Step("lesson 1's end, replayed", end, Result(200, running=("audio",))),
        Step("lesson 1's end, sent again", sent_again, Result(200, ("duplicate",), ("audio",))),
        Step(
            "lesson 2 ends",
            callback("RoomDestroy", {"RoomId": ROOM_ID}, _text(now + timedelta(seconds=1)), nonce="Noce"),
            Result(200, ("stopped",)),
        ),
    ]


def _send(box: Sandbox, step: Step) -> Result:
    step.before()
    already = len(_ends(box, step))
    status = box.call_back(step.callback)
    if status == 200:
        wait_for(lambda: len(_ends(box, step)) >= already + len(step.expected.ends), f"the end of {step.title}")
    running = tuple(task_id for task_id in ("audio", "screen") if box.rtc.is_running(APP_ID, ROOM_ID, task_id))
    return Result(status, tuple(sorted(_ends(box, step)[already:])), running)


def _ends(box: Sandbox, step: Step) -> list[str]:
    event_id = step.callback["EventId"]
    return [line["outcome"] for line in box.log_lines() if line.get("event_id") == event_id and "outcome" in line]


def _slice(task_id: str, time: datetime) -> dict[str, str]:
    data = {"AppId": APP_ID, "BusinessId": "", "RoomId": ROOM_ID, "TaskId": task_id}
    return callback("SegmentRealTimeData", data, _text(time))


def _ms(time: datetime) -> int:
    return round(time.timestamp() * 1000)


def _text(time: datetime) -> str:
    return time.isoformat(timespec="milliseconds")


def life_table(life: list[tuple[Step, Result]]) -> Table:
    """Draw a table with the result of each callback."""
    title = f"The life of room {ROOM_ID}, through the callback URL"
    table = new_table(title, "callback", "answer", "ended as", "still runs")
    for step, result in life:
        ends = colored(result.ends, ", ") if result.ends else Text("never reaches the queue", "dim")
        if result != step.expected:
            ends.append(f"\nexpected {step.expected.status} {', '.join(step.expected.ends)}", "red")
        table.add_row(step.title, str(result.status), ends, ", ".join(result.running) or "nothing")
    return table
