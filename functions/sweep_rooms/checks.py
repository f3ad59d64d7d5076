"""What the answer about a watched room means for its tasks.

::

    asked: exists    gone          gone, a minute later    exists
    ---------|---------|----------------------|---------------|-----> time
                    gone_at            RoomGone, T = gone_at     gone_at is forgotten
                                       gone_at is now
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from segments.events import Task
from segments.rules import Record

GONE_AGAIN_MS = 60_000


@dataclass(frozen=True)
class Check:
    """What is to be done about a room.

    Parameters
    ----------
    check_at_ms
        When to look at it again, Unix ms.
    gone_at_ms
        When it was last found gone, Unix ms; None: it is there.
    to_stop
        The tasks to be stopped.
    stop_time_ms
        The time T at which their room was over, or they were too old, Unix ms.
    """

    check_at_ms: int
    gone_at_ms: int | None
    to_stop: tuple[Task, ...]
    stop_time_ms: int


def decide_check(
    room: Record,
    open_tasks: Mapping[Task, Record],
    asked_at_ms: int,
    *,
    exists: bool,
    sweep_every_ms: int,
    max_task_ms: int,
) -> Check:
    """Decide about a room and its open tasks.

    Parameters
    ----------
    asked_at_ms
        When the API was asked whether the room exists, Unix ms: nothing that starts later is to be stopped.
    max_task_ms
        For how long a task may be open; 0: for ever.
    """
    next_sweep_ms = asked_at_ms + sweep_every_ms
    if exists:
        return Check(next_sweep_ms, None, _too_old(open_tasks, asked_at_ms, max_task_ms), asked_at_ms)
    gone_at_ms = room.gone_at_ms
    if gone_at_ms is None or any(_told_since(record, gone_at_ms) for record in open_tasks.values()):
        # Gone for the first time, or for the first time since something was heard of it. Once is not enough: a room
        # is away for a moment when its last user's connection breaks.
        return Check(asked_at_ms + GONE_AGAIN_MS, asked_at_ms, (), asked_at_ms)
    # From now on this is the first of two: a session that began between them, untold, is stopped by the next sweep.
    return Check(next_sweep_ms, asked_at_ms, tuple(sorted(open_tasks)), gone_at_ms)


def _told_since(record: Record, time_ms: int) -> bool:
    # A stop counts too: of one that covers `time_ms`, a RoomGone would be the duplicate, sweep after sweep.
    return record.covers(time_ms) or (record.heard_ms or 0) > time_ms


def _too_old(open_tasks: Mapping[Task, Record], now_ms: int, max_task_ms: int) -> tuple[Task, ...]:
    if not max_task_ms:
        return ()
    return tuple(sorted(task for task, record in open_tasks.items() if now_ms - (record.heard_ms or 0) >= max_task_ms))
