"""The cost of a room's end after many sessions, and the cost of a session with and without reported starts."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from benchmarks.deployments import Deployment, message
from benchmarks.load import Task, running
from benchmarks.meters import Spent
from benchmarks.sweeps import settle, sweep_once, unscheduled
from benchmarks.table_units import counted
from sandbox.stack import APP_ID, wait_for
from segments import events, ledger
from segments.stop_rules import Outcome, Record
from tools.rooms import read_fields

SESSIONS = 50
_SLICES = 20
_SWEEPS = 3  # the room is found gone, found gone again, and left alone
_RETENTION_SECONDS = 604_800
_MINUTE_MS = 60_000
_DAY_MS = 86_400_000


def room_ends(deployment: Deployment, marks: Sequence[int], permanent: int) -> dict[str, Any]:
    """Count the cost of a room's ends with new TaskIds, and of stops by TaskId in a room that never ends.

    The past sessions of the rooms are written with `segments.ledger`, as the functions write them.
    """
    deployment.rtc.forget()
    return {
        "ends": [{"end": mark, **spent} for mark, spent in _ends(deployment, marks)],
        "permanent": {"tasks": permanent, **_permanent(deployment, permanent)},
    }


def _ends(deployment: Deployment, marks: Sequence[int]) -> Iterator[tuple[int, Spent]]:
    past = _Past(deployment, "many-ends")
    for mark in marks:
        past.leave(mark - 1, room_ends=True)
        task = APP_ID, past.room_id, f"audio-{mark}"
        deployment.rtc.start_task(*task)
        _serve_alone(deployment, message(*task, "SegmentStarted"))
        with counted(deployment) as spent:
            _serve_alone(deployment, message(*task[:2]))
        if deployment.rtc.is_running(*task):
            raise RuntimeError(
                f"end {mark} of the room did not stop the task, so the cost is invalid: run the benchmark again"
            )
        past.length = mark
        yield mark, spent


def _permanent(deployment: Deployment, tasks: int) -> dict[str, Any]:
    past = _Past(deployment, "permanent")
    past.leave(tasks, room_ends=False)
    task = APP_ID, past.room_id, "audio"
    deployment.rtc.start_task(*task)
    found: dict[str, Any] = {}
    for name, body in (
        ("a start", message(*task, "SegmentStarted")),
        ("its stop by name", message(*task, "ModerationViolation")),
        ("the room's end", message(*task[:2])),
    ):
        with counted(deployment) as found[name]:
            _serve_alone(deployment, body)
    if deployment.rtc.is_running(*task):
        raise RuntimeError(
            "the task of the permanent room was not stopped, so the cost is invalid: run the benchmark again"
        )
    return found | {"room_item_bytes": past.room_item_bytes()}


class _Past:
    """The past sessions of a room, reported and stopped, each with a different TaskId.

    Parameters
    ----------
    length
        The number of past sessions.
    """

    def __init__(self, deployment: Deployment, room_id: str) -> None:
        self.room_id = room_id
        self.length = 0
        self._room = events.Room(APP_ID, room_id)
        self._client = deployment.client("dynamodb")
        self._table_name = deployment.table_name
        self._table = ledger.SegmentTable(self._client, deployment.table_name, _RETENTION_SECONDS, sweeps=True)
        self._began_ms = round(1000 * time.time()) - _DAY_MS

    def leave(self, length: int, *, room_ends: bool) -> None:
        """Write this many past sessions of the room, each stopped by the room's end or by name."""
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(self._session, range(self.length + 1, length + 1)))
        if room_ends and length > self.length:
            self._table.note_room_end(self._end(self._began_ms + length), self._began_ms)
        self.length = length

    def _session(self, number: int) -> None:
        task, began_ms = events.Task(self._room, f"audio-{number}"), self._began_ms + number
        self._table.note_start(task, began_ms)
        known = Record(started_at_ms=began_ms, open_since_ms=began_ms, watch=ledger.WATCHED)
        self._table.note_stop(task, known, self._end(began_ms), Outcome.STOPPED, "request", began_ms)

    def _end(self, time_ms: int) -> events.Event:
        return events.Event(events.EventType.ROOM_ENDED, self._room, time_ms)

    def room_item_bytes(self) -> int:
        """Return the size of the room's own item as JSON, which is larger than the item in the table."""
        return len(str(read_fields(self._client, self._table_name, events.Task(self._room, ledger.ROOM_ITEM))))


def sessions(deployment: Deployment) -> list[dict[str, Any]]:
    """Count the cost per session if the session's end is reported twice, for each way to report the session."""
    with unscheduled(deployment):
        return [
            {"session": name, **_sessions(deployment, number, *how)}
            for number, (name, how) in enumerate(
                (
                    ("by its start", (True, 0)),
                    (f"by its start and {_SLICES} slices", (True, _SLICES)),
                    (f"only by {_SLICES} slices", (False, _SLICES)),
                )
            )
        ]


def _sessions(deployment: Deployment, kind: int, start_reported: bool, slices: int) -> dict[str, Any]:
    tasks: list[Task] = [(APP_ID, f"session-{kind}-{number}", "audio") for number in range(SESSIONS)]
    deployment.rtc.forget()
    for task in tasks:
        deployment.rtc.start_task(*task, start_time_ms=round(1000 * time.time()) - _MINUTE_MS)

    def send(event_type: str, *, named: bool = True) -> None:
        deployment.send(
            [message(app_id, room_id, task_id if named else "", event_type) for app_id, room_id, task_id in tasks]
        )
        settle(deployment)

    with counted(deployment) as spent:
        if start_reported:
            send("SegmentStarted")
        for _ in range(slices):
            send("SegmentRealTimeData")
        for event_type in ("RoomDestroy", "RoomEnded"):
            send(event_type, named=False)
    if running(deployment, tasks):
        raise RuntimeError(
            f"{running(deployment, tasks)} tasks were not stopped, so the cost is invalid: run the benchmark again"
        )
    for app_id, room_id, _ in tasks:
        deployment.rtc.close_room(app_id, room_id)
    swept = list[Spent]()
    for _ in range(_SWEEPS):
        deployment.let_a_minute_pass((app_id, room_id) for app_id, room_id, _ in tasks)
        with counted(deployment) as spent_on_sweep:
            sweep_once(deployment)
        swept.append(spent_on_sweep)
    return {
        **{name: value / SESSIONS for name, value in spent.items()},
        **{f"swept_{name}": sum(one[name] for one in swept) / SESSIONS for name in spent},
    }


def _serve_alone(deployment: Deployment, body: str) -> None:
    deployment.send([body])
    wait_for(lambda: not deployment.undone(), "a message to be served")
