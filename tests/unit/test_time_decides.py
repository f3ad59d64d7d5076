"""Random histories of larger worlds keep the promises that the explorer checks in every history of small worlds.

A world has rooms, tasks and sessions, and the messages about them that two environments of the callback function queue.
Some ends are lost, some slices arrive after the end, and some sessions are shorter than a slice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from random import Random
from typing import Any
from unittest.mock import patch

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from receive_callback.slices import QueuedSlices, Slice
from segments.events import EventType
from segments.ledger import ROOM_ITEM
from segments.stop_rules import Outcome
from stop_segment import stopper
from tests.examples import examples
from tests.explorer.play import Played
from tests.explorer.promises import judge
from tests.explorer.scheduler import Budget, Loop
from tests.explorer.worlds import World
from tests.unit import rtc_model
from tests.unit.rtc_model import SETTINGS, Message, Occupied, PlannedSession, watched_decide

SLICE_SECONDS, HOUR, DAY = 20, 3_600, 86_400
SWEEP_SECONDS = SETTINGS.sweep_every_ms // 1000
LAGS = st.sampled_from((0, 0, 1, 7, 400))
CLOCKS = st.sampled_from((0, None, 2, 400, DAY))
BUDGETS = st.builds(Budget, st.integers(0, 2), st.integers(0, 1))  # larger ones have more documented exceptions

Draw = Callable[[st.SearchStrategy[Any]], Any]


def callbacks_of(draw: Draw, session: PlannedSession, room: Occupied, *, starts_are_sent: bool) -> list[Message]:
    def report(kind: EventType, at: int, *task_ids: str) -> Message:
        # A late start from a clock that runs ahead would be the start of a later session.
        ahead = 0 if kind is EventType.SEGMENT_STARTED else draw(CLOCKS)
        return Message(kind, at, task_ids, session.room_id, ahead, draw(LAGS))

    reports = [report(EventType.SEGMENT_STARTED, session.starts, session.task_id)] if starts_are_sent else []
    slices = list(range(session.starts + SLICE_SECONDS, room.ends + SLICE_SECONDS, SLICE_SECONDS))
    some = draw(st.sets(st.sampled_from(slices[:2] + slices[-2:]), max_size=2))
    reports += [report(EventType.SEGMENT_REAL_TIME_DATA, at, session.task_id) for at in sorted(some)]
    if draw(st.booleans()):
        reports.append(report(EventType.ROOM_DESTROY, room.ends))
    if draw(st.booleans()):
        at = session.starts + draw(st.sampled_from((1, 10, 40)))
        reports.append(report(EventType.MODERATION_VIOLATION, at, session.task_id))
    return reports


def queued_of(draw: Draw, callbacks: Sequence[Message]) -> list[Message]:
    """Deliver callbacks to two environments of the callback function, and return those that they queue."""
    now = 0
    memories = [QueuedSlices(10_000, lambda: now) for _ in range(2)]
    queued = []
    for callback in sorted(callbacks, key=lambda callback: callback.sent):
        now, memory = callback.sent, draw(st.sampled_from(memories))
        if callback.type is EventType.SEGMENT_REAL_TIME_DATA:
            found = Slice(("app", callback.room_id, callback.task_ids[0]), callback.at * 1000)
            if found in memory:
                continue
            memory.add(found)
        elif callback.type is EventType.ROOM_DESTROY:
            memory.forget(("app", callback.room_id))
        queued.append(callback)
    return queued


@st.composite
def worlds(draw: Draw) -> tuple[World, list[Message]]:
    """Create a world with its queued messages, and a list of all callbacks, queued or not."""
    sessions: list[PlannedSession] = []
    rooms: list[Occupied] = []
    callbacks: list[Message] = []
    starts_are_sent = draw(st.booleans())
    for number in range(draw(st.sampled_from((1, 1, 2)))):
        room_id, at = f"room-{number}", draw(st.sampled_from((0, 3, 30)))
        days = []
        for _ in range(draw(st.sampled_from((1, 2, 2, 3)))):
            days.append(Occupied(at, at + draw(st.sampled_from((5, 25, 70, 400))), room_id))
            at = days[-1].ends + draw(st.sampled_from((3, 20, 40, 200, HOUR, DAY)))
        for day, later in zip(days, [*days[1:], None], strict=True):
            for task_id in draw(st.sampled_from((("audio",), ("audio",), ("audio", "video")))):
                # A session that is not stopped runs until the next one begins.
                sessions.append(PlannedSession(task_id, day.starts, later.starts - 1 if later else None, room_id))
                callbacks += callbacks_of(draw, sessions[-1], day, starts_are_sent=starts_are_sent)
        rooms += days
    end = max(room.ends for room in rooms) + 1000
    first = range(draw(st.integers(0, SWEEP_SECONDS)), min(end, HOUR), SWEEP_SECONDS)
    sweeps = draw(st.sampled_from(((), (*first, *range(end, end + 10 * SWEEP_SECONDS, SWEEP_SECONDS)))))
    world = World(
        "random",
        tuple(sessions),
        tuple(queued_of(draw, callbacks)),
        sweeps=sweeps,
        served_by=end,
        room=tuple(rooms),
        batches=draw(st.booleans()),
    )
    return world, callbacks


@contextmanager
def played(
    world: World, random: Random, left: Budget, judged: Callable[[Played], Iterable[str]] = judge
) -> Iterator[Played]:
    """Play a world to its end, with random choices within the budget."""
    with closing(Loop()) as loop, patch.object(stopper, "decide", watched_decide):
        play = Played(world, loop, judged)
        try:
            while choices := [choice for choice in play.choices() if left.affords(choice.cost)]:
                choice = random.choice(choices)
                left = left.without(choice.cost)
                choice.happen()
                assert not (broken := play.broken()), "\n".join([*play.story, *broken])
            yield play
        finally:
            play.end()


def thorough(hundredths: int) -> settings:
    return settings(max_examples=examples(hundredths), suppress_health_check=[HealthCheck.too_slow])


@thorough(150)
@given(worlds(), st.randoms(use_true_random=False), BUDGETS)
def test_promises_hold_in_random_histories(drawn: tuple[World, list[Message]], random: Random, budget: Budget) -> None:
    """Each deployment reports either every start or none.

    After the last sweep, no session that a callback reported, queued or not, runs in a room that is gone.
    """
    world, callbacks = drawn
    # If the sweeper has stopped a task, a room's end does not find the task's next session without a report.
    not_promised = "lost" if world.sweeps else "an orphan"

    def judged(play: Played) -> Iterator[str]:
        return (broken for broken in judge(play) if not broken.startswith(not_promised))

    with played(world, random, budget, judged) as play:
        reports = [callback.event for callback in callbacks if not callback.event.is_stop]
        for session in play.rtc.sessions if world.sweeps else ():
            is_reported = any(one.time_ms >= session.started_ms and session.task in one.tasks for one in reports)
            assert not (is_reported and session.runs_at(play.now_ms())), "\n".join(play.story)


@thorough(50)
@given(worlds(), st.randoms(use_true_random=False), BUDGETS)
def test_observing_stops_no_task_and_records_no_answer(
    drawn: tuple[World, list[Message]], random: Random, budget: Budget
) -> None:
    """The first messages in `stop` mode therefore stop every task that an observed message would have stopped."""
    observing = replace(SETTINGS, observes=True)
    with patch.object(rtc_model, "SETTINGS", observing), played(drawn[0], random, budget, lambda _: ()) as play:
        assert {request.action for request in play.rtc.requests} <= {"GetSegmentTask"}
        assert {task.task_id for task, _ in play.table.answers} <= {ROOM_ITEM}
        assert Outcome.STOPPED not in {report.done.outcome for report in play.reports}
