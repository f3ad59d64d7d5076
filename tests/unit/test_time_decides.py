"""Time decides, not arrival: the rules hold however messages are delivered, and wherever a function crashes.

The stopper, its rules, the table's conditions and the reading of messages are the real ones. rtc_model lives random
histories around them: messages late, twice, out of order, in batches served at once by several function environments
that interleave at every call, and calls that fail or kill their function. Of the delivery nothing is assumed but that
each message is served to its end at least once.

The limits of the rules are in the docstrings of the tests, as the conditions of each statement.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from receive_callback.slices import QueuedSlices, Slice
from segments.events import Event, EventType
from segments.stop_rules import Outcome
from tests.examples import examples
from tests.unit.rtc_model import (
    SETTINGS,
    History,
    Invocation,
    Life,
    Message,
    RoomLife,
    Session,
    Trouble,
    World,
    is_to_be_stopped,
    ms,
)

ROOM_ENDED, ROOM_DESTROY, MODERATION = EventType.ROOM_ENDED, EventType.ROOM_DESTROY, EventType.MODERATION_VIOLATION
STARTED, SIGHTING = EventType.SEGMENT_STARTED, EventType.SEGMENT_REAL_TIME_DATA
WINDOW_SECONDS = SETTINGS.duplicate_window_ms // 1000
STALE_SECONDS = SETTINGS.stale_after_ms // 1000

# Seconds that matter: none, a moment, at and around the duplicate window, at and around staleness, much later.
SPANS = st.sampled_from((0, 1, 1, 4, 5, 6, 30, STALE_SECONDS - 1, STALE_SECONDS + 1, 1000))
CLOCKS = st.sampled_from((0, None, 2, 400, 86_400))
LAGS = st.sampled_from((0, 0, 1, 7))
PACES = st.lists(st.integers(0, 9), min_size=1, max_size=8).map(tuple)
TASK_IDS = ("audio", "video", "screen")

Draw = Callable[[st.SearchStrategy[Any]], Any]


def thorough(hundredths: int, by_night: int | None = None) -> settings:
    return settings(max_examples=examples(hundredths, by_night), suppress_health_check=[HealthCheck.too_slow])


def lives_of(draw: Draw, room_id: str, task_id: str) -> list[Life]:
    lives: list[Life] = []
    starts = draw(SPANS)
    for _ in range(draw(st.sampled_from((1, 1, 2, 3)))):
        ends = starts + draw(SPANS) + 1
        lives.append(Life(task_id, starts, ends, room_id))
        starts = ends + draw(SPANS)
    last = lives.pop()
    return [*lives, Life(task_id, last.starts, draw(st.sampled_from((None, None, None, last.ends))), room_id)]


def told_of(draw: Draw, life: Life) -> list[Message]:
    def tell(kind: EventType, at: int) -> Message:
        return Message(kind, at, (life.task_id,), life.room_id, draw(CLOCKS), draw(LAGS))

    told = [tell(STARTED, life.starts)] if draw(st.booleans()) else []
    # The last slices are reported after the session's end.
    sightings = draw(st.lists(SPANS, max_size=2))
    return told + [tell(SIGHTING, life.starts + after) for after in sightings]


def stops_of(draw: Draw, room_id: str, lives: Sequence[Life]) -> list[Message]:
    marks = sorted({mark for life in lives for mark in (life.starts, life.ends) if mark is not None})
    ids = sorted({life.task_id for life in lives})
    messages = []
    for _ in range(draw(st.sampled_from((1, 1, 2, 3)))):
        at = draw(st.sampled_from(marks)) + draw(SPANS)
        kind = draw(st.sampled_from((ROOM_ENDED, ROOM_ENDED, ROOM_DESTROY, MODERATION)))
        named = draw(st.sampled_from(((), (), (ids[0],), tuple(ids))))
        messages.append(Message(kind, at, named, room_id, draw(CLOCKS), draw(LAGS)))
    return messages


def concerns(event: Event, life: Life) -> bool:
    return event.is_stop and life.task.room == event.room and (not event.task_ids or life.task in event.tasks)


def restarts_within_window(message: Message, lives: Sequence[Life]) -> bool:
    event = message.event
    return any(
        concerns(event, life) and ms(life.starts - WINDOW_SECONDS) <= event.time_ms < ms(life.starts) for life in lives
    )


def invocations_of(draw: Draw, messages: Sequence[Message]) -> tuple[Invocation, ...]:
    deliveries = sorted(
        (message.sent + delay, number)
        for number, message in enumerate(messages)
        for delay in [draw(SPANS) for _ in range(draw(st.sampled_from((1, 1, 2))))]
    )
    invocations = []
    while deliveries:
        size = draw(st.integers(1, 4))
        batch, deliveries = deliveries[:size], deliveries[size:]
        invocations.append(
            Invocation(
                at=batch[-1][0],
                messages=tuple(dict.fromkeys(number for _, number in batch)),
                environment=draw(st.sampled_from((0, 0, 0, 1, 2))),
                pace=draw(PACES),
                ticks_alone=draw(st.sampled_from((0, 3, 10, None, None))),
                troubles=draw(st.dictionaries(st.integers(0, 9), st.sampled_from(Trouble), max_size=1)),
            )
        )
    return tuple(invocations)


@st.composite
def histories(draw: Draw, *, restarts_within_the_window: bool = True) -> History:
    lives: list[Life] = []
    messages: list[Message] = []
    for room in range(draw(st.sampled_from((1, 1, 1, 1, 2, 3)))):
        tasks = [
            lives_of(draw, f"room-{room}", task_id) for task_id in TASK_IDS[: draw(st.sampled_from((1, 1, 1, 2, 3)))]
        ]
        in_room = [life for task in tasks for life in task]
        stops = stops_of(draw, f"room-{room}", in_room)
        if not restarts_within_the_window:
            stops = [stop for stop in stops if not restarts_within_window(stop, in_room)]
        lives += in_room
        messages += [message for life in in_room for message in told_of(draw, life)] + stops
    return History(tuple(lives), tuple(messages), invocations_of(draw, messages))


def calm_restarts() -> st.SearchStrategy[History]:
    return histories(restarts_within_the_window=False)


# Explicit histories: rare in random search, and most of them not in the explorer's first few of each world.

ROOM_ENDS_WHILE_ITS_TASK_STARTS = History(
    lives=(Life("audio", starts=0),),
    messages=(Message(STARTED, 0, ("audio",)), Message(ROOM_ENDED, 10)),
    invocations=(
        Invocation(10, (1,), environment=0, pace=(0, 0, 0, 0, 30, 0), ticks_alone=9),
        Invocation(10, (0,), environment=1),
    ),
)
LATE_EVENT_OF_A_RESTARTED_TASK = History(
    lives=(Life("audio", starts=0, ends=20), Life("audio", starts=30)),
    messages=(Message(STARTED, 30, ("audio",)), Message(MODERATION, 10, ("audio",))),
    invocations=(Invocation(30, (0,)), Invocation(40, (1,))),
)
TASK_IS_SEEN_WHILE_ITS_ROOM_ENDS = History(
    lives=(Life("audio", starts=0),),
    messages=(Message(SIGHTING, 5, ("audio",)), Message(ROOM_ENDED, 10)),
    invocations=(
        Invocation(10, (0,), environment=0, pace=(0, 0, 0, 0, 30, 0), ticks_alone=15),
        Invocation(10, (1,), environment=1),
    ),
)
STOP_OF_A_SEEN_TASK_FAILS = History(
    lives=(Life("audio", starts=0),),
    messages=(Message(SIGHTING, 5, ("audio",)), Message(ROOM_ENDED, 10)),
    invocations=(Invocation(10, (1,)), Invocation(11, (0,), troubles={4: Trouble.FAILURE_BEFORE})),
)
OLDER_START_WRITTEN_LAST = History(
    lives=(Life("audio", starts=0, ends=20), Life("audio", starts=30)),
    messages=(Message(STARTED, 30, ("audio",)), Message(STARTED, 0, ("audio",)), Message(MODERATION, 10, ("audio",))),
    invocations=(Invocation(30, (0,)), Invocation(31, (1,)), Invocation(32, (2,))),
)
TASK_RESTARTS_BETWEEN_TWO_STOPS_OF_A_BATCH = History(
    lives=(Life("audio", starts=0, ends=20), Life("audio", starts=31)),
    messages=(Message(MODERATION, 10, ("audio",)), Message(ROOM_ENDED, 19), Message(STARTED, 31, ("audio",))),
    invocations=(
        Invocation(30, (1, 0), environment=0, pace=(0, 4, 0), ticks_alone=11),
        Invocation(31, (2,), environment=1),
    ),
)
SIGHTINGS_IN_THE_WRONG_ORDER = History(
    lives=(Life("audio", starts=0),),
    messages=(
        Message(SIGHTING, 5, ("audio",)),
        Message(ROOM_ENDED, 10),
        Message(SIGHTING, 11, ("audio",)),
    ),
    invocations=(
        Invocation(11, (1,)),
        Invocation(12, (2,)),
        Invocation(13, (0,)),
    ),
)
SLICE_AFTER_THE_ROOM_S_END_THAT_SAYS_NOTHING_NEW = History(
    lives=(Life("audio", starts=0, ends=31), Life("audio", starts=61)),
    messages=(
        Message(SIGHTING, 0, ("audio",)),
        Message(ROOM_ENDED, 4),
        Message(ROOM_ENDED, 35),
        Message(SIGHTING, 62, ("audio",)),
    ),
    invocations=(
        Invocation(3, (0,)),
        Invocation(4, (1,), environment=1),
        Invocation(35, (2,), environment=1),
        Invocation(62, (3,)),
    ),
)


@thorough(60, by_night=200)
@given(calm_restarts())
@example(STOP_OF_A_SEEN_TASK_FAILS)
@example(SIGHTINGS_IN_THE_WRONG_ORDER)
def test_every_task_that_ran_when_its_room_ended_is_stopped(history: History) -> None:
    """Holds if the event names the task, or a start or sighting of the task has a time not after the event's.

    And if, for that task,

    - no start is reported with a time after the event's: such a start, late and from a clock that runs ahead, counts as
      a later session's;
    - a start or sighting was reported since a stop that came before the session: see the next test;
    - the report is a start, or no slice comes from before the session: for a minute after that one, slices say
      nothing new to a function that has served it;
    - no session starts within the duplicate window after a stop event's time. There a second stop event is taken for
      the first one's duplicate, unless the session's start is reported before it is served.
    """
    world = World(history).live()
    lost = [
        (session, event)
        for session in world.running
        for event in history.events
        if is_to_be_stopped(session, event, history.events, slices_may_hide=True)
    ]
    assert lost == []


def test_a_room_s_end_does_not_find_an_untold_session_of_a_task_that_was_stopped() -> None:
    """As docs/design.md says: the cost depends on the open tasks, not on the past."""
    history = History(
        lives=(Life("audio", starts=0, ends=12), Life("audio", starts=20)),
        messages=(Message(SIGHTING, 0, ("audio",)), Message(ROOM_ENDED, 10), Message(ROOM_ENDED, 30)),
        invocations=(Invocation(0, (0,)), Invocation(10, (1,)), Invocation(30, (2,))),
    )
    world = World(history).live()
    assert [request.decision.time_ms for request in world.rtc.requests] == [ms(10)]
    assert [session.started_ms for session in world.running] == [ms(20)]


@thorough(30)
@given(st.integers(1, WINDOW_SECONDS - 1), st.booleans())
def test_restart_within_the_duplicate_window_is_stopped_where_its_start_is_known(
    after: int, start_is_late: bool
) -> None:
    """Late means after the event that covers it: that only a room's end makes up for, since the room remembers it."""
    restart = 10 + after
    messages = (
        Message(MODERATION, 10, ("audio",)),
        Message(STARTED, restart, ("audio",)),
        Message(ROOM_ENDED, restart + 1),
    )
    order = (0, 2, 1) if start_is_late else (0, 1, 2)
    history = History(
        lives=(Life("audio", 0, 10), Life("audio", restart)),
        messages=messages,
        invocations=tuple(Invocation(max(10, messages[number].sent), (number,)) for number in order),
    )
    assert World(history).live().running == []


@thorough(60, by_night=200)
@given(histories())
@example(OLDER_START_WRITTEN_LAST)
@example(TASK_RESTARTS_BETWEEN_TWO_STOPS_OF_A_BATCH)
def test_late_event_never_stops_a_restarted_task(history: History) -> None:
    """Holds if the table knew the session's start when the decision's record was read, or if the API is asked.

    That is, about a stop event older than StaleAfterSeconds of a task with no known start. So a session that starts
    after the event can be stopped by it while the message of its start is still on its way, if the event is younger,
    or if the table knows the start of an earlier session.
    """
    world = World(history).live()
    for request in world.rtc.requests:
        session, decision = request.ended, request.decision
        if session is None or session.started_ms <= decision.time_ms:
            continue
        known = world.table.starts[: decision.starts_known]
        assert not [start for task, start in known if task == session.task and start >= session.started_ms]
        assert not (decision.api_is_to_be_asked and session.started_ms <= decision.looked_ms)


@thorough(60, by_night=200)
@given(calm_restarts())
@example(SLICE_AFTER_THE_ROOM_S_END_THAT_SAYS_NOTHING_NEW)
def test_redelivered_event_whose_answer_is_recorded_makes_no_request(history: History) -> None:
    """Holds for StopSegment and GetSegmentTask alike.

    An answer is recorded for one task, an event's time and everything older. So a room's end that comes again may
    make a request about a task that had become known after it was served. (And a stale event is asked about again
    for as long as GetSegmentTask says that the task has not started: that answer is not a time to record.)

    The first time, a slice that is newer than the room's end may open a task that it was passed over for before. The
    second time, the room's end asks about that task. The third time, every answer is recorded.
    """
    world = World(history).live()
    for _ in range(2):
        answers, starts = tuple(world.table.answers), tuple(world.table.starts)
        for request in world.redeliver():
            time_ms = request.decision.time_ms
            assert not [answered for task, answered in answers if task == request.task and answered >= time_ms]
            assert not [start for task, start in starts if task == request.task and start > time_ms]
    assert world.redeliver() == []


@st.composite
def clocks_ahead(draw: Draw) -> History:
    far = st.sampled_from((0, 1, 10, STALE_SECONDS, 10 * 365 * 86_400)) | st.integers(0, 10**9)
    restart = WINDOW_SECONDS + draw(st.integers(21, 1000))
    ends = restart + draw(st.integers(8, 1000))
    named = draw(st.sampled_from(((), ("audio",))))
    messages = (
        Message(STARTED, 0, ("audio",), ahead=draw(far)),
        Message(SIGHTING, 1, ("audio",), ahead=draw(far), lag=draw(LAGS)),
        Message(draw(st.sampled_from((ROOM_ENDED, MODERATION))), 10, named, ahead=draw(far), lag=draw(LAGS)),
        Message(STARTED, restart, ("audio",), ahead=draw(far), lag=draw(LAGS)),
        Message(draw(st.sampled_from((ROOM_ENDED, MODERATION))), ends, named, ahead=draw(far), lag=draw(LAGS)),
    )
    return History(
        lives=(Life("audio", 0), Life("audio", restart)),
        messages=messages,
        invocations=tuple(
            Invocation(message.sent, (number,), environment=draw(st.integers(0, 1)))
            for number, message in enumerate(messages)
        ),
    )


@thorough(100)
@given(clocks_ahead())
def test_clock_that_runs_ahead_does_not_hide_a_later_stop(history: History) -> None:
    world = World(history).live()
    assert world.running == []
    assert world.outcomes[2] == world.outcomes[4] == [Outcome.STOPPED]


# The view of a deployment without SegmentStarted: the same room and TaskId every day, ends that may get lost,
# slices, the last ones of which come after the end, and sessions that are shorter than a slice.

SLICE_SECONDS = 20
SWEEP_SECONDS = SETTINGS.sweep_every_ms // 1000
HOUR = 3600


@dataclass(frozen=True)
class Day:
    """A session with its room, in seconds, and how soon the next one comes."""

    starts: int
    lasts: int
    pause: int


def messages_of(draw: Draw, day: Day) -> list[Message]:
    slices = list(range(day.starts + SLICE_SECONDS, day.starts + day.lasts + SLICE_SECONDS, SLICE_SECONDS))
    some = draw(st.sets(st.sampled_from(slices[:2] + slices[-3:]), max_size=3))
    told = [Message(SIGHTING, at, ("audio",), lag=draw(LAGS)) for at in sorted(some)]
    if draw(st.booleans()):
        told.append(Message(ROOM_DESTROY, day.starts + day.lasts, lag=draw(LAGS)))
    return told


def queued_of(draw: Draw, callbacks: Sequence[Message]) -> list[Message]:
    """Send callbacks to two environments of the callback function, each with its own memory; return the queued ones."""
    now = 0
    memories = [QueuedSlices(10_000, lambda: now) for _ in range(2)]
    queued = []
    for callback in sorted(callbacks, key=lambda callback: callback.sent):
        now, memory = callback.sent, draw(st.sampled_from(memories))
        if callback.type is SIGHTING:
            found = Slice(("app", callback.room_id, callback.task_ids[0]), callback.at * 1000)
            if found in memory:
                continue
            memory.add(found)
        else:
            memory.forget(("app", callback.room_id))
        queued.append(callback)
    return queued


@st.composite
def days_without_starts(draw: Draw) -> tuple[History, list[Event]]:
    """Create days of callbacks only; return the queued ones as a history, and all reports."""
    days: list[Day] = []
    at = 0
    for _ in range(draw(st.integers(1, 3))):
        day = Day(at, draw(st.sampled_from((5, 25, 70, 400))), draw(st.sampled_from((3, 40, 200, HOUR, 86_400))))
        days.append(day)
        at = day.starts + day.lasts + day.pause
    callbacks = [callback for day in days for callback in messages_of(draw, day)]
    messages = queued_of(draw, callbacks)
    invocations = [*invocations_of(draw, messages), *sweeps_of(draw, at)]
    history = History(
        # A session that is not stopped runs until the next one begins.
        lives=tuple(
            Life("audio", day.starts, later.starts - 1 if later else None)
            for day, later in zip(days, [*days[1:], None], strict=True)
        ),
        messages=tuple(messages),
        invocations=tuple(sorted(invocations, key=lambda one: one.at)),
        rooms=tuple(RoomLife(day.starts, day.starts + day.lasts) for day in days),
        retry_seconds=draw(st.sampled_from((5, 30, 400, HOUR))),
        late=draw(st.lists(st.booleans(), min_size=1, max_size=8).map(tuple)),
    )
    return history, [callback.event for callback in callbacks]


def sweeps_of(draw: Draw, until: int) -> list[Invocation]:
    begins = range(draw(st.integers(0, SWEEP_SECONDS)), min(until, 2 * HOUR), SWEEP_SECONDS)
    return [
        Invocation(
            at,
            (),
            sweeps=True,
            pace=draw(PACES),
            ticks_alone=draw(st.sampled_from((0, 5, None))),
            troubles=draw(st.dictionaries(st.integers(0, 9), st.sampled_from(Trouble), max_size=1)),
        )
        for at in begins
    ]


def is_heard_of(session: Session, events: Sequence[Event]) -> bool:
    told = [event for event in events if not event.is_stop and session.task in event.tasks]
    return any(event.time_ms >= session.started_ms for event in told)


@thorough(40, by_night=70)
@given(days_without_starts())
def test_no_session_outlives_its_room_by_more_than_two_sweeps(told: tuple[History, list[Event]]) -> None:
    """Holds for every session of which a callback reports that is not older than its start, be it queued or not.

    Any other message may be lost, and no SegmentStarted need be sent. For the two sweeps, the global index
    is not late. Before them it may be late by any time, for each item by itself.
    """
    history, events = told
    world = World(history).live(sweeps=2)
    assert [session for session in world.running if is_heard_of(session, events)] == []


@thorough(40, by_night=70)
@given(days_without_starts())
def test_no_session_is_stopped_by_an_event_older_than_its_start(told: tuple[History, list[Event]]) -> None:
    """Holds except for events that are first received while they are younger than StaleAfterSeconds.

    And except for those with a request under way while the session begins.
    """
    world = World(told[0]).live(sweeps=2)
    for request in world.rtc.requests:
        session, decision = request.ended, request.decision
        if session and decision.time_ms < session.started_ms <= decision.looked_ms:
            assert not decision.api_is_to_be_asked
            assert decision.looked_ms - decision.time_ms <= SETTINGS.stale_after_ms
