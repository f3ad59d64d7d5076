"""Time decides, not arrival: random worlds keep the promises for which the explorer walks every history of small ones.

A world has rooms, tasks and sessions, and the messages that two environments of the callback function queue about them.
Some ends are lost, the last slices come after the end, and sessions may be shorter than a slice.
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
from tests.unit.rtc_model import SETTINGS, Life, Message, RoomLife, watched_decide

SLICE_SECONDS, HOUR, DAY = 20, 3_600, 86_400
SWEEP_SECONDS = SETTINGS.sweep_every_ms // 1000
LAGS = st.sampled_from((0, 0, 1, 7, 400))
CLOCKS = st.sampled_from((0, None, 2, 400, DAY))
BUDGETS = st.builds(Budget, st.integers(0, 2), st.integers(0, 1))  # of more, the promises have more exceptions

Draw = Callable[[st.SearchStrategy[Any]], Any]


def callbacks_of(draw: Draw, life: Life, room: RoomLife, *, starts_are_sent: bool) -> list[Message]:
    def tell(kind: EventType, at: int, *task_ids: str) -> Message:
        # A start that is late, from a clock that runs ahead, is one of a later session.
        ahead = 0 if kind is EventType.SEGMENT_STARTED else draw(CLOCKS)
        return Message(kind, at, task_ids, life.room_id, ahead, draw(LAGS))

    told = [tell(EventType.SEGMENT_STARTED, life.starts, life.task_id)] if starts_are_sent else []
    slices = list(range(life.starts + SLICE_SECONDS, room.ends + SLICE_SECONDS, SLICE_SECONDS))
    some = draw(st.sets(st.sampled_from(slices[:2] + slices[-2:]), max_size=2))
    told += [tell(EventType.SEGMENT_REAL_TIME_DATA, at, life.task_id) for at in sorted(some)]
    if draw(st.booleans()):
        told.append(tell(EventType.ROOM_DESTROY, room.ends))
    if draw(st.booleans()):
        at = life.starts + draw(st.sampled_from((1, 10, 40)))
        told.append(tell(EventType.MODERATION_VIOLATION, at, life.task_id))
    return told


def queued_of(draw: Draw, callbacks: Sequence[Message]) -> list[Message]:
    """Send callbacks to two environments of the callback function, each with its own memory; return the queued ones."""
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
    """Create a world with the messages that are queued, and all callbacks, also those that are not queued."""
    lives: list[Life] = []
    rooms: list[RoomLife] = []
    callbacks: list[Message] = []
    starts_are_sent = draw(st.booleans())
    for number in range(draw(st.sampled_from((1, 1, 2)))):
        room_id, at = f"room-{number}", draw(st.sampled_from((0, 3, 30)))
        days = []
        for _ in range(draw(st.sampled_from((1, 2, 2, 3)))):
            days.append(RoomLife(at, at + draw(st.sampled_from((5, 25, 70, 400))), room_id))
            at = days[-1].ends + draw(st.sampled_from((3, 20, 40, 200, HOUR, DAY)))
        for day, later in zip(days, [*days[1:], None], strict=True):
            for task_id in draw(st.sampled_from((("audio",), ("audio",), ("audio", "video")))):
                # A session that is not stopped runs until the next one begins.
                lives.append(Life(task_id, day.starts, later.starts - 1 if later else None, room_id))
                callbacks += callbacks_of(draw, lives[-1], day, starts_are_sent=starts_are_sent)
        rooms += days
    end = max(room.ends for room in rooms) + 1000
    first = range(draw(st.integers(0, SWEEP_SECONDS)), min(end, HOUR), SWEEP_SECONDS)
    sweeps = draw(st.sampled_from(((), (*first, *range(end, end + 10 * SWEEP_SECONDS, SWEEP_SECONDS)))))
    world = World(
        "random",
        tuple(lives),
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
    """Play a world to its end, with choices at random that the budget allows."""
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
def test_promises_hold_in_random_histories(told: tuple[World, list[Message]], random: Random, budget: Budget) -> None:
    """Hold for deployments that report every start or none.

    No session of which a callback reports outlives its room by more than the sweeps, be the callback queued or not.
    """
    world, callbacks = told
    # A room's end does not find an unreported session of a task that the sweeper has stopped before.
    not_promised = "lost" if world.sweeps else "an orphan"

    def judged(play: Played) -> Iterator[str]:
        return (broken for broken in judge(play) if not broken.startswith(not_promised))

    with played(world, random, budget, judged) as play:
        reports = [callback.event for callback in callbacks if not callback.event.is_stop]
        for session in play.rtc.sessions if world.sweeps else ():
            is_heard_of = any(one.time_ms >= session.started_ms and session.task in one.tasks for one in reports)
            assert not (is_heard_of and session.runs_at(play.now_ms())), "\n".join(play.story)


@thorough(50)
@given(worlds(), st.randoms(use_true_random=False), BUDGETS)
def test_while_only_observing_nothing_is_stopped_or_recorded_as_answered(
    told: tuple[World, list[Message]], random: Random, budget: Budget
) -> None:
    """So the messages that come once the mode is `stop` stop what they would have stopped before."""
    observing = replace(SETTINGS, observes=True)
    with patch.object(rtc_model, "SETTINGS", observing), played(told[0], random, budget, lambda _: ()) as play:
        assert {request.action for request in play.rtc.requests} <= {"GetSegmentTask"}
        assert {task.task_id for task, _ in play.table.answers} <= {ROOM_ITEM}
        assert Outcome.STOPPED not in {report.done.outcome for report in play.reports}
