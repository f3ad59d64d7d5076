"""The rules for a stop event at T about a task: time decides, not the order of arrival.

::

            rule 2: superseded          rule 1: duplicate    rule 4: stop
    ---------------------------|-----------------------------|---------------> T
                           started_at                  stop_event_time
                           (a later session            (+ the duplicate window, if no
                            has begun)                  start is known after it)
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, StrEnum, auto

from segments.events import Event, EventType


class Outcome(StrEnum):
    """The result of a message, or of one of its tasks. docs/events.md explains each outcome."""

    STOPPED = "stopped"
    ALREADY_STOPPED = "already_stopped"
    DUPLICATE = "duplicate"
    SUPERSEDED = "superseded"
    NO_OPEN_TASKS = "no_open_tasks"
    KNOWN = "known"
    WOULD_STOP = "would_stop"
    HEARTBEAT = "heartbeat"
    IGNORED = "ignored"


class Verdict(Enum):
    """The rules' verdict about a task and a stop event."""

    DUPLICATE = auto()
    SUPERSEDED = auto()
    ALREADY_STOPPED = auto()
    STOP = auto()
    ASK = auto()


@dataclass(frozen=True)
class Record:
    """The record of a task or, as the items ``#room`` and ``#look``, of a room. Times are Unix ms."""

    stop_event_time_ms: int | None = None
    started_at_ms: int | None = None
    open_since_ms: int | None = None  # of a task that may be running: its start, or its first slice since the last stop
    outcome: str | None = None
    event_type: str | None = None
    event_id: str | None = None
    business_id: str | None = None
    watch: str | None = None  # None if the sweeper does not check the task
    gone_at_ms: int | None = None  # of `#look`: when the room was last found gone

    @property
    def is_open(self) -> bool:
        """Whether the task may be running."""
        return self.open_since_ms is not None

    def covers(self, time_ms: int) -> bool:
        """Whether a stop event at this time or later has been answered."""
        return self.stop_event_time_ms is not None and time_ms <= self.stop_event_time_ms


@dataclass(frozen=True)
class RunningTask:
    """The answer of GetSegmentTask about a task. Times are Unix ms, and 0 means never."""

    started_at_ms: int
    ended_at_ms: int
    status: int

    @property
    def is_over(self) -> bool:
        """Whether the task has ended."""
        return bool(self.ended_at_ms) or self.status in _ENDED


_NOT_STARTED = 1
_ENDED = (3, 4)
API_REMEMBERS_MS = 72 * 3_600_000  # GetSegmentTask page of the API


def decide(time_ms: int, record: Record, *, is_late: bool, duplicate_window_ms: int) -> Verdict:
    """Apply rules 1 to 4 to a stop event at `time_ms`. `is_late` is the result of the function `is_late`."""
    if _is_answered(time_ms, record, duplicate_window_ms):
        return Verdict.DUPLICATE
    if record.started_at_ms is not None and record.started_at_ms > time_ms:
        return Verdict.SUPERSEDED
    # The task was seen after this time, and no start was reported: this may be the next session.
    began_later = record.open_since_ms is not None and record.open_since_ms > time_ms
    return Verdict.ASK if is_late or began_later else Verdict.STOP


def is_late(event: Event, now_ms: int, stale_after_ms: int) -> bool:
    """Return whether a new session of the task may have begun, unreported, since a stop event.

    Events of second tries, and events of the sweeper, always count as late.
    """
    return event.is_second_try or event.type is EventType.ROOM_GONE or now_ms - event.time_ms > stale_after_ms


def _is_answered(time_ms: int, record: Record, duplicate_window_ms: int) -> bool:
    answered_ms = record.stop_event_time_ms
    if answered_ms is None:
        return False
    if time_ms <= answered_ms:
        return True
    restarted = record.started_at_ms is not None and record.started_at_ms > answered_ms
    return not restarted and time_ms - duplicate_window_ms <= answered_ms


def decide_from_api(time_ms: int, task: RunningTask | None, record: Record, now_ms: int) -> Verdict:
    """Apply rule 3 to a late stop event at `time_ms`. `task` is None if the API does not know the task.

    Returns `Verdict.ASK` if the answer is not enough for a verdict.
    """
    if task is None:
        # The API forgets tasks of this age, even running tasks. No newer task has the name, so a stop is safe.
        opened_ms = record.open_since_ms
        forgotten = opened_ms is not None and now_ms - opened_ms >= API_REMEMBERS_MS
        return Verdict.STOP if forgotten else Verdict.ALREADY_STOPPED
    if task.is_over:
        return Verdict.ALREADY_STOPPED
    # A task that has not begun yet begins after every event of the past.
    if task.started_at_ms > time_ms or task.status == _NOT_STARTED:
        return Verdict.SUPERSEDED
    return Verdict.STOP if task.started_at_ms else Verdict.ASK
