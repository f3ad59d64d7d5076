"""Observe only: everything is decided, nothing is stopped, and due stops are made once the mode is `stop`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from unittest.mock import patch

from hypothesis import example, given

from segments.events import EventType
from segments.stop_rules import Outcome
from tests.unit import rtc_model
from tests.unit.rtc_model import SETTINGS, History, Invocation, Life, Message, World, is_to_be_stopped
from tests.unit.test_time_decides import (
    LATE_EVENT_OF_A_RESTARTED_TASK,
    ROOM_ENDS_WHILE_ITS_TASK_STARTS,
    TASK_IS_SEEN_WHILE_ITS_ROOM_ENDS,
    calm_restarts,
    histories,
    thorough,
)

MODERATION, ROOM_ENDED, STARTED = EventType.MODERATION_VIOLATION, EventType.ROOM_ENDED, EventType.SEGMENT_STARTED


@contextmanager
def observing() -> Iterator[None]:
    """Let function environments that begin here only observe."""
    with patch.object(rtc_model, "SETTINGS", replace(SETTINGS, observes=True)):
        yield


def observed(history: History) -> World:
    with observing():
        return World(history).live()


@thorough(70)
@given(histories())
@example(LATE_EVENT_OF_A_RESTARTED_TASK)
@example(ROOM_ENDS_WHILE_ITS_TASK_STARTS)
def test_nothing_is_stopped_and_nothing_is_recorded_as_answered(history: History) -> None:
    world = observed(history)
    assert [request for request in world.rtc.requests if request.action == "StopSegment"] == []
    assert [task for task, _ in world.table.answers if task.task_id != "#room"] == []
    assert Outcome.STOPPED not in {outcome for outcomes in world.outcomes.values() for outcome in outcomes}


@thorough(70)
@given(calm_restarts())
@example(ROOM_ENDS_WHILE_ITS_TASK_STARTS)
@example(TASK_IS_SEEN_WHILE_ITS_ROOM_ENDS)
def test_after_switching_to_stop_the_same_history_ends_as_if_it_had_been_on(history: History) -> None:
    """Holds under the conditions of `test_every_task_that_ran_when_its_room_ended_is_stopped`.

    Nothing that was observed makes it stop more: no session that began after the event that stops it.
    """
    world = observed(history)
    requests = world.redeliver()
    lost = [
        (session, event)
        for session in world.running
        for event in history.events
        if is_to_be_stopped(session, event, history.events, slices_may_hide=True)
    ]
    assert lost == []
    for request in requests:
        if request.ended is not None and request.decision.api_is_to_be_asked:
            assert request.ended.started_ms <= request.decision.time_ms


def history(message: Message, *lives: Life) -> History:
    messages = (Message(STARTED, 0, ("audio",)), message)
    return History(lives, messages, (Invocation(0, (0,)), Invocation(message.sent, (1,))))


def test_what_somebody_else_has_stopped_is_told_and_is_open_no_longer() -> None:
    world = observed(history(Message(MODERATION, 10, ("audio",)), Life("audio", 0, ends=9)))
    assert world.outcomes[1] == [Outcome.ALREADY_STOPPED]
    record_of = Life("audio", 0).task
    record = world.table.read([record_of])[record_of]
    assert (record.is_open, record.watch) == (False, None)
    assert record.stop_event_time_ms is None
    # So the room's end asks about it no more, and a new start opens it again.
    assert world.table.note_start(record_of, 10**15)


def test_the_same_room_end_is_told_again_until_it_is_stopped() -> None:
    world = observed(history(Message(ROOM_ENDED, 10), Life("audio", 0)))
    with observing():
        world.redeliver()
    assert world.outcomes[1] == [Outcome.WOULD_STOP, Outcome.WOULD_STOP]
    world.redeliver()
    assert world.running == []
