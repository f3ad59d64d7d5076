"""Time decides, not arrival: what a stop event at T means for a task.

::

            rule 2: superseded          rule 1: duplicate    rule 4: stop
    ---------------------------|-----------------------------|---------------> T
                           started_at                  stop_event_time
                           (a later session            (+ the duplicate window, where no
                            has begun)                  start is known after it)
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, StrEnum, auto


class Outcome(StrEnum):
    """How a message, or one of its tasks, ended. docs/events.md explains each."""

    STOPPED = "stopped"
    ALREADY_STOPPED = "already_stopped"
    DUPLICATE = "duplicate"
    SUPERSEDED = "superseded"
    NO_TASKS = "no_tasks"
    KNOWN = "known"
    IGNORED = "ignored"


class Verdict(Enum):
    """What the rules say of a task and a stop event."""

    DUPLICATE = auto()
    SUPERSEDED = auto()
    ALREADY_STOPPED = auto()
    STOP = auto()
    ASK = auto()


@dataclass(frozen=True)
class Record:
    """What the table remembers of a task or, as the item ``#room``, of a room. Times are Unix ms."""

    stop_event_time_ms: int | None = None
    started_at_ms: int | None = None
    seen_at_ms: int | None = None
    outcome: str | None = None
    event_type: str | None = None
    event_id: str | None = None
    business_id: str | None = None
    expires_at_seconds: int = 0


@dataclass(frozen=True)
class RunningTask:
    """What GetSegmentTask says of a task. Times are Unix ms, 0 is never."""

    started_at_ms: int
    ended_at_ms: int
    status: int


_NOT_STARTED = 1
_ENDED = (3, 4)


def decide(time_ms: int, record: Record, now_ms: int, *, duplicate_window_ms: int, stale_after_ms: int) -> Verdict:
    """Apply rules 1 to 4 to a stop event at `time_ms`."""
    if _is_answered(time_ms, record, duplicate_window_ms):
        return Verdict.DUPLICATE
    if record.started_at_ms is not None:
        return Verdict.SUPERSEDED if record.started_at_ms > time_ms else Verdict.STOP
    return Verdict.ASK if now_ms - time_ms > stale_after_ms else Verdict.STOP


def _is_answered(time_ms: int, record: Record, duplicate_window_ms: int) -> bool:
    answered_ms = record.stop_event_time_ms
    if answered_ms is None:
        return False
    if time_ms <= answered_ms:
        return True
    restarted = record.started_at_ms is not None and record.started_at_ms > answered_ms
    return not restarted and time_ms - duplicate_window_ms <= answered_ms


def decide_from_api(time_ms: int, task: RunningTask | None) -> Verdict:
    """Apply rule 3: a stale stop event at `time_ms`, and what the API says of its task (None: it knows of none).

    Returns `Verdict.ASK` where the answer decides nothing.
    """
    if task is None:
        return Verdict.ALREADY_STOPPED
    # A task that has not begun by now begins after any event that has happened.
    if task.started_at_ms > time_ms or task.status == _NOT_STARTED:
        return Verdict.SUPERSEDED
    if task.ended_at_ms or task.status in _ENDED:
        return Verdict.ALREADY_STOPPED
    return Verdict.STOP if task.started_at_ms else Verdict.ASK
