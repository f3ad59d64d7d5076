"""Small models of the stopper's surroundings: the RTC service, its messages, and a table that remembers more."""

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

# The limit is none here.
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
    """A task's life. One that `ends_ms` never (None) runs until it is stopped."""

    task: Task
    started_ms: int
    ends_ms: int | None = None
    stopped_ms: int | None = None

    def was_to_run_at(self, time_ms: int) -> bool:
        """Whether the session runs then, if it is not stopped."""
        return self.started_ms <= time_ms and (self.ends_ms is None or time_ms < self.ends_ms)

    def runs_at(self, time_ms: int) -> bool:
        return self.was_to_run_at(time_ms) and self.stopped_ms is None


@dataclass(eq=False)
class Decision:
    """A question to the rules about a stop event at T.

    Parameters
    ----------
    starts_known
        The number of starts that the table knew when the record, or the room's tasks, were read.
    api_is_to_be_asked
        Whether the event was late.
    looked_ms
        When the API was asked, if it was; otherwise when the rules were.
    """

    time_ms: int
    starts_known: int
    api_is_to_be_asked: bool
    looked_ms: int


@dataclass(frozen=True)
class Request:
    """A request to the RTC service; a StopSegment may have `ended` a session."""

    action: str
    task: Task
    decision: Decision
    ended: Session | None = None


_decision: ContextVar[Decision] = ContextVar("decision")
_starts_known: ContextVar[int] = ContextVar("starts_known", default=0)
_clock: ContextVar[Callable[[], int]] = ContextVar("clock")


@dataclass(frozen=True)
class RoomLife:
    """The time in which a room is occupied, in a history's seconds."""

    starts: int
    ends: int
    room_id: str = "room-0"


class RtcService:
    """Sessions and rooms that start and end by the clock, StopSegment, GetSegmentTask and GetRoomOnlineUsers."""

    def __init__(self, sessions: Sequence[Session], now_ms: Callable[[], int], rooms: Sequence[RoomLife] = ()) -> None:
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
        """Whether the room was occupied then."""
        return any(life.room_id == room.room_id and ms(life.starts) <= at_ms < ms(life.ends) for life in self._rooms)

    def _newest(self, task: Task) -> Session | None:
        begun = [one for one in self.sessions if one.task == task and one.started_ms <= self._now_ms()]
        return begun[-1] if begun else None


@dataclass(frozen=True)
class _ReadRecord(Record):
    """A record that remembers the number of starts that the table knew when it was read."""

    starts_known: int = 0


class WatchedTable(SegmentTable):
    """The segment table, which keeps starts and the times of answered stop events."""

    def __init__(self, now_ms: Callable[[], int]) -> None:
        self._now_ms = now_ms
        self.dynamo = MemoryDynamo()
        super().__init__(self.dynamo.client, "segments", SETTINGS.record_retention_seconds, sweeps=True)
        self.starts: list[tuple[Task, int]] = []
        self.answers: list[tuple[Task, int]] = []

    def begin_reading(self) -> None:
        """Note the present knowledge, for decisions from here on without a record."""
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
    """A message as SQS keeps it. Times are a history's seconds.

    Parameters
    ----------
    at
        When it happened.
    ahead
        How far the producer's clock runs ahead; None: the message names no EventTime.
    lag
        How long after that SQS took the message.
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
class Life:
    """A session before it is lived: from a history's second to another, or until it is stopped."""

    task_id: str
    starts: int
    ends: int | None = None
    room_id: str = "room-0"

    @property
    def task(self) -> Task:
        return Task(Room("app", self.room_id), self.task_id)


def watched_decide(time_ms: int, record: Record, *, is_late: bool, duplicate_window_ms: int) -> Verdict:
    """Decide by the rules, and keep the knowledge of that moment, which explains each request."""
    # Of a task without a record, or of a room's, is known when the invocation began or its tasks were read.
    known = record.starts_known if isinstance(record, _ReadRecord) else 0
    _decision.set(Decision(time_ms, max(known, _starts_known.get()), is_late, _clock.get()()))
    return stop_rules.decide(time_ms, record, is_late=is_late, duplicate_window_ms=duplicate_window_ms)


def make_stopper(table: SegmentTable, rtc: RtcService, in_thread: InThread, now_ms: Callable[[], int]) -> Stopper:
    """Create a function environment's stopper; every step of it goes through `in_thread`."""
    stops, queries = _calls(in_thread, now_ms), _calls(in_thread, now_ms)
    return Stopper(SETTINGS, table, cast("RtcApi", rtc), stops, queries, in_thread, now_ms, _measure)


def make_sweeper(
    table: SegmentTable, rtc: RtcService, in_thread: InThread, send: SendRoomGone, now_ms: Callable[[], int]
) -> Sweeper:
    """Create a sweeper; every step of it goes through `in_thread`."""
    questions = _calls(in_thread, now_ms)
    return Sweeper(SWEEP_SETTINGS, table, cast("RtcApi", rtc), questions, in_thread, send, now_ms)


_pace = lru_cache(pace.pace)  # environments are many, and it is the same for all of them


def _calls(in_thread: InThread, now_ms: Callable[[], int]) -> Calls:
    def clock_seconds() -> float:
        return now_ms() / 1000

    # Virtual time stands still within an invocation, and a turn would never come: here every reading of the clock is a
    # second later.
    with patch.object(pace, "pace", _pace):
        turns = Turns(SETTINGS.requests_per_second, count().__next__, lambda _: asyncio.sleep(0))
    return Calls(turns, Circuit(clock_seconds), in_thread, clock_seconds, _measure)


def _measure(name: str, value: float) -> None:
    """No test reads the metrics here."""


def _closes(event: Event, task: Task) -> bool:
    return event.is_stop and (task in event.tasks or (not event.task_ids and event.room == task.room))


def is_to_be_stopped(session: Session, event: Event, events: Sequence[Event]) -> bool:
    """Whether a stop event covers a session that runs at its time, and that the table can know of."""
    of_task = [one for one in events if not one.is_stop and session.task in one.tasks]
    heard_ms = max((one.time_ms for one in of_task if one.time_ms <= event.time_ms), default=None)
    known = session.task in event.tasks or (
        not event.task_ids
        and event.room == session.task.room
        and heard_ms is not None
        and not any(_closes(one, session.task) and heard_ms <= one.time_ms < session.started_ms for one in events)
    )
    started_later = any(one.type is EventType.SEGMENT_STARTED and one.time_ms > event.time_ms for one in of_task)
    return event.is_stop and session.was_to_run_at(event.time_ms) and known and not started_later
