"""The planted faults: each removes a rule, an order of steps or a condition, and the explorer must find each."""

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
    """A part of the code to remove, the world and the budget that show its absence, and the promise that breaks."""

    name: str
    patched: Callable[[], AbstractContextManager[Any]]
    world: str
    budget: Budget
    found: str


def without_condition(method: str, attribute: str) -> Callable[[], AbstractContextManager[Any]]:
    """Remove the conditions on an attribute from a write of the table."""
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


async def record_before_the_call(self: Batch, task: Task, event: Event, record: Record) -> Done:
    await self._in_thread(self._table.note_stop, task, record, event, Outcome.STOPPED, None, self._now_ms())
    return await _decide_and_stop(self, task, event, record)


_decide_and_stop = Batch._decide_and_stop
_see = Batch._see
_end_room = Batch._end_room


async def treat_a_retried_sighting_as_new(self: Batch, event: Event) -> Served:
    return await _see(self, replace(event, is_second_try=False))


async def read_open_tasks_before_the_end_is_written(self: Batch, event: Event) -> Served:
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
    """Remove an attribute from a write of the table."""
    real_method, real_change = getattr(SegmentTable, method), SegmentTable._change

    def broken(self: SegmentTable, *arguments: Any, **options: Any) -> Any:
        def change(task: Task, values: Mapping[str, Any], **rest: Any) -> Mapping[str, Any]:
            return real_change(self, task, {name: value for name, value in values.items() if name != attribute}, **rest)

        with patch.object(self, "_change", change):
            return real_method(self, *arguments, **options)

    broken.__name__ = method
    return lambda: patch.object(SegmentTable, method, broken)


def with_record(broken: Callable[[Record, Event], Record]) -> Callable[[], AbstractContextManager[Any]]:
    """Replace the record for which an answer is written."""
    real = SegmentTable._answered

    def answered(self: SegmentTable, known: Record, event: Event, *rest: Any) -> dict[str, Any]:
        return real(self, broken(known, event), event, *rest)

    return lambda: patch.object(SegmentTable, "_answered", answered)


async def skip_the_open_tasks_of_an_answered_end(self: Batch, event: Event) -> Served:
    room = await self._reads.read(room_item(event.room)) or Record()
    return Served([Done(None, Outcome.DUPLICATE)]) if room.covers(event.time_ms) else await _end_room(self, event)


async def skip_the_room_of_an_open_task(self: Batch, event: Event) -> Served:
    (task,) = event.tasks
    record = await self._reads.read(task) or Record()
    return Served([Done(task.task_id, Outcome.KNOWN)]) if record.is_open else await _see(self, event)


def open_tasks_from_the_global_index(self: WatchedTable, room: Room) -> dict[Task, Record]:
    self.begin_reading()
    watched = dict(self.watched_rooms()).get(room, {})
    return self._watched({task: record for task, record in watched.items() if record.is_open})


def ignore_later_answers_about_the_room(*arguments: Any, **options: Any) -> Check:
    return decide_check(*arguments, **{**options, "last_round_began_at_ms": 0})


def stop_after_one_look(tasks: Any, gone_at_ms: int | None, asked_at_ms: int, *, exists: bool, **options: Any) -> Check:
    check = decide_check(tasks, gone_at_ms, asked_at_ms, exists=exists, **options)
    return check if exists else replace(check, to_stop=tuple(tasks), stop_time_ms=asked_at_ms)


def use_the_time_of_sending(*arguments: Any, **options: Any) -> Check:
    # An event's time is at most the time of its sending.
    check = decide_check(*arguments, **options)
    return replace(check, stop_time_ms=check.stop_time_ms + 10**9)


def in_batch(name: str, broken: Any) -> Callable[[], AbstractContextManager[Any]]:
    return lambda: patch.object(Batch, name, broken)


BREAKS = [
    Break(
        "rule 1: an answered event is not a duplicate",
        lambda: patch.object(stop_rules, "_is_answered", lambda *_: False),
        "two ends of a task",
        FREE,
        "a second request",
    ),
    Break(
        "rule 2: a known later start does not supersede an event",
        no_rule_2,
        "a session whose start is reported",
        FREE,
        "wrong stop: the table",
    ),
    Break(
        "rule 3: no event is late",
        lambda: patch.object(stopper, "is_late", lambda *_: False),
        "an end that is late",
        FREE,
        "wrong stop: the event was late",
    ),
    Break(
        "rule 3: a retried event is not late",
        lambda: patch.object(stopper, "is_late", lambda event, now_ms, ms: now_ms - event.time_ms > ms),
        "a session whose start is not reported",
        FAULT,
        "wrong stop: the event was late",
    ),
    Break(
        "rule 3: the API's answer is ignored",
        lambda: patch.object(stopper, "decide_from_api", lambda *_: Verdict.STOP),
        "an end that is late",
        FREE,
        "wrong stop: the event was late",
    ),
    Break(
        "the record is written before the call",
        in_batch("_decide_and_stop", record_before_the_call),
        "a start and a room's end",
        FAULT,
        "lost",
    ),
    Break(
        "a room's end reads the open tasks before it is written",
        in_batch("_end_room", read_open_tasks_before_the_end_is_written),
        "a start and a room's end",
        PREEMPTION,
        "lost",
    ),
    Break(
        "a start reads the room before it is written",
        in_batch("_start", read_room_before("note_start")),
        "a start and a room's end",
        PREEMPTION,
        "lost",
    ),
    Break(
        "a sighting reads the room before it is written",
        in_batch("_see", read_room_before("note_sighting")),
        "a slice and a room's end",
        PREEMPTION,
        "lost",
    ),
    Break(
        "a retried sighting is treated as new",
        in_batch("_see", treat_a_retried_sighting_as_new),
        "two sessions and their slices, the last one late",
        FAULT,
        "lost",
    ),
    Break(
        "an answered room end does not read the open tasks",
        in_batch("_end_room", skip_the_open_tasks_of_an_answered_end),
        "a start and a room's end",
        FAULT,
        "lost",
    ),
    Break(
        "a slice of an open task does not read its room",
        in_batch("_see", skip_the_room_of_an_open_task),
        "a slice and a room's end",
        FAULT,
        "lost",
    ),
    Break(
        "a room's open tasks are read from the global index",
        lambda: patch.object(WatchedTable, "open_tasks", open_tasks_from_the_global_index),
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
        "a start opens a task that was stopped later",
        without_condition("note_start", "stop_event_time"),
        "an end before its start",
        FREE,
        "though its stop was answered",
    ),
    Break(
        "a sighting opens a task that was stopped later",
        without_condition("note_sighting", "stop_event_time"),
        "slices around a room's end",
        PREEMPTION,
        "though its stop was answered",
    ),
    Break(
        "a sighting opens a task that started later",
        without_condition("note_sighting", "started_at"),
        "a slice and the start of the next session",
        PREEMPTION,
        "since before its newest start",
    ),
    Break(
        "a task that is opened again keeps `expires_at`",
        without_values("note_start", "expires_at"),
        "a session whose start is reported",
        FREE,
        "expires",
    ),
    Break("a start does not set `watch`", without_values("note_start", "watch"), "a lost end", FREE, "an orphan"),
    Break(
        "a slice does not set `watch`",
        without_values("note_sighting", "watch"),
        "a lost end of a task that only slices report",
        FREE,
        "an orphan",
    ),
    Break(
        "a sighting does not set `open_since`",
        without_values("note_sighting", "open_since"),
        "a slice and a room's end",
        FREE,
        "lost",
    ),
    Break(
        "an answer closes a task that was opened after the event",
        with_record(lambda known, event: replace(known, open_since_ms=event.time_ms) if known.is_open else known),
        "a session whose start is reported",
        PREEMPTION,
        "is not open",
    ),
    Break(
        "an answer removes `watch` from a task that only slices report",
        with_record(lambda known, _: replace(known, watch=None)),
        "a lost end of a session whose only slice is remembered",
        FREE,
        "an orphan",
    ),
    Break(
        "an older answer that the room is gone counts despite a newer one",
        lambda: patch.object(sweeper, "decide_check", ignore_later_answers_about_the_room),
        "a room that is empty, occupied, and empty again",
        FAULT,
        "wrong stop: the room was empty",
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
        "two ends of a room, the first one before the start",
        PREEMPTION,
        "not the newest",
    ),
    Break(
        "one answer that a room is gone is enough",
        lambda: patch.object(sweeper, "decide_check", stop_after_one_look),
        "a room that is empty for a moment",
        FREE,
        "wrong stop: the room was empty",
    ),
    Break(
        "a RoomGone event has the time of its sending",
        lambda: patch.object(sweeper, "decide_check", use_the_time_of_sending),
        "a room that comes back while it is swept",
        PREEMPTION,
        "wrong stop",
    ),
    Break(
        "a workflow does not receive its success",
        lambda: patch.object(Queues, "send_answers", lambda _, answers: {one.message_id for one, _ in answers}),
        "a workflow waits: the task is stopped",
        FREE,
        "receives no answer",
    ),
    Break(
        "a lost answer about a dead letter is not sent again",
        lambda: patch.object(Queues, "send_given_up", lambda *_: set()),
        "a workflow waits: the API rejects",
        FAULT,
        "receives no answer",
    ),
    Break(
        "a message that has a dead letter is served again",
        lambda: patch.object(Arrival, "is_given_up", False),
        "a workflow waits: the API is down until its message is given up",
        FAULT,
        "success beside a dead letter",
    ),
]
