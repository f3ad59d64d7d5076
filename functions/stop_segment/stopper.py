"""Serves the events of a batch: remember, decide, stop, record."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from segments.api_calls import Calls, InThread
from segments.cache import Cache
from segments.errors import Retryable, StopError
from segments.events import Event, EventType, Task
from segments.ledger import SegmentTable, room_item
from segments.rtc import RtcApi, Stopped
from segments.stop_rules import Outcome, Record, RunningTask, Verdict, decide, decide_from_api, is_late
from stop_segment.settings import Settings

_MOST_REMEMBERED = 10_000
_REMEMBERED_MS = 60_000
# RoomGone may concern a session that began unseen right after a stop, and no heartbeat is a duplicate.
_WITHOUT_WINDOW = (EventType.ROOM_GONE, EventType.HEARTBEAT)
_BEATS = dict.fromkeys((Outcome.STOPPED, Outcome.ALREADY_STOPPED, Outcome.SUPERSEDED), Outcome.HEARTBEAT)
_OBSERVED = {
    Verdict.DUPLICATE: Outcome.DUPLICATE,
    Verdict.SUPERSEDED: Outcome.SUPERSEDED,
    Verdict.ALREADY_STOPPED: Outcome.ALREADY_STOPPED,
    Verdict.STOP: Outcome.WOULD_STOP,
}


@dataclass(frozen=True)
class Done:
    """The result of a task. `task_id` is None if the outcome concerns the room."""

    task_id: str | None
    outcome: Outcome
    request_id: str | None = None


@dataclass(frozen=True)
class Served:
    """The result of an event: the served tasks, and the failed tasks."""

    done: list[Done]
    failed: list[tuple[str, StopError]] = field(default_factory=list)

    @property
    def failure(self) -> StopError | None:
        """The error of the message: a retryable error if a task has one, otherwise the error of any failed task."""
        for kind in (Retryable, StopError):
            for task_id, error in self.failed:
                if isinstance(error, kind):
                    return type(error)(error.code, f"task {task_id}: {error.message}", error.request_id)
        return None


@dataclass(eq=False)
class Stopper:
    """The part of a function environment that outlives an invocation."""

    settings: Settings
    table: SegmentTable
    api: RtcApi
    stops: Calls  # of StopSegment
    queries: Calls  # of GetSegmentTask
    in_thread: InThread
    now_ms: Callable[[], int]
    measure: Callable[[str, float], None]  # receives TimeToStop in ms, from an event to the API's answer
    _remembered: Cache[Task, tuple[int, int]] = field(default_factory=lambda: Cache(_MOST_REMEMBERED))

    def batch(self, seconds_left: Callable[[], float]) -> Batch:
        """Begin an invocation. A call is started only while `seconds_left()` is not negative."""
        return Batch(self, seconds_left)

    def remembers(self, task: Task, time_ms: int) -> bool:
        """Return whether a sighting at `time_ms` adds nothing to the table.

        A sighting adds nothing if an earlier sighting was recorded within the last minute: every room end since then
        has found the open task. An older sighting counts as new, since it may be from before a room's end.
        """
        since_ms, until_ms = self._remembered.get(task, (0, 0))
        return since_ms <= time_ms and self.now_ms() < until_ms

    def remember(self, task: Task, time_ms: int) -> None:
        """Remember for a minute that the task is open, and that its room had not ended at `time_ms`.

        After that minute, sightings are recorded again, in case another function environment has closed the task.
        """
        self._remembered[task] = time_ms, self.now_ms() + _REMEMBERED_MS

    def forget(self, task: Task) -> None:
        """Forget that the task is open, so that its next sighting is recorded."""
        self._remembered.pop(task, None)


class Batch:
    """The events of one invocation, which share reads, and share calls about the same task."""

    def __init__(self, stopper: Stopper, seconds_left: Callable[[], float]) -> None:
        self._in_thread = stopper.in_thread
        self._now_ms = stopper.now_ms
        self._settings = stopper.settings
        self._stopper = stopper
        self._table = stopper.table
        self._seconds_left = seconds_left
        self._reads = _SharedReads(stopper.table, stopper.in_thread)
        self._locks: defaultdict[Task, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._answered: dict[Task, Record] = {}
        self._failed: dict[Task, Retryable] = {}

    async def serve(self, event: Event) -> Served:
        """Serve an event. The result holds the errors of its tasks.

        Raises `Retryable` if the tasks could not be read from the table.
        """
        if event.type is EventType.SEGMENT_STARTED:
            return await self._start(event)
        if event.type is EventType.SEGMENT_REAL_TIME_DATA:
            return await self._see(event)
        if event.type is EventType.HEARTBEAT:
            return await self._beat(event)
        if event.task_ids:
            return await self._stop_all(event, dict.fromkeys(event.tasks))
        return await self._end_room(event)

    async def _beat(self, event: Event) -> Served:
        served = await self._stop_all(event, dict.fromkeys(event.tasks))
        # A heartbeat is not a stop: its outcome only shows that the whole path works.
        beats = [replace(done, outcome=_BEATS.get(done.outcome, done.outcome)) for done in served.done]
        return Served(beats, served.failed)

    async def _start(self, event: Event) -> Served:
        (task,) = event.tasks
        if not await self._in_thread(self._table.note_start, task, event.time_ms, event.business_id):
            return Served([Done(task.task_id, Outcome.KNOWN)])
        return await self._stop_if_room_is_over(event, task)

    async def _see(self, event: Event) -> Served:
        (task,) = event.tasks
        known = Served([Done(task.task_id, Outcome.KNOWN)])
        # An earlier attempt may have opened the task, after a room's end that found it closed.
        if not event.is_second_try and self._stopper.remembers(task, event.time_ms):
            return known
        record = await self._reads.read(task) or Record()
        if record.covers(event.time_ms):
            return known  # a slice from before the stop
        if not record.is_open and not await self._in_thread(
            self._table.note_sighting, task, event.time_ms, event.business_id
        ):
            return known
        served = await self._stop_if_room_is_over(event, task)
        if served == known:
            self._stopper.remember(task, event.time_ms)
        return served

    async def _end_room(self, event: Event) -> Served:
        # First the end, then the tasks: a task that is opened after the read finds that the room has ended.
        before: Record = await self._in_thread(self._table.note_room_end, event, self._now_ms())
        open_tasks: dict[Task, Record] = await self._in_thread(self._table.open_tasks, event.room)
        if open_tasks:
            return await self._stop_all(event, open_tasks)
        is_answered = before.covers(event.time_ms - self._settings.duplicate_window_ms)
        return Served([Done(None, Outcome.DUPLICATE if is_answered else Outcome.NO_OPEN_TASKS)])

    async def _stop_if_room_is_over(self, event: Event, task: Task) -> Served:
        # After the task was written: this read finds a room's end that did not find the task.
        room = await self._reads.read(room_item(event.room)) or Record()
        if room.stop_event_time_ms is None or not room.covers(event.time_ms):
            return Served([Done(task.task_id, Outcome.KNOWN)])
        room_end = Event(
            # An unknown or missing type still means that the room ended.
            type=EventType(room.event_type) if room.event_type in set(EventType) else EventType.ROOM_ENDED,
            room=event.room,
            time_ms=room.stop_event_time_ms,
            event_id=room.event_id,
            business_id=room.business_id or event.business_id,
            is_second_try=event.is_second_try,
        )
        return await self._stop_all(room_end, {task: None})

    async def _stop_all(self, event: Event, records: Mapping[Task, Record | None]) -> Served:
        results = await asyncio.gather(
            *(self._stop(task, event, record) for task, record in records.items()), return_exceptions=True
        )
        served = Served([])
        for task, result in zip(records, results, strict=True):
            if isinstance(result, Done):
                served.done.append(result)
            elif isinstance(result, StopError):
                served.failed.append((task.task_id, result))
            else:
                raise result
        return served

    async def _stop(self, task: Task, event: Event, record: Record | None) -> Done:
        async with self._locks[task]:
            if task in self._failed:
                raise self._failed[task]
            answered = self._answered.get(task)
            if answered and not (record and record.covers(answered.stop_event_time_ms or 0)):
                record = answered  # the record that was read for the event is older
            record = record or await self._reads.read(task) or Record()
            try:
                return await self._decide_and_stop(task, event, record)
            except Retryable as error:
                self._failed[task] = error
                raise

    async def _decide_and_stop(self, task: Task, event: Event, record: Record) -> Done:
        is_heartbeat = event.type is EventType.HEARTBEAT
        verdict = decide(
            event.time_ms,
            record,
            is_late=is_late(event, self._now_ms(), self._settings.stale_after_ms),
            duplicate_window_ms=0 if event.type in _WITHOUT_WINDOW else self._settings.duplicate_window_ms,
        )
        request_id = None
        if verdict is Verdict.ASK:
            verdict, request_id = await self._ask(task, event, record)
        elif verdict is Verdict.STOP and self._settings.observes:
            verdict, request_id = await self._look(task, event)
        if self._settings.observes:
            if not is_heartbeat:
                return await self._observe(task, record, Done(task.task_id, _OBSERVED[verdict], request_id))
            verdict = Verdict.ALREADY_STOPPED if verdict is Verdict.STOP else verdict  # observing ends here
        if verdict is Verdict.DUPLICATE:
            return Done(task.task_id, Outcome.DUPLICATE)
        if verdict is Verdict.SUPERSEDED:
            return Done(task.task_id, Outcome.SUPERSEDED, request_id)
        if verdict is Verdict.STOP:
            # The record's BusinessId is used only if the event does not name the task.
            business_id = event.business_id or (None if event.task_ids else record.business_id)
            stopped = await self._stopper.stops.make(
                self._stopper.api.stop_segment, task, business_id, seconds_left=self._seconds_left, message=event
            )
            # SQS's clock may be ahead, and CloudWatch has no percentiles of metrics with negative values.
            if not is_heartbeat:
                self._stopper.measure("TimeToStop", max(0, self._now_ms() - event.time_ms))
        else:
            stopped = Stopped(Outcome.ALREADY_STOPPED, request_id)
        # After the call: a crash in between costs one more call, but never loses a stop.
        self._answered[task] = await self._in_thread(
            self._table.note_stop, task, record, event, stopped.outcome, stopped.request_id, self._now_ms()
        )
        self._stopper.forget(task)
        return Done(task.task_id, stopped.outcome, stopped.request_id)

    async def _look(self, task: Task, event: Event) -> tuple[Verdict, str | None]:
        """Ask the API whether the task runs, to predict the answer of StopSegment without a stop."""
        found, request_id = await self._get_segment_task(task, event)
        return Verdict.STOP if found and not found.is_over else Verdict.ALREADY_STOPPED, request_id

    async def _observe(self, task: Task, record: Record, done: Done) -> Done:
        """Finish a stop in observe mode: record no answer, but close a task that is over."""
        if done.outcome is Outcome.ALREADY_STOPPED and record.watch:
            await self._in_thread(self._table.note_over, task, record, self._now_ms())
            self._stopper.forget(task)
        return done

    async def _get_segment_task(self, task: Task, event: Event) -> tuple[RunningTask | None, str | None]:
        answer: tuple[RunningTask | None, str | None] = await self._stopper.queries.make(
            self._stopper.api.get_segment_task, task, seconds_left=self._seconds_left, message=event
        )
        return answer

    async def _ask(self, task: Task, event: Event, record: Record) -> tuple[Verdict, str | None]:
        found, request_id = await self._get_segment_task(task, event)
        verdict = decide_from_api(event.time_ms, found, record, self._now_ms())
        if verdict is Verdict.ASK:
            raise Retryable("TaskUnclear", "GetSegmentTask gave no start time: send a new stop event", request_id)
        if found and verdict is Verdict.SUPERSEDED and found.started_at_ms > event.time_ms:
            # A start in the future, perhaps in another unit, would supersede every later stop.
            await self._in_thread(self._table.note_start, task, min(found.started_at_ms, self._now_ms()))
        return verdict, request_id


class _SharedReads:
    """Reads the records that the messages of a batch need at the same time, in one call of DynamoDB."""

    def __init__(self, table: SegmentTable, in_thread: InThread) -> None:
        self._table = table
        self._in_thread = in_thread
        self._wanted: dict[Task, None] = {}
        self._next: asyncio.Task[dict[Task, Record]] | None = None  # not yet begun

    async def read(self, task: Task) -> Record | None:
        """Return a task's record, or None. The read begins after this call, so it finds every earlier write."""
        if self._next is None:
            self._next = asyncio.create_task(self._read())
            # Otherwise asyncio logs errors after their last caller has gone.
            self._next.add_done_callback(lambda read: read.cancelled() or read.exception())
        self._wanted[task] = None
        # Shielded: one caller's time-out must not cancel the read of the others.
        return (await asyncio.shield(self._next)).get(task)

    async def _read(self) -> dict[Task, Record]:
        wanted, self._wanted, self._next = self._wanted, {}, None
        found: dict[Task, Record] = await self._in_thread(self._table.read, list(wanted))
        return found
