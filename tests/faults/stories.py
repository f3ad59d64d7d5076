"""Stories of rooms, and the messages that report them. tests/explorer checks every order of events."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from sandbox.callbacks import callback
from tests.e2e.observer import APP_ID, rfc3339

KNOWN = frozenset({"known", "stopped", "already_stopped", "duplicate"})  # the room may have ended before
STOPPED = frozenset({"stopped", "already_stopped", "duplicate"})
ALL_STOPPED = STOPPED | {"no_open_tasks"}  # a message that is served again finds no open task
LATE = frozenset({"superseded", "duplicate"})

Task = tuple[str, str]
"""(RoomId, TaskId)"""


@dataclass(frozen=True)
class Message:
    """A message to send.

    Parameters
    ----------
    may_end
        The outcomes that the message may have, besides `exhausted`.
    is_early
        Whether the message is served before the faults begin.
    """

    body: str
    may_end: frozenset[str]
    is_early: bool = False


@dataclass
class Story:
    """A room, its tasks and the messages about them.

    Parameters
    ----------
    running
        The start times of its tasks at the API, in Unix ms.
    messages
        Unless `goes_on`, the last message stops the tasks.
    goes_on
        Whether its tasks run at the end, because they started after every stop event.
    is_gone
        Whether the room is gone, without a message that reports its end.
    """

    room_id: str
    now_ms: int
    rng: Random
    running: dict[str, int] = field(default_factory=dict)
    messages: list[Message] = field(default_factory=list)
    goes_on: bool = False
    is_gone: bool = False

    def start(self, *task_ids: str, seconds_ago: int = 600) -> None:
        self.running |= dict.fromkeys(task_ids, self.now_ms - 1000 * seconds_ago)

    def report_start(self, task_id: str, *, is_early: bool = False) -> None:
        self.report(
            "SegmentStarted", KNOWN, is_early=is_early, TaskId=task_id, EventTime=rfc3339(self.running[task_id])
        )

    def report(self, event_type: str, may_end: frozenset[str], *, is_early: bool = False, **values: object) -> None:
        content = {"EventType": event_type, "AppId": APP_ID, "RoomId": self.room_id, **values}
        self.keep(json.dumps(content | {"EventId": self._next_name()}), may_end, is_early=is_early)

    def call_back(
        self, event_type: str, may_end: frozenset[str], *, seconds_ago: int, is_early: bool = False, **data: str
    ) -> None:
        named = {"RoomId": self.room_id, "BusinessId": self._next_name(), **data}
        content = callback(event_type, named, rfc3339(self.now_ms - 1000 * seconds_ago), app_id=APP_ID)
        self.keep(json.dumps(content), may_end, is_early=is_early)

    def keep(self, body: str, may_end: frozenset[str], *, is_early: bool = False) -> None:
        self.messages.append(Message(body, may_end, is_early))

    def _next_name(self) -> str:
        return f"{self.room_id}-{len(self.messages)}"


def _ends(story: Story) -> None:
    tasks = ["audio", "screen"][: story.rng.choice((1, 2))]
    story.start(*tasks)
    story.report_start("audio")
    story.report(story.rng.choice(("RoomEnded", "ModerationViolation")), STOPPED, TaskIds=tasks)


def _ends_for_all(story: Story) -> None:
    story.start(*("audio", "screen", "extra")[: story.rng.choice((1, 2, 3))])
    for task_id in story.running:
        story.report_start(task_id, is_early=True)
    story.report("RoomEnded", ALL_STOPPED)


def _calls_back(story: Story) -> None:
    story.start("audio")
    story.call_back("SegmentRealTimeData", KNOWN, seconds_ago=20, is_early=True, AppId=APP_ID, TaskId="audio")
    story.call_back("RoomDestroy", ALL_STOPPED, seconds_ago=2)


def _is_restarted(story: Story) -> None:
    story.start("audio", seconds_ago=20)
    story.report_start("audio", is_early=True)
    names: dict[str, Any] = story.rng.choice(({}, {"TaskId": "audio"}))
    story.report("RoomEnded", LATE, **names, EventTime=rfc3339(story.now_ms - 60_000))
    story.goes_on = True


def _is_restarted_without_a_report(story: Story) -> None:
    story.start("audio", seconds_ago=100)
    story.report("RoomEnded", LATE, TaskId="audio", EventTime=rfc3339(story.now_ms - 1_000_000))
    story.goes_on = True


def _end_is_lost(story: Story) -> None:
    story.start("audio")
    story.report_start("audio", is_early=story.rng.random() < 0.5)
    story.is_gone = True


def _is_nonsense(story: Story) -> None:
    story.keep(f"not JSON {story.room_id}", frozenset({"invalid_message"}))
    story.report("RoomEnded", frozenset({"rejected"}), AppId="nobody", TaskId="audio")


_PLOTS = (_ends, _ends_for_all, _calls_back, _is_restarted, _is_restarted_without_a_report, _end_is_lost, _is_nonsense)


def write_stories(rng: Random, messages: int, now_ms: int, prefix: str) -> list[Story]:
    """Write stories from each plot in turn, until the stories have enough messages."""
    stories: list[Story] = []
    while sum(len(story.messages) for story in stories) < messages:
        story = Story(f"{prefix}-{len(stories)}", now_ms, rng)
        _PLOTS[len(stories) % len(_PLOTS)](story)
        stories.append(story)
    return stories


def running_tasks(stories: Sequence[Story]) -> list[Task]:
    """Return every task that runs at the API."""
    return [(story.room_id, task_id) for story in stories for task_id in story.running]
