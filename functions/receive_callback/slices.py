"""A slice is known if this function environment queued another slice of the task less than a minute ago.

The RTC server reports a slice for every user every few seconds. The first slice makes its task known, as any later
slice would. docs/design.md explains why nothing is lost if later slices are left out for a minute.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from segments.cache import Cache

REMEMBERED_SECONDS = 60  # the maximum time that a restarted session may go unseen


class Slice(NamedTuple):
    """A slice of a task (its AppId, RoomId and TaskId), created before `time_ms`."""

    task: tuple[str, str, str]
    time_ms: int


def read_slice(callback: Mapping[str, Any], time_ms: int) -> Slice | None:
    """Read a SegmentRealTimeData callback. Returns None for an unusual callback, which the stop function reports."""
    room, task_id = room_of(callback), _data(callback).get("TaskId")
    return Slice((*room, task_id), time_ms) if room and isinstance(task_id, str) else None


def room_of(callback: Mapping[str, Any]) -> tuple[str, str] | None:
    """Read AppId and RoomId of a callback. Returns None if the callback has no RoomId."""
    room_id = _data(callback).get("RoomId")
    return (callback["AppId"], room_id) if isinstance(room_id, str) else None


def _data(callback: Mapping[str, Any]) -> dict[str, Any]:
    try:
        data = json.loads(callback["EventData"])
    except (ValueError, RecursionError):
        data = None
    return data if isinstance(data, dict) else {}


class QueuedSlices:
    """Remembers the tasks whose slices were queued within the last minute, up to a maximum number of tasks.

    `known` counts the known slices that no metric has counted yet.
    """

    def __init__(self, most: int, clock_seconds: Callable[[], float]) -> None:
        self._clock_seconds = clock_seconds
        self.known = 0
        self._queued: Cache[tuple[str, str, str], tuple[int, float]] = Cache(most)

    def __contains__(self, found: Slice) -> bool:
        """Return whether a slice is known: the queued slice of its task is not newer.

        An older slice is not known. It may be from before a room's end, and the queued slice from after this end.
        """
        time_ms, until = self._queued.get(found.task, (found.time_ms, 0.0))
        return time_ms <= found.time_ms and self._clock_seconds() < until

    def add(self, queued: Slice) -> None:
        """Remember a slice that the queue has accepted."""
        self._queued[queued.task] = queued.time_ms, self._clock_seconds() + REMEMBERED_SECONDS

    def forget(self, room: tuple[str, str] | None) -> None:
        """Forget the slices of a room that has ended: the next slices belong to a new session."""
        for task in [task for task in self._queued if task[:2] == room]:
            del self._queued[task]
