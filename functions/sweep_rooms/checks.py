"""Decides which watched tasks of a room to stop, from the API's answer about the room.

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
from segments.stop_rules import Record

GONE_AGAIN_MS = 60_000


@dataclass(frozen=True)
class Check:
    """A decision about a room. Times are Unix ms."""

    gone_at_ms: int | None  # when the room was last found gone; None if the room exists
    to_stop: tuple[Task, ...]
    stop_time_ms: int  # T: when the room was gone, or the tasks were too old


def decide_check(
    tasks: Mapping[Task, Record],
    gone_at_ms: int | None,
    asked_at_ms: int,
    *,
    exists: bool,
    last_round_began_at_ms: int,
    max_task_ms: int,
) -> Check:
    """Decide which watched tasks of a room to stop, and whether to record the room as gone. Times are Unix ms.

    `gone_at_ms` is when the room was last found gone (None if never). The API answered at `asked_at_ms`, so tasks that
    start later must not be stopped. All watched rooms were checked since `last_round_began_at_ms`. `max_task_ms` is
    the maximum age of a task (0 means no maximum).
    """
    if exists:
        opened_ms = {task: one.open_since_ms for task, one in tasks.items() if one.open_since_ms is not None}
        too_old = sorted(task for task, at_ms in opened_ms.items() if 0 < max_task_ms <= asked_at_ms - at_ms)
        return Check(None, tuple(too_old), asked_at_ms)
    opened_at_ms = max(record.open_since_ms or 0 for record in tasks.values())
    if gone_at_ms is None or gone_at_ms < max(opened_at_ms, last_round_began_at_ms):
        # Gone for the first time since it existed. One answer is not enough: a room disappears for a
        # moment when its last user's connection breaks.
        return Check(asked_at_ms, (), asked_at_ms)
    if asked_at_ms - gone_at_ms < GONE_AGAIN_MS:
        return Check(gone_at_ms, (), asked_at_ms)
    # This answer also counts as a first answer: the next sweep stops a session that began unseen in between.
    return Check(asked_at_ms, tuple(sorted(tasks)), gone_at_ms)
