"""Small worlds: one room, one or two tasks and their sessions, and up to five messages about them."""

from __future__ import annotations

from dataclasses import dataclass

from segments.events import EventType
from tests.unit.rtc_model import SETTINGS, Message, Occupied, PlannedSession

STALE = SETTINGS.stale_after_ms // 1000
SWEEP = SETTINGS.sweep_every_ms // 1000
FOR_EVER = 10**6


@dataclass(frozen=True)
class World:
    """The facts of a world, and the messages that report them.

    Parameters
    ----------
    room
        The times at which the room is occupied.
    moments
        Seconds at which the clock may stop, in addition to those of the facts and messages.
    sweeps
        Seconds at which a sweep begins.
    served_by
        The second at which every message has been served.
    batches
        Whether one batch may hold several messages.
    """

    name: str
    sessions: tuple[PlannedSession, ...]
    messages: tuple[Message, ...]
    moments: tuple[int, ...] = ()
    sweeps: tuple[int, ...] = ()
    served_by: int = FOR_EVER
    room: tuple[Occupied, ...] = (Occupied(0, FOR_EVER),)
    batches: bool = False

    @property
    def clock(self) -> list[int]:
        """The seconds at which the clock may stop."""
        sessions = {second for one in self.sessions for second in (one.starts, one.ends) if second is not None}
        rooms = {second for one in self.room for second in (one.starts, one.ends) if second != FOR_EVER}
        return sorted({*sessions, *rooms, *self.moments, *self.sweeps, *(message.sent for message in self.messages)})


def runs(starts: int, ends: int | None = None, task_id: str = "audio") -> PlannedSession:
    return PlannedSession(task_id, starts, ends)


def start(at: int, task_id: str = "audio") -> Message:
    return Message(EventType.SEGMENT_STARTED, at, (task_id,))


def slice_made(at: int, task_id: str = "audio", lag: int = 0) -> Message:
    return Message(EventType.SEGMENT_REAL_TIME_DATA, at, (task_id,), lag=lag)


def room_end(at: int) -> Message:
    return Message(EventType.ROOM_DESTROY, at)


def violation(at: int, task_id: str = "audio") -> Message:
    return Message(EventType.MODERATION_VIOLATION, at, (task_id,))


WORLDS = [
    World("a start and a room's end", (runs(0),), (start(0), room_end(10))),
    World("a slice and a room's end", (runs(0),), (slice_made(5), room_end(10))),
    World("slices around a room's end", (runs(0),), (slice_made(5), room_end(10), slice_made(12))),
    World("two ends of a task", (runs(0),), (start(0), violation(10), room_end(20))),
    World("two ends of an unknown task", (runs(0),), (violation(10), violation(20))),
    World("two ends at about the same time", (runs(0),), (start(0), room_end(10), violation(11)), batches=True),
    World("two ends of a room, the first one before the start", (runs(15),), (room_end(10), start(15), room_end(20))),
    World("an end before its start", (runs(0),), (start(0), violation(10))),
    World("a task that ends by itself", (runs(0, 8),), (start(0), room_end(10), violation(20))),
    World("a session whose start is reported", (runs(0, 15), runs(20)), (start(0), violation(10), start(20))),
    World("a session whose start is not reported", (runs(0, 15), runs(20)), (start(0), room_end(10))),
    World("two sessions and their ends", (runs(0, 15), runs(20)), (start(0), room_end(10), start(20), room_end(30))),
    World(
        "two sessions and their slices",
        (runs(0, 15), runs(20)),
        (slice_made(5), room_end(10), slice_made(25), room_end(30)),
    ),
    World(
        "two sessions and their slices, the last one late",
        (runs(0, 15), runs(20)),
        (slice_made(5), room_end(10), slice_made(25, lag=5), room_end(30)),
    ),
    World("an end that is late", (runs(0, 9), runs(20)), (start(0), room_end(10)), moments=(11 + STALE,)),
    World(
        "a room's end that is late",
        (runs(0, 9), runs(20)),
        (slice_made(5), room_end(10), slice_made(22)),
        moments=(11 + STALE,),
    ),
    World(
        "a slice and the start of the next session",
        (runs(0, 15), runs(20)),
        (slice_made(5), start(20)),
    ),
    World("two tasks", (runs(0), runs(0, task_id="video")), (start(0), slice_made(5, "video"), room_end(10))),
    World(
        "a lost end",
        (runs(0),),
        (start(0),),
        sweeps=tuple(1 + SWEEP * number for number in range(1, 9)),
        served_by=SWEEP,
        room=(Occupied(0, 100),),
    ),
    World(
        "a lost end of a task that only slices report",
        (runs(0),),
        (slice_made(5), slice_made(25)),
        sweeps=tuple(6 + SWEEP * number for number in range(1, 9)),
        served_by=100,
        room=(Occupied(0, 100),),
    ),
    World(
        "a lost end of a session whose only slice is remembered",
        (runs(0, 15), runs(20)),
        (slice_made(5), room_end(10), slice_made(25)),
        sweeps=tuple(6 + SWEEP * number for number in range(1, 9)),
        served_by=100,
        room=(Occupied(0, 10), Occupied(20, 30)),
    ),
    World(
        "a lost end, and the room comes back",
        (runs(0, 450), runs(500)),
        (start(0), start(500)),
        sweeps=tuple(1 + SWEEP * number for number in range(1, 9)),
        served_by=601,
        room=(Occupied(0, 100), Occupied(490, 800)),
    ),
    World(
        "a lost end, and the room comes back unreported",
        (runs(0, 450), runs(500)),
        (start(0),),
        sweeps=tuple(1 + SWEEP * number for number in (1, 2, 3, 4)),
        room=(Occupied(0, 100), Occupied(490, FOR_EVER)),
    ),
    World(
        "a room that comes back while it is swept",
        (runs(0, 450), runs(602)),
        (start(0),),
        moments=(603,),
        sweeps=tuple(1 + SWEEP * number for number in (1, 2)),
        served_by=100,
        room=(Occupied(0, 100), Occupied(602, FOR_EVER)),
    ),
    World(
        "a room that is empty for a moment",
        (runs(0),),
        (start(0),),
        sweeps=tuple(1 + SWEEP * number for number in (1, 2)),
        served_by=100,
        room=(Occupied(0, 300), Occupied(302, FOR_EVER)),
    ),
    World(
        "an end that comes while the room is swept",
        (runs(0),),
        (start(0), room_end(SWEEP + 2)),
        sweeps=tuple(1 + SWEEP * number for number in (1, 2, 3, 4)),
        room=(Occupied(0, 100),),
    ),
    World(
        "a task that is opened while its room is no longer watched",
        (runs(0, 20), runs(SWEEP + 1)),
        (start(0), room_end(10), start(SWEEP + 1)),
        sweeps=tuple(1 + SWEEP * number for number in range(1, 9)),
        served_by=310,
        room=(Occupied(0, 10), Occupied(SWEEP, SWEEP + 10)),
    ),
    World(
        "a room that is empty, occupied, and empty again",
        (runs(0),),
        (start(0),),
        sweeps=tuple(1 + SWEEP * number for number in (1, 2, 3)),
        served_by=100,
        room=(Occupied(0, 300), Occupied(302, 900), Occupied(902, FOR_EVER)),
    ),
    World(
        "five messages: a task starts again while its room ends",
        (runs(0, 15), runs(19), runs(0, task_id="video")),
        (start(0), start(0, "video"), violation(10), start(19), room_end(20)),
    ),
    World(
        "five messages: slices report a task that starts again while its room ends",
        (runs(0, 15), runs(19), runs(0, task_id="video")),
        (slice_made(5), start(0, "video"), violation(10), slice_made(21), room_end(25)),
    ),
    World(
        "five messages: two ends of a room and two tasks",
        (runs(0, 15), runs(18), runs(0, task_id="video")),
        (start(0), slice_made(5, "video"), room_end(10), start(18), room_end(30)),
    ),
    World(
        "five messages: three ends and a start that comes last",
        (runs(0), runs(12, task_id="video")),
        (slice_made(3), violation(10), room_end(14), start(12, "video"), room_end(21)),
        batches=True,
    ),
    World(
        "five messages: a lost end of two tasks that started again",
        (runs(0, 15), runs(19), runs(0, task_id="video")),
        (start(0), slice_made(5, "video"), violation(10), start(19), violation(30, "video")),
        sweeps=tuple(31 + SWEEP * number for number in range(1, 9)),
        served_by=120,
        room=(Occupied(0, 100),),
    ),
    World(
        "five messages: a session that began unseen, and a lost end",
        (runs(0, 11), runs(14), runs(0, task_id="video")),
        (slice_made(5), start(0, "video"), room_end(10), slice_made(20), slice_made(22, "video")),
        sweeps=tuple(31 + SWEEP * number for number in range(1, 9)),
        served_by=120,
        room=(Occupied(0, 10), Occupied(14, 100)),
    ),
    World("in batches", (runs(0, 15), runs(20)), (start(0), room_end(10), start(20), violation(30)), batches=True),
]
