"""The demo's second act: two lessons in a room, reported by the RTC server through the callback URL."""

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
class Step:
    """A callback that is sent, and the expected result.

    Parameters
    ----------
    ends
        The outcomes of the room's tasks, sorted; empty if the callback is refused.
    running
        The tasks that still run afterwards.
    """

    title: str
    callback: dict[str, str]
    status: int
    ends: tuple[str, ...] = ()
    running: tuple[str, ...] = ()
    before: Callable[[], object] = lambda: None


@dataclass(frozen=True)
class Seen:
    """The result of a step."""

    step: Step
    status: int
    ends: tuple[str, ...]
    running: tuple[str, ...]

    @property
    def as_expected(self) -> bool:
        """Whether the result is the expected one."""
        return (self.status, self.ends, self.running) == (self.step.status, self.step.ends, self.step.running)


def live(box: Sandbox) -> list[Seen]:
    """Send the callbacks one after another and return the result of each."""
    return [_see(box, step) for step in _steps(box)]


def _steps(box: Sandbox) -> list[Step]:
    now = datetime.now(UTC)
    first, yesterday = now - timedelta(minutes=40), now - timedelta(days=1)
    for task_id in ("audio", "screen"):
        box.rtc.start_task(APP_ID, ROOM_ID, task_id, start_time_ms=_ms(first - timedelta(minutes=10)))
    old, end, sent_again = (
        callback("RoomDestroy", {"RoomId": ROOM_ID}, _text(time)) for time in (yesterday, first, first)
    )
    return [
        Step("lesson 1: a slice of audio", _slice("audio", first), 200, ("known",), ("audio", "screen")),
        Step("lesson 1: a slice of screen", _slice("screen", first), 200, ("known",), ("audio", "screen")),
        Step(
            "a forged end of lesson 1",
            callback("RoomDestroy", {"RoomId": ROOM_ID}, _text(first), key="guessed"),
            401,
            running=("audio", "screen"),
        ),
        Step("yesterday's end, replayed", old, 200, running=("audio", "screen")),
        Step("lesson 1 ends", end, 200, ("stopped", "stopped")),
        Step(
            "lesson 2: a slice of audio",
            _slice("audio", now),
            200,
            ("known",),
            ("audio",),
            before=lambda: box.rtc.start_task(APP_ID, ROOM_ID, "audio", start_time_ms=_ms(now)),
        ),
        Step("lesson 1's end, replayed", end, 200, running=("audio",)),
        Step("lesson 1's end, sent again", sent_again, 200, ("duplicate",), ("audio",)),
        Step(
            "lesson 2 ends",
            callback("RoomDestroy", {"RoomId": ROOM_ID}, _text(now + timedelta(seconds=1)), nonce="Noce"),
            200,
            ("stopped",),
        ),
    ]


def _see(box: Sandbox, step: Step) -> Seen:
    step.before()
    already = len(_ends(box, step))
    status = box.call_back(step.callback)
    if status == 200:
        wait_for(lambda: len(_ends(box, step)) >= already + len(step.ends), f"the end of {step.title}")
    running = tuple(task_id for task_id in ("audio", "screen") if box.rtc.is_running(APP_ID, ROOM_ID, task_id))
    return Seen(step, status, tuple(sorted(_ends(box, step)[already:])), running)


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


def life_table(life: list[Seen]) -> Table:
    """Draw the result of each callback."""
    title = f"The life of room {ROOM_ID}, through the callback URL"
    table = new_table(title, "callback", "answer", "ended as", "still runs")
    for seen in life:
        ends = colored(seen.ends, ", ") if seen.ends else Text("never reaches the queue", "dim")
        if not seen.as_expected:
            ends.append(f"\nexpected {seen.step.status} {', '.join(seen.step.ends)}", "red")
        table.add_row(seen.step.title, str(seen.status), ends, ", ".join(seen.running) or "nothing")
    return table
