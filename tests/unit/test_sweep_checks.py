"""The sweeper's decision about a room, from the answer of the API and the room's watched tasks."""

import pytest

from segments.events import Room, Task
from segments.stop_rules import Record
from sweep_rooms.checks import GONE_AGAIN_MS, Check, decide_check

T = 1_795_327_920_000
HOUR_MS = 3_600_000
ROOM = Room("661e", "room-1")
AUDIO, VIDEO = Task(ROOM, "audio"), Task(ROOM, "video")
ROUND = T - 2 * GONE_AGAIN_MS
OPEN, NEWEST, WATCHED = (Record(open_since_ms=ms, watch="1") for ms in (T - HOUR_MS, T - GONE_AGAIN_MS, None))


def check(
    tasks: dict[Task, Record],
    gone_at_ms: int | None,
    *,
    exists: bool,
    last_round_began_at_ms: int = ROUND,
    max_task_ms: int = 0,
) -> Check:
    times = {"last_round_began_at_ms": last_round_began_at_ms, "max_task_ms": max_task_ms}
    return decide_check(tasks, gone_at_ms, T, exists=exists, **times)


@pytest.mark.parametrize(
    ("gone_at_ms", "exists", "tasks", "decided"),
    [
        pytest.param(None, True, {AUDIO: OPEN}, Check(None, (), T), id="the room exists"),
        pytest.param(None, False, {AUDIO: OPEN}, Check(T, (), T), id="gone once"),
        pytest.param(
            T - GONE_AGAIN_MS,
            False,
            {VIDEO: OPEN, AUDIO: NEWEST},
            Check(T, (AUDIO, VIDEO), T - GONE_AGAIN_MS),
            id="gone twice: its tasks are stopped as of the first answer",
        ),
        pytest.param(
            T - GONE_AGAIN_MS + 1, False, {AUDIO: OPEN}, Check(T - GONE_AGAIN_MS + 1, (), T), id="gone again too soon"
        ),
        pytest.param(T - GONE_AGAIN_MS, True, {AUDIO: OPEN}, Check(None, (), T), id="the room exists again"),
        pytest.param(
            T - GONE_AGAIN_MS - 1, False, {VIDEO: OPEN, AUDIO: NEWEST}, Check(T, (), T), id="gone, but opened since"
        ),
        pytest.param(ROUND, False, {AUDIO: OPEN}, Check(T, (AUDIO,), ROUND), id="gone twice in a row"),
        pytest.param(ROUND - 1, False, {AUDIO: OPEN}, Check(T, (), T), id="gone, but not in a row"),
        pytest.param(
            T - GONE_AGAIN_MS,
            False,
            {AUDIO: WATCHED},
            Check(T, (AUDIO,), T - GONE_AGAIN_MS),
            id="gone twice, with a task that is watched but not open",
        ),
    ],
)
def test_tasks_are_stopped_if_two_answers_in_a_row_say_that_the_room_is_gone(
    gone_at_ms: int | None, exists: bool, tasks: dict[Task, Record], decided: Check
) -> None:
    assert check(tasks, gone_at_ms, exists=exists) == decided


@pytest.mark.parametrize(
    ("max_task_ms", "open_for_ms", "is_stopped"),
    [(0, 1_000 * HOUR_MS, False), (HOUR_MS, HOUR_MS - 1, False), (HOUR_MS, HOUR_MS, True), (HOUR_MS, T, True)],
)
def test_a_task_that_is_too_old_is_stopped_anyway(max_task_ms: int, open_for_ms: int, is_stopped: bool) -> None:
    tasks = {AUDIO: Record(open_since_ms=T - open_for_ms), VIDEO: WATCHED}
    decided = check(tasks, None, exists=True, max_task_ms=max_task_ms)
    assert decided == Check(None, (AUDIO,) if is_stopped else (), T)
