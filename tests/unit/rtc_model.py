"""Small models of the stopper's surroundings: the RTC service, and SQS with its functions that crash.

Time is virtual and every call is a step: the other messages run for some ticks before it and after it.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import Enum, auto
from functools import cached_property, lru_cache
from itertools import count, cycle
from typing import TYPE_CHECKING, Any, cast
from unittest.mock import patch

from segments import pace, stop_rules
from segments.api_calls import Calls, InThread
from segments.circuit import Circuit
from segments.errors import Retryable
from segments.events import Event, EventType, Room, Task, parse_event
from segments.ledger import SegmentTable, room_item
from segments.pace import Turns
from segments.rtc import RtcApi, Stopped
from segments.stop_rules import Outcome, Record, RunningTask, Verdict
from stop_segment import stopper
from stop_segment.settings import Settings, read_settings
from stop_segment.stopper import Batch, Stopper
from sweep_rooms.events import room_gone
from sweep_rooms.sweeper import SendRoomGone, Sweeper, SweepSettings
from sweep_rooms.sweeper import read_settings as read_sweep_settings
from tests.unit.memory_dynamo import MemoryDynamo

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

_ENVIRONMENT = {
    "EVENT_QUEUE_URL": "https://queue",
    "DEAD_LETTER_QUEUE_URL": "https://letters",
    "SEGMENT_TABLE_NAME": "segments",
    "RTC_PLATFORM": "volcengine",
    "RTC_CREDENTIALS_SECRET_ARN": "arn:secret",
    "RTC_CONNECT_TIMEOUT_SECONDS": "2",
    "RTC_READ_TIMEOUT_SECONDS": "5",
    "RTC_QPS_LIMIT": "1000000",
    "MAX_CONCURRENCY": "2",
    "MAX_RECEIVE_COUNT": "6",
    "DUPLICATE_WINDOW_SECONDS": "5",
    "STALE_AFTER_SECONDS": "30",
    "RECORD_RETENTION_DAYS": "7",
    "SWEEP_MINUTES": "5",
    "MAX_TASK_HOURS": "0",
    "GIVE_UP_AFTER_MINUTES": "60",
    "MODE": "stop",
}
SETTINGS: Settings = read_settings(_ENVIRONMENT)
SWEEP_SETTINGS: SweepSettings = read_sweep_settings(_ENVIRONMENT)
SWEEPER = -1  # the number of its environment
EPOCH = datetime(2026, 11, 22, 6, tzinfo=UTC)  # second 0 of every history
_EPOCH_MS = int(EPOCH.timestamp()) * 1000
_MOST_TICKS = 20_000
_MOST_RETRIES = 3
_SWEEPS_SECONDS = 301


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

    def __init__(self, now_ms: Callable[[], int], client: DynamoDBClient | None = None, name: str = "segments") -> None:
        self._now_ms = now_ms
        self.dynamo = MemoryDynamo()
        super().__init__(client or self.dynamo.client, name, SETTINGS.record_retention_seconds, sweeps=True)
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


class Trouble(Enum):
    """A fault at a step: the function crashes, or the call fails, each before its work is done or after it."""

    CRASH_BEFORE = auto()
    CRASH_AFTER = auto()
    FAILURE_BEFORE = auto()
    FAILURE_AFTER = auto()


@dataclass(frozen=True)
class Invocation:
    """A batch of messages, by their numbers, given to a function environment at a history's second; or a sweep.

    Parameters
    ----------
    sweeps
        Whether it is one of the sweeper. Its environment is made for it.
    pace
        How many ticks the others get before and after each step, in turn.
    ticks_alone
        How many ticks pass until the next invocation begins; None: it begins when all the others have ended.
    troubles
        The events by the step at which they happen.
    """

    at: int
    messages: tuple[int, ...]
    environment: int = 0
    sweeps: bool = False
    pace: tuple[int, ...] = (0,)
    ticks_alone: int | None = None
    troubles: Mapping[int, Trouble] = field(default_factory=dict)


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


@dataclass(frozen=True)
class History:
    """The facts of a history, the reports of them, and the times of their delivery.

    Parameters
    ----------
    rooms
        The times at which rooms are occupied.
    retry_seconds
        The delay until a failed message, or its copy, is delivered again.
    late
        Of which items the global index is late, in turn, whenever it is read: each may be as it was long ago.
    """

    lives: tuple[Life, ...]
    messages: tuple[Message, ...]
    invocations: tuple[Invocation, ...]
    rooms: tuple[RoomLife, ...] = ()
    retry_seconds: int = 30
    late: tuple[bool, ...] = (False,)

    @property
    def events(self) -> list[Event]:
        return [message.event for message in self.messages]


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


@dataclass
class _Environment:
    """A function environment; after a crash it does not run again."""

    stopper: Stopper
    died: asyncio.Event


class _Run:
    """An invocation under way."""

    def __init__(self, invocation: Invocation, environment: _Environment) -> None:
        self.environment = environment
        self._pace = invocation.pace
        self._troubles = invocation.troubles
        self._steps = count()

    async def step(self, function: Callable[..., Any], *arguments: object) -> Any:
        step = next(self._steps)
        trouble = self._troubles.get(step)
        await self._others_run(2 * step)
        await self._happen(trouble, Trouble.CRASH_BEFORE, Trouble.FAILURE_BEFORE)
        result = function(*arguments)
        await self._happen(trouble, Trouble.CRASH_AFTER, Trouble.FAILURE_AFTER)
        await self._others_run(2 * step + 1)
        return result

    async def _others_run(self, turn: int) -> None:
        for _ in range(self._pace[turn % len(self._pace)]):
            await asyncio.sleep(0)
        await self._rest_if_dead()

    async def _happen(self, trouble: Trouble | None, crash: Trouble, failure: Trouble) -> None:
        if trouble is crash:
            self.environment.died.set()
        await self._rest_if_dead()
        if trouble is failure:
            raise Retryable("Unreachable", "the call failed")

    async def _rest_if_dead(self) -> None:
        # A dead process runs no `except` and no `finally`: an exception would.
        if self.environment.died.is_set():
            await asyncio.Event().wait()


_run: ContextVar[_Run] = ContextVar("run")


async def _in_thread(function: Callable[..., Any], *arguments: object) -> Any:
    return await _run.get().step(function, *arguments)


class World:
    """Plays a history. Messages that failed, or crashed their invocation, are delivered again until they are done."""

    def __init__(self, history: History, client: DynamoDBClient | None = None, table_name: str = "segments") -> None:
        self._history = history
        self._now_ms = ms(0)
        self._environments: dict[int, _Environment] = {}
        self._done: set[int] = set()
        self._received: Counter[int] = Counter()
        self._events = history.events
        self.table = WatchedTable(self.now_ms, client, table_name)
        late = cycle(history.late)
        self.table.dynamo.is_late = lambda _: next(late)
        self.rtc = RtcService(
            [
                Session(life.task, ms(life.starts), None if life.ends is None else ms(life.ends))
                for life in history.lives
            ],
            self.now_ms,
            history.rooms,
        )
        self.outcomes: defaultdict[int, list[Outcome]] = defaultdict(list)

    def now_ms(self) -> int:
        return self._now_ms

    @property
    def running(self) -> list[Session]:
        return [session for session in self.rtc.sessions if session.runs_at(self._now_ms)]

    def live(self, sweeps: int = 0) -> World:
        """Deliver everything, until all of it is done; when the rooms are gone, sweep so often, and serve that.

        The global index is not late for these sweeps.
        """
        asyncio.run(self._live(sweeps))
        return self

    def redeliver(self) -> list[Request]:
        """Deliver every message once more, to a new function environment; return the requests that it made."""
        before = len(self.rtc.requests)
        self._environments.clear()
        asyncio.run(self._deliver([self._later(range(len(self._events)))]))
        return self.rtc.requests[before:]

    async def _live(self, sweeps: int) -> None:
        await self._deliver(self._history.invocations)
        await self._serve_the_rest()
        self._now_ms = max([self._now_ms, *(ms(room.ends) for room in self._history.rooms)])
        self.table.dynamo.is_late = lambda _: False
        for _ in range(sweeps):
            at = (self._now_ms - _EPOCH_MS) // 1000 + _SWEEPS_SECONDS
            await self._deliver([Invocation(at, (), sweeps=True)])
            await self._serve_the_rest()

    async def _serve_the_rest(self) -> None:
        for _ in range(_MOST_RETRIES):
            if todo := set(range(len(self._events))) - self._done:
                await self._deliver([self._later(sorted(todo))])
        assert len(self._done) == len(self._events), "a message is never done"

    def _later(self, messages: Sequence[int]) -> Invocation:
        return Invocation((self._now_ms - _EPOCH_MS) // 1000 + self._history.retry_seconds, tuple(messages))

    async def _deliver(self, invocations: Sequence[Invocation]) -> None:
        under_way: list[asyncio.Task[None]] = []
        with patch.object(stopper, "decide", watched_decide):
            for invocation in invocations:
                self._now_ms = max(self._now_ms, ms(invocation.at))
                under_way.append(asyncio.create_task(self._invoke(invocation)))
                ticks = _MOST_TICKS if invocation.ticks_alone is None else invocation.ticks_alone
                await self._run_for(ticks, under_way)
            await self._run_for(_MOST_TICKS, under_way)
        for task in under_way:
            assert task.done(), "an invocation never ends"
            task.result()

    async def _run_for(self, ticks: int, under_way: Sequence[asyncio.Task[None]]) -> None:
        for _ in range(ticks):
            if all(task.done() for task in under_way):
                return
            await asyncio.sleep(0)

    async def _invoke(self, invocation: Invocation) -> None:
        environment = self._environment(SWEEPER if invocation.sweeps else invocation.environment)
        _run.set(_Run(invocation, environment))
        self.table.begin_reading()
        if invocation.sweeps:
            serving = asyncio.create_task(self._sweep())
        else:
            batch = environment.stopper.batch(lambda: 60)
            serving = asyncio.create_task(self._serve_all(batch, invocation.messages))
        death = asyncio.create_task(environment.died.wait())
        await asyncio.wait((serving, death), return_when=asyncio.FIRST_COMPLETED)
        death.cancel()
        if environment.died.is_set():
            serving.cancel()  # and no message of the batch is acknowledged
        else:
            self._done.update(serving.result())

    async def _sweep(self) -> list[int]:
        sweeper = make_sweeper(self.table, self.rtc, _in_thread, self._send_room_gone, self.now_ms)
        with suppress(Retryable):
            await sweeper.sweep(lambda: 60)
        return []

    def _send_room_gone(self, room: Room, tasks: Sequence[Task], time_ms: int) -> bool:
        event = parse_event(room_gone(room, tasks, time_ms), self._now_ms)
        assert event
        self._events.append(event)
        return True

    async def _serve_all(self, batch: Batch, messages: Sequence[int]) -> list[int]:
        # All at once: the handler's order within a batch (first what makes tasks known) is one of these.
        served = await asyncio.gather(*(self._serve(batch, number) for number in messages))
        return [number for number in served if number is not None]

    async def _serve(self, batch: Batch, number: int) -> int | None:
        self._received[number] += 1
        event = replace(self._events[number], is_second_try=self._received[number] > 1)
        try:
            served = await batch.serve(event)
        except Retryable:
            return None
        self.outcomes[number].extend(done.outcome for done in served.done)
        return number if served.failure is None else None

    def _environment(self, number: int) -> _Environment:
        environment = self._environments.get(number)
        if environment is None or environment.died.is_set():
            environment = self._environments[number] = _Environment(
                make_stopper(self.table, self.rtc, _in_thread, self.now_ms), asyncio.Event()
            )
        return environment


def _closes(event: Event, task: Task) -> bool:
    return event.is_stop and (task in event.tasks or (not event.task_ids and event.room == task.room))


def is_to_be_stopped(session: Session, event: Event, events: Sequence[Event], *, slices_may_hide: bool = False) -> bool:
    """Whether a stop event covers a session that runs at its time, and that the table can know of.

    Parameters
    ----------
    slices_may_hide
        Whether to leave out sessions that only slices report, and an older session's slices hide for a minute.
    """
    of_task = [one for one in events if not one.is_stop and session.task in one.tasks]
    slices_ms = [one.time_ms for one in of_task if one.type is EventType.SEGMENT_REAL_TIME_DATA]
    is_hidden = slices_may_hide and min(slices_ms, default=session.started_ms) < session.started_ms
    telling = [one for one in of_task if one.type is EventType.SEGMENT_STARTED or not is_hidden]
    heard_ms = max((one.time_ms for one in telling if one.time_ms <= event.time_ms), default=None)
    known = session.task in event.tasks or (
        not event.task_ids
        and event.room == session.task.room
        and heard_ms is not None
        and not any(_closes(one, session.task) and heard_ms <= one.time_ms < session.started_ms for one in events)
    )
    started_later = any(one.type is EventType.SEGMENT_STARTED and one.time_ms > event.time_ms for one in of_task)
    return event.is_stop and session.was_to_run_at(event.time_ms) and known and not started_later
