"""The lives of rooms, and the messages that report them: each knows how it may end, and which tasks it may stop."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sandbox.callbacks import callback
from tests.e2e.observer import APP_ID, rfc3339

KNOWN = frozenset({"known", "stopped", "already_stopped", "duplicate"})  # the room may have ended before
STOPPED = frozenset({"stopped", "already_stopped", "duplicate"})
LATE = frozenset({"superseded", "duplicate"})
STALE_MS = 30_000  # the template's StaleAfterSeconds

Task = tuple[str, str]
"""(RoomId, TaskId)"""


@dataclass(frozen=True)
class Message:
    """A message to send.

    Parameters
    ----------
    name
        Its EventId and BusinessId. The BusinessId comes back in the request that the message leads to.
    may_end
        How it may end, unless it fails.
    stops
        The tasks that it should stop, as far as they are known.
    tells
        The task that it makes known.
    named
        Whether it names the tasks that it stops.
    late_for
        The task whose running session started after the event.
    time_ms
        Its EventTime, if it says one.
    first
        Whether it is sent before the others.
    """

    name: str
    room_id: str
    body: str
    may_end: frozenset[str]
    stops: tuple[str, ...] = ()
    tells: str | None = None
    named: bool = False
    late_for: str | None = None
    time_ms: int | None = None
    first: bool = False


@dataclass
class Story:
    """A room: the start of its tasks at the API (Unix ms), its reports, and whether it is gone without a report."""

    room_id: str
    now_ms: int
    rng: random.Random
    running: dict[str, int] = field(default_factory=dict)
    messages: list[Message] = field(default_factory=list)
    is_gone: bool = False

    def start(self, task_id: str, seconds_ago: int) -> int:
        """Start a task, and return its start time."""
        self.running[task_id] = self.now_ms - 1000 * seconds_ago
        return self.running[task_id]

    def tell_start(self, task_id: str, *, first: bool = False) -> None:
        self._tell(
            "SegmentStarted", KNOWN, {"TaskId": task_id}, time_ms=self.running[task_id], tells=task_id, first=first
        )

    def tell_stop(
        self,
        *task_ids: str,
        event_type: str = "RoomEnded",
        seconds_ago: int | None = None,
        named: bool = True,
        first: bool = False,
        may_end: frozenset[str] = STOPPED,
    ) -> None:
        """Report an event that should stop tasks; if they are not `named`, all tasks known in the room."""
        one = len(task_ids) == 1
        names: dict[str, object] = {"TaskId": task_ids[0]} if one else {"TaskIds": list(task_ids)}
        time_ms = None if seconds_ago is None else self.now_ms - 1000 * seconds_ago
        self._tell(
            event_type, may_end, names if named else {}, stops=task_ids, time_ms=time_ms, named=named, first=first
        )

    def tell_late(self, task_id: str, seconds_ago: int, *, named: bool = True) -> None:
        """Report an event of an earlier session."""
        names = {"TaskId": task_id} if named else {}
        self._tell("RoomEnded", LATE, names, time_ms=self.now_ms - 1000 * seconds_ago, late_for=task_id, named=named)

    def tell_callback(
        self, event_type: str, data: dict[str, str], may_end: frozenset[str], seconds_ago: int, **more: Any
    ) -> None:
        data = {"RoomId": self.room_id, "BusinessId": self._next_name(), **data}
        time_ms = self.now_ms - 1000 * seconds_ago
        body = json.dumps(callback(event_type, data, rfc3339(time_ms), app_id=APP_ID))
        self._keep(body, may_end, time_ms=time_ms, **more)

    def tell_nonsense(self, body: str, end: str) -> None:
        self._keep(body, frozenset({end}))

    def _tell(
        self,
        event_type: str,
        may_end: frozenset[str],
        names: Mapping[str, object],
        *,
        time_ms: int | None = None,
        **more: Any,
    ) -> None:
        content = {"EventType": event_type, "AppId": APP_ID, "RoomId": self.room_id, **names}
        content |= {"EventId": self._next_name(), "BusinessId": self._next_name()}
        if time_ms is not None:
            content["EventTime"] = rfc3339(time_ms)
        self._keep(json.dumps(content), may_end, time_ms=time_ms, **more)

    def _keep(self, body: str, may_end: frozenset[str], **more: Any) -> None:
        self.messages.append(Message(self._next_name(), self.room_id, body, may_end, **more))

    def _next_name(self) -> str:
        return f"{self.room_id}-{len(self.messages)}"


def _room_ends(story: Story) -> None:
    tasks = ("audio", "screen")[: story.rng.choice((1, 1, 2))]
    for task in tasks:
        story.start(task, 600)
        if story.rng.random() < 0.5:
            story.tell_start(task)
    story.tell_stop(*tasks, seconds_ago=story.rng.choice((None, 2)))


def _room_ends_for_all(story: Story) -> None:
    tasks = ("audio", "screen", "extra")[: story.rng.choice((1, 2, 3))]
    for task in tasks:
        story.start(task, 600)
        story.tell_start(task)
    may_end = STOPPED | {"no_open_tasks"}  # it may come before any of the starts
    story.tell_stop(*tasks, named=False, seconds_ago=story.rng.choice((None, 2)), may_end=may_end)


def _end_overtakes_start(story: Story) -> None:
    story.start("audio", 60)
    story.tell_stop("audio", named=False, seconds_ago=5, first=True, may_end=STOPPED | {"no_open_tasks"})
    story.tell_start("audio")


def _moderation(story: Story) -> None:
    tasks = ("audio", "screen")[: story.rng.choice((1, 2))]
    for task in tasks:
        story.start(task, 600)
    story.tell_stop(*tasks, event_type="ModerationViolation")


def _moderation_and_end(story: Story) -> None:
    story.start("audio", 60)
    story.tell_stop("audio", event_type="ModerationViolation", seconds_ago=3)
    story.tell_stop("audio", seconds_ago=2)


def _callbacks(story: Story) -> None:
    story.start("audio", 60)
    data = {"AppId": APP_ID, "TaskId": "audio"}
    story.tell_callback("SegmentRealTimeData", data, KNOWN, 20, tells="audio")
    story.tell_callback("RoomDestroy", {}, STOPPED | {"no_open_tasks"}, 2, stops=("audio",))
    story.tell_callback("UserLeaveRoom", {}, frozenset({"ignored"}), 2)


def _restarted(story: Story) -> None:
    story.start("audio", 20)
    story.tell_start("audio", first=True)
    story.tell_late("audio", 60, named=story.rng.random() < 0.5)
    if story.rng.random() < 0.5:
        story.tell_stop("audio", seconds_ago=story.rng.choice((None, 1)))


def _restarted_long_after(story: Story) -> None:
    story.start("audio", 100)
    story.tell_late("audio", 1000)


def _ended_long_ago(story: Story) -> None:
    story.start("audio", 2000)
    story.tell_stop("audio", seconds_ago=1000)


def _nothing_runs(story: Story) -> None:
    story.tell_stop("audio", seconds_ago=story.rng.choice((None, 2)))


def _nothing_known(story: Story) -> None:
    story.tell_stop(named=False, may_end=frozenset({"no_open_tasks"}))


def _end_is_lost(story: Story) -> None:
    for task in ("audio", "screen")[: story.rng.choice((1, 1, 2))]:
        story.start(task, 600)
        if story.rng.random() < 0.5:
            story.tell_start(task)
        else:
            story.tell_callback("SegmentRealTimeData", {"AppId": APP_ID, "TaskId": task}, KNOWN, 20, tells=task)
    story.is_gone = True


def _nonsense(story: Story) -> None:
    told = {"AppId": APP_ID, "RoomId": story.room_id, "EventId": f"{story.room_id}-0"}
    bodies = (
        "not JSON " + story.room_id,
        json.dumps({**told, "EventType": "RoomEnded", "TaskId": "not an id"}),
        json.dumps({**told, "EventType": "RoomEndet"}),
        json.dumps({**told, "EventType": "RoomEnded", "EventTime": "yesterday"}),
    )
    story.tell_nonsense(story.rng.choice(bodies), "invalid_message")


def _app_that_does_not_exist(story: Story) -> None:
    content = {"EventType": "RoomEnded", "AppId": "nobody", "RoomId": story.room_id, "TaskId": "audio"}
    story.tell_nonsense(json.dumps(content), "rejected")


_PLOTS: dict[Callable[[Story], None], int] = {
    _room_ends: 20,
    _room_ends_for_all: 12,
    _end_overtakes_start: 8,
    _moderation: 10,
    _moderation_and_end: 6,
    _callbacks: 8,
    _restarted: 14,
    _restarted_long_after: 3,
    _ended_long_ago: 3,
    _nothing_runs: 4,
    _nothing_known: 3,
    _end_is_lost: 6,
    _nonsense: 6,
    _app_that_does_not_exist: 3,
}


def tell_stories(
    rng: random.Random, messages: int, now_ms: int, prefix: str, *, ends_are_lost: bool = False
) -> list[Story]:
    """Create rooms until there are enough messages; each plot comes once first.

    With `ends_are_lost`, most room ends are not reported.
    """
    weights = _PLOTS | ({_end_is_lost: sum(_PLOTS.values())} if ends_are_lost else {})
    stories: list[Story] = []
    plots = list(_PLOTS)
    told = 0
    while told < messages:
        story = Story(f"{prefix}-{len(stories)}", now_ms, rng)
        plot = plots[len(stories)] if len(stories) < len(plots) else rng.choices(plots, list(weights.values()))[0]
        plot(story)
        stories.append(story)
        told += len(story.messages)
    return stories


def running_tasks(stories: Sequence[Story]) -> list[Task]:
    """Return every task that runs at the API."""
    return [(story.room_id, task_id) for story in stories for task_id in story.running]
