"""Rules, orders and conditions that the code could lack: without each of them the explorer must find a history."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import AsyncMock, patch

from segments import stop_rules
from segments.events import Event, Room, Task
from segments.ledger import SegmentTable, room_item
from segments.stop_rules import Outcome, Record, Verdict
from stop_segment import stopper
from stop_segment.arrivals import Arrival
from stop_segment.queues import Queues
from stop_segment.stopper import Batch, Done, Served
from sweep_rooms import sweeper
from sweep_rooms.checks import Check, decide_check
from tests.explorer.scheduler import FAULT, FREE, PREEMPTION, Budget
from tests.unit.rtc_model import WatchedTable

# mypy: disable-error-code="no-untyped-def"


@dataclass(frozen=True)
class Break:
    """A part to leave out, the world and the budget that show its absence, and the broken promise."""

    name: str
    patched: Callable[[], AbstractContextManager[Any]]
    world: str
    budget: Budget
    found: str


def without_condition(method: str, attribute: str) -> Callable[[], AbstractContextManager[Any]]:
    """Let a write of the table ask nothing about an attribute."""
    real_method, real_update = getattr(SegmentTable, method), SegmentTable._update

    def broken(self: SegmentTable, *arguments: Any, **options: Any) -> Any:
        def update(task: Task, *given: Any, when: Sequence[tuple[Any, ...]] = (), **rest: Any) -> Record:
            return real_update(self, task, *given, when=[one for one in when if one[0] != attribute], **rest)

        with patch.object(self, "_update", update):
            return real_method(self, *arguments, **options)

    broken.__name__ = method
    return lambda: patch.object(SegmentTable, method, broken)


def no_rule_2() -> AbstractContextManager[Any]:
    real = stop_rules.decide

    def decide(time_ms: int, record: Record, **options: Any) -> Verdict:
        verdict = real(time_ms, record, **options)
        return Verdict.STOP if verdict is Verdict.SUPERSEDED else verdict

    return patch.object(stop_rules, "decide", decide)


async def record_first(self: Batch, task: Task, event: Event, record: Record) -> Done:
    await self._in_thread(self._table.note_stop, task, record, event, Outcome.STOPPED, None, self._now_ms())
    return await _decide_and_stop(self, task, event, record)


_decide_and_stop = Batch._decide_and_stop
_see = Batch._see
_end_room = Batch._end_room


async def see_as_if_for_the_first_time(self: Batch, event: Event) -> Served:
    return await _see(self, replace(event, is_second_try=False))


async def read_tasks_before_the_end_is_written(self: Batch, event: Event) -> Served:
    open_tasks = await self._in_thread(self._table.open_tasks, event.room)
    await self._in_thread(self._table.note_room_end, event, self._now_ms())
    return await self._stop_all(event, open_tasks) if open_tasks else Served([Done(None, Outcome.NO_OPEN_TASKS)])


def read_room_before(note: str) -> Any:
    async def broken(self: Batch, event: Event) -> Served:
        (task,) = event.tasks
        room = await self._reads.read(room_item(task.room)) or Record()
        await self._in_thread(getattr(self._table, note), task, event.time_ms)
        with patch.object(self._reads, "read", AsyncMock(return_value=room)):
            return await self._stop_if_room_is_over(event, task)

    return broken


def without_values(method: str, attribute: str) -> Callable[[], AbstractContextManager[Any]]:
    """Let a write of the table leave out an attribute."""
    real_method, real_change = getattr(SegmentTable, method), SegmentTable._change

    def broken(self: SegmentTable, *arguments: Any, **options: Any) -> Any:
        def change(task: Task, values: Mapping[str, Any], **rest: Any) -> Mapping[str, Any]:
            return real_change(self, task, {name: value for name, value in values.items() if name != attribute}, **rest)

        with patch.object(self, "_change", change):
            return real_method(self, *arguments, **options)

    broken.__name__ = method
    return lambda: patch.object(SegmentTable, method, broken)


def as_if_known(broken: Callable[[Record, Event], Record]) -> Callable[[], AbstractContextManager[Any]]:
    """Let an answer be written as if the record were another one."""
    real = SegmentTable._answered

    def answered(self: SegmentTable, known: Record, event: Event, *rest: Any) -> dict[str, Any]:
        return real(self, broken(known, event), event, *rest)

    return lambda: patch.object(SegmentTable, "_answered", answered)


async def end_that_is_no_news(self: Batch, event: Event) -> Served:
    room = await self._reads.read(room_item(event.room)) or Record()
    return Served([Done(None, Outcome.DUPLICATE)]) if room.covers(event.time_ms) else await _end_room(self, event)


async def see_and_not_look_if_it_is_open(self: Batch, event: Event) -> Served:
    (task,) = event.tasks
    record = await self._reads.read(task) or Record()
    return Served([Done(task.task_id, Outcome.KNOWN)]) if record.is_open else await _see(self, event)


def open_tasks_of_the_global_index(self: WatchedTable, room: Room) -> dict[Task, Record]:
    self.begin_reading()
    watched = dict(self.watched_rooms()).get(room, {})
    return self._watched({task: record for task, record in watched.items() if record.is_open})


def gone_is_gone_whatever_was_answered_since(*arguments: Any, **options: Any) -> Check:
    return decide_check(*arguments, **{**options, "last_round_began_at_ms": 0})


def gone_once_is_enough(tasks: Any, gone_at_ms: int | None, asked_at_ms: int, *, exists: bool, **options: Any) -> Check:
    check = decide_check(tasks, gone_at_ms, asked_at_ms, exists=exists, **options)
    return check if exists else replace(check, to_stop=tuple(tasks), stop_time_ms=asked_at_ms)


def gone_since_it_is_told(*arguments: Any, **options: Any) -> Check:
    # The event's time is never after its sending.
    check = decide_check(*arguments, **options)
    return replace(check, stop_time_ms=check.stop_time_ms + 10**9)


def in_batch(name: str, broken: Any) -> Callable[[], AbstractContextManager[Any]]:
    return lambda: patch.object(Batch, name, broken)


BREAKS = [
    Break(
        "rule 1: an answered event is answered again",
        lambda: patch.object(stop_rules, "_is_answered", lambda *_: False),
        "two ends of a task",
        FREE,
        "a second request",
    ),
    Break(
        "rule 2: a known start does not count",
        no_rule_2,
        "a session whose start is reported",
        FREE,
        "wrong stop: the table",
    ),
    Break(
        "rule 3: nothing counts as late",
        lambda: patch.object(stopper, "is_late", lambda *_: False),
        "an end that is late",
        FREE,
        "wrong stop: the event was late",
    ),
    Break(
        "rule 3: a second try does not count as late",
        lambda: patch.object(stopper, "is_late", lambda event, now_ms, ms: now_ms - event.time_ms > ms),
        "a session whose start is not reported",
        FAULT,
        "wrong stop: the event was late",
    ),
    Break(
        "rule 3: whatever the API says, stop",
        lambda: patch.object(stopper, "decide_from_api", lambda *_: Verdict.STOP),
        "an end that is late",
        FREE,
        "wrong stop: the event was late",
    ),
    Break(
        "the record is written before the call",
        in_batch("_decide_and_stop", record_first),
        "a start and a room's end",
        FAULT,
        "lost",
    ),
    Break(
        "a room's end reads before it writes",
        in_batch("_end_room", read_tasks_before_the_end_is_written),
        "a start and a room's end",
        PREEMPTION,
        "lost",
    ),
    Break(
        "a start reads before it writes",
        in_batch("_start", read_room_before("note_start")),
        "a start and a room's end",
        PREEMPTION,
        "lost",
    ),
    Break(
        "a sighting reads before it writes",
        in_batch("_see", read_room_before("note_sighting")),
        "a slice and a room's end",
        PREEMPTION,
        "lost",
    ),
    Break(
        "a sighting whose stop failed is taken for one that says nothing new",
        in_batch("_see", see_as_if_for_the_first_time),
        "two sessions and their slices, the last one late",
        FAULT,
        "lost",
    ),
    Break(
        "a room's end that is no news looks for no tasks",
        in_batch("_end_room", end_that_is_no_news),
        "a start and a room's end",
        FAULT,
        "lost",
    ),
    Break(
        "a slice of an open task does not look at its room",
        in_batch("_see", see_and_not_look_if_it_is_open),
        "a slice and a room's end",
        FAULT,
        "lost",
    ),
    Break(
        "a room's open tasks are read from the global index",
        lambda: patch.object(WatchedTable, "open_tasks", open_tasks_of_the_global_index),
        "a start and a room's end",
        PREEMPTION,
        "lost",
    ),
    Break(
        "a start overwrites a newer one",
        without_condition("note_start", "started_at"),
        "two sessions and their ends",
        FREE,
        "wrong stop: the table",
    ),
    Break(
        "a start opens what was stopped later",
        without_condition("note_start", "stop_event_time"),
        "an end before its start",
        FREE,
        "though its stop was answered",
    ),
    Break(
        "a sighting opens what was stopped later",
        without_condition("note_sighting", "stop_event_time"),
        "slices around a room's end",
        PREEMPTION,
        "though its stop was answered",
    ),
    Break(
        "a sighting opens what has started later",
        without_condition("note_sighting", "started_at"),
        "a slice and the start of the next session",
        PREEMPTION,
        "since before its newest start",
    ),
    Break(
        "a task that is opened again keeps its end",
        without_values("note_start", "expires_at"),
        "a session whose start is reported",
        FREE,
        "expires",
    ),
    Break("nobody watches the task", without_values("note_start", "watch"), "an end that is lost", FREE, "an orphan"),
    Break(
        "a slice that opens a task does not have it watched",
        without_values("note_sighting", "watch"),
        "an end that is lost, of a task of which slices tell",
        FREE,
        "an orphan",
    ),
    Break(
        "a sighting leaves since when the task is open",
        without_values("note_sighting", "open_since"),
        "a slice and a room's end",
        FREE,
        "lost",
    ),
    Break(
        "an answer closes what was opened after its event",
        as_if_known(lambda known, event: replace(known, open_since_ms=event.time_ms) if known.is_open else known),
        "a session whose start is reported",
        PREEMPTION,
        "is not open",
    ),
    Break(
        "an answer closes for good what only slices report",
        as_if_known(lambda known, _: replace(known, watch=None)),
        "an end that is lost, of a session whose only slice is remembered",
        FREE,
        "an orphan",
    ),
    Break(
        "a room was gone whatever was answered since",
        lambda: patch.object(sweeper, "decide_check", gone_is_gone_whatever_was_answered_since),
        "a room that is away, is there, and is away",
        FAULT,
        "wrong stop: the room was away",
    ),
    Break(
        "an answer overwrites a newer one",
        without_condition("note_stop", "stop_event_time"),
        "two ends of an unknown task",
        PREEMPTION,
        "not the newest",
    ),
    Break(
        "an answer closes a task that was started again",
        without_condition("note_stop", "open_since"),
        "a session whose start is reported",
        PREEMPTION,
        "is not open",
    ),
    Break(
        "a room's end overwrites a newer one",
        without_condition("note_room_end", "stop_event_time"),
        "two rooms' ends before the start",
        PREEMPTION,
        "not the newest",
    ),
    Break(
        "a room that is gone once is gone",
        lambda: patch.object(sweeper, "decide_check", gone_once_is_enough),
        "a room that is away for a moment",
        FREE,
        "wrong stop: the room was away",
    ),
    Break(
        "a room is gone since the sweeper says so",
        lambda: patch.object(sweeper, "decide_check", gone_since_it_is_told),
        "a room that comes back while it is swept",
        PREEMPTION,
        "wrong stop",
    ),
    Break(
        "a workflow is not answered about its success",
        lambda: patch.object(Queues, "send_answers", lambda _, answers: {one.message_id for one, _ in answers}),
        "a workflow waits: the task is stopped",
        FREE,
        "never hears",
    ),
    Break(
        "a lost answer about a dead letter is not asked for",
        lambda: patch.object(Queues, "send_given_up", lambda *_: set()),
        "a workflow waits: the API rejects",
        FAULT,
        "never hears",
    ),
    Break(
        "a message with a dead letter is served again for its answer",
        lambda: patch.object(Arrival, "is_given_up", False),
        "a workflow waits: the API is down until its message is given up",
        FAULT,
        "success beside a dead letter",
    ),
]
