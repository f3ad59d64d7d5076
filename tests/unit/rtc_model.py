"""Small models of the stopper's surroundings: the RTC service, the messages, and a table that records its history."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property, lru_cache
from itertools import count
from typing import cast
from unittest.mock import patch

from segments import pace, stop_rules
from segments.api_calls import Calls, InThread
from segments.circuit import Circuit
from segments.events import Event, EventType, Room, Task, parse_event
from segments.ledger import SegmentTable, room_item
from segments.pace import Turns
from segments.rtc import RtcApi, Stopped
from segments.stop_rules import Outcome, Record, RunningTask, Verdict
from stop_segment.settings import Settings, read_settings
from stop_segment.stopper import Stopper
from sweep_rooms.sweeper import SendRoomGone, Sweeper, SweepSettings
from sweep_rooms.sweeper import read_settings as read_sweep_settings
from tests.environments import STOP_SETTINGS
from tests.unit.memory_dynamo import MemoryDynamo

# In effect there is no request limit.
_ENVIRONMENT = STOP_SETTINGS | {"RTC_QPS_LIMIT": "1000000", "MAX_TASK_HOURS": "0"}
SETTINGS: Settings = read_settings(_ENVIRONMENT)
SWEEP_SETTINGS: SweepSettings = read_sweep_settings(_ENVIRONMENT)
EPOCH = datetime(2026, 11, 22, 6, tzinfo=UTC)  # second 0 of every history
_EPOCH_MS = int(EPOCH.timestamp()) * 1000


def ms(second: int) -> int:
    """Return a history's second as Unix ms."""
    return _EPOCH_MS + 1000 * second


@dataclass
class Session:
    """A session of a task. Without `ends_ms` it runs until it is stopped."""

    task: Task
    started_ms: int
    ends_ms: int | None = None
    stopped_ms: int | None = None

    def was_to_run_at(self, time_ms: int) -> bool:
        """Whether the session would run at this time, if nothing had stopped it."""
        return self.started_ms <= time_ms and (self.ends_ms is None or time_ms < self.ends_ms)

    def runs_at(self, time_ms: int) -> bool:
        return self.was_to_run_at(time_ms) and self.stopped_ms is None


@dataclass(eq=False)
class Decision:
    """A decision of the rules about a stop event of time T.

    Parameters
    ----------
    starts_known
        The number of starts in the table when the record, or the room's open tasks, were read.
    api_is_to_be_asked
        Whether the event was late, so that the API is asked first.
    looked_ms
        The time of the question to the API, or of the decision if the API was not asked.
    """

    time_ms: int
    starts_known: int
    api_is_to_be_asked: bool
    looked_ms: int


@dataclass(frozen=True)
class Request:
    """A request to the RTC service, and the session that it ended, if any."""

    action: str
    task: Task
    decision: Decision
    ended: Session | None = None


_decision: ContextVar[Decision] = ContextVar("decision")
_starts_known: ContextVar[int] = ContextVar("starts_known", default=0)
_clock: ContextVar[Callable[[], int]] = ContextVar("clock")


@dataclass(frozen=True)
class Occupied:
    """A time in which a room is occupied, in seconds of the history."""

    starts: int
    ends: int
    room_id: str = "room-0"


class RtcService:
    """The RTC service: StopSegment, GetSegmentTask and GetRoomOnlineUsers on sessions and rooms of a history."""

    def __init__(self, sessions: Sequence[Session], now_ms: Callable[[], int], rooms: Sequence[Occupied] = ()) -> None:
        self._rooms = rooms
        self.sessions = sorted(sessions, key=lambda session: session.started_ms)
        self.requests: list[Request] = []
        self.looks: list[tuple[Room, int, bool]] = []
        self._now_ms = now_ms

    def stop_segment(self, task: Task, business_id: str | None, sending: Callable[[], None]) -> Stopped:  # noqa: ARG002 - the API's
        sending()
        running = self._newest(task)
        if running is None or not running.runs_at(self._now_ms()):
            return Stopped(Outcome.ALREADY_STOPPED, self._note(Request("StopSegment", task, _decision.get())))
        running.stopped_ms = self._now_ms()
        return Stopped(Outcome.STOPPED, self._note(Request("StopSegment", task, _decision.get(), running)))

    def get_segment_task(self, task: Task, sending: Callable[[], None]) -> tuple[RunningTask | None, str | None]:
        sending()
        decision = _decision.get()
        decision.looked_ms = self._now_ms()
        request_id = self._note(Request("GetSegmentTask", task, decision))
        newest = self._newest(task)
        if newest is None:
            return None, request_id
        if newest.runs_at(self._now_ms()):
            return RunningTask(newest.started_ms, ended_at_ms=0, status=2), request_id
        return RunningTask(newest.started_ms, newest.stopped_ms or newest.ends_ms or 0, status=3), request_id

    def _note(self, request: Request) -> str:
        self.requests.append(request)
        return f"request-{len(self.requests)}"

    def room_exists(self, room: Room, sending: Callable[[], None]) -> bool:
        sending()
        exists = self.room_existed(room, self._now_ms())
        self.looks.append((room, self._now_ms(), exists))
        return exists

    def room_existed(self, room: Room, at_ms: int) -> bool:
        """Whether the room was occupied at this time."""
        return any(one.room_id == room.room_id and ms(one.starts) <= at_ms < ms(one.ends) for one in self._rooms)

    def _newest(self, task: Task) -> Session | None:
        begun = [one for one in self.sessions if one.task == task and one.started_ms <= self._now_ms()]
        return begun[-1] if begun else None


@dataclass(frozen=True)
class _ReadRecord(Record):
    """A record with the number of starts in the table when it was read."""

    starts_known: int = 0


class WatchedTable(SegmentTable):
    """The segment table. It also lists all starts and the times of all answered stop events."""

    def __init__(self, now_ms: Callable[[], int]) -> None:
        self._now_ms = now_ms
        self.dynamo = MemoryDynamo()
        super().__init__(self.dynamo.client, "segments", SETTINGS.record_retention_seconds, sweeps=True)
        self.starts: list[tuple[Task, int]] = []
        self.answers: list[tuple[Task, int]] = []

    def begin_reading(self) -> None:
        """Note the number of starts now: it applies to later decisions without a record."""
        _starts_known.set(len(self.starts))
        _clock.set(self._now_ms)

    def read(self, tasks: Sequence[Task]) -> dict[Task, Record]:
        return self._watched(super().read(tasks))

    def open_tasks(self, room: Room) -> dict[Task, Record]:
        self.begin_reading()
        return self._watched(super().open_tasks(room))

    def note_start(self, task: Task, started_at_ms: int, business_id: str | None = None) -> bool:
        is_open = super().note_start(task, started_at_ms, business_id)
        self.starts.append((task, started_at_ms))
        return is_open

    def note_stop(
        self, task: Task, known: Record, event: Event, outcome: Outcome, request_id: str | None, now_ms: int
    ) -> Record:
        record = super().note_stop(task, known, event, outcome, request_id, now_ms)
        self.answers.append((task, event.time_ms))
        return self._with_what_is_known(record)

    def note_room_end(self, event: Event, now_ms: int) -> Record:
        room = super().note_room_end(event, now_ms)
        self.answers.append((room_item(event.room), event.time_ms))
        return room

    def _watched(self, records: dict[Task, Record]) -> dict[Task, Record]:
        return {task: self._with_what_is_known(record) for task, record in records.items()}

    def _with_what_is_known(self, record: Record) -> Record:
        return _ReadRecord(**(vars(record) | {"starts_known": len(self.starts)}))


@dataclass(frozen=True)
class Message:
    """A message on the queue. Times are seconds of the history.

    Parameters
    ----------
    at
        The time of its event.
    ahead
        How far the producer's clock runs ahead. None: the message has no EventTime.
    lag
        The time between the event and its arrival at SQS.
    """

    type: EventType
    at: int
    task_ids: tuple[str, ...] = ()
    room_id: str = "room-0"
    ahead: int | None = 0
    lag: int = 0

    @property
    def sent(self) -> int:
        return self.at + self.lag

    @property
    def body(self) -> str:
        content: dict[str, object] = {"EventType": self.type.value, "AppId": "app", "RoomId": self.room_id}
        if len(self.task_ids) == 1:
            content["TaskId"] = self.task_ids[0]
        elif self.task_ids:
            content["TaskIds"] = self.task_ids
        if self.ahead is not None:
            content["EventTime"] = (EPOCH + timedelta(seconds=self.at + self.ahead)).isoformat()
        return json.dumps(content)

    @cached_property
    def event(self) -> Event:
        event = parse_event(self.body, ms(self.sent))
        assert event
        return event


@dataclass(frozen=True)
class PlannedSession:
    """The plan of a session: its first and last second in the history. Without `ends` it runs until it is stopped."""

    task_id: str
    starts: int
    ends: int | None = None
    room_id: str = "room-0"

    @property
    def task(self) -> Task:
        return Task(Room("app", self.room_id), self.task_id)


def watched_decide(time_ms: int, record: Record, *, is_late: bool, duplicate_window_ms: int) -> Verdict:
    """Decide by the rules, and keep the `Decision` for the request that may follow."""
    # Without a record, the number of starts is that of the invocation's begin or of the room's read.
    known = record.starts_known if isinstance(record, _ReadRecord) else 0
    _decision.set(Decision(time_ms, max(known, _starts_known.get()), is_late, _clock.get()()))
    return stop_rules.decide(time_ms, record, is_late=is_late, duplicate_window_ms=duplicate_window_ms)


def make_stopper(table: SegmentTable, rtc: RtcService, in_thread: InThread, now_ms: Callable[[], int]) -> Stopper:
    """Create the stopper of a function environment. All of its calls go through `in_thread`."""
    stops, queries = _calls(in_thread, now_ms), _calls(in_thread, now_ms)
    return Stopper(SETTINGS, table, cast("RtcApi", rtc), stops, queries, in_thread, now_ms, _measure)


def make_sweeper(
    table: SegmentTable, rtc: RtcService, in_thread: InThread, send: SendRoomGone, now_ms: Callable[[], int]
) -> Sweeper:
    """Create a sweeper. All of its calls go through `in_thread`."""
    questions = _calls(in_thread, now_ms)
    return Sweeper(SWEEP_SETTINGS, table, cast("RtcApi", rtc), questions, in_thread, send, now_ms)


_pace = lru_cache(pace.pace)  # it is slow, and the same for all of the many environments


def _calls(in_thread: InThread, now_ms: Callable[[], int]) -> Calls:
    def clock_seconds() -> float:
        return now_ms() / 1000

    # Virtual time stands still within an invocation, so a turn would never come. So each reading of this clock is one
    # second later than the last.
    with patch.object(pace, "pace", _pace):
        turns = Turns(SETTINGS.requests_per_second, count().__next__, lambda _: asyncio.sleep(0))
    return Calls(turns, Circuit(clock_seconds), in_thread, clock_seconds, _measure)


def _measure(name: str, value: float) -> None:
    """Discard a metric."""


def _closes(event: Event, task: Task) -> bool:
    return event.is_stop and (task in event.tasks or (not event.task_ids and event.room == task.room))


def is_to_be_stopped(session: Session, event: Event, events: Sequence[Event]) -> bool:
    """Whether a stop event must stop a session: the session runs at the event's time, and the table can know the
    session."""
    of_task = [one for one in events if not one.is_stop and session.task in one.tasks]
    reported_ms = max((one.time_ms for one in of_task if one.time_ms <= event.time_ms), default=None)
    is_known = session.task in event.tasks or (
        not event.task_ids
        and event.room == session.task.room
        and reported_ms is not None
        and not any(_closes(one, session.task) and reported_ms <= one.time_ms < session.started_ms for one in events)
    )
    started_later = any(one.type is EventType.SEGMENT_STARTED and one.time_ms > event.time_ms for one in of_task)
    return event.is_stop and session.was_to_run_at(event.time_ms) and is_known and not started_later
