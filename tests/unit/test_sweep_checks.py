"""What the answer about a watched room means for its tasks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segments.events import Room, Task
from segments.rules import Record
from sweep_rooms.checks import GONE_AGAIN_MS, Check, decide_check

T = 1_795_327_920_000
HOUR_MS = 3_600_000
SWEEP_MS = 300_000
ROOM = Room("661e", "room-1")
AUDIO, VIDEO = Task(ROOM, "audio"), Task(ROOM, "video")
OPEN = Record(open_since_ms=T - HOUR_MS)
ENDED_UNTOLD = Record(stop_event_time_ms=T - HOUR_MS, outcome="stopped", event_type="RoomDestroy")


def check(room: Record, *, exists: bool, tasks: dict[Task, Record], max_task_ms: int = 0, now_ms: int = T) -> Check:
    return decide_check(room, tasks, now_ms, exists=exists, sweep_every_ms=SWEEP_MS, max_task_ms=max_task_ms)


@pytest.mark.parametrize(
    ("room", "exists", "tasks", "decided"),
    [
        pytest.param(Record(), True, {AUDIO: OPEN}, Check(T + SWEEP_MS, None, (), T), id="it is there"),
        pytest.param(Record(), False, {AUDIO: OPEN}, Check(T + GONE_AGAIN_MS, T, (), T), id="gone once"),
        pytest.param(
            Record(gone_at_ms=T - GONE_AGAIN_MS),
            False,
            {VIDEO: OPEN, AUDIO: OPEN},
            Check(T + SWEEP_MS, T, (AUDIO, VIDEO), T - GONE_AGAIN_MS),
            id="gone twice: all of its tasks, at the time of the first answer",
        ),
        pytest.param(
            Record(gone_at_ms=T - GONE_AGAIN_MS),
            True,
            {AUDIO: OPEN},
            Check(T + SWEEP_MS, None, (), T),
            id="it is back",
        ),
        pytest.param(
            Record(gone_at_ms=T - HOUR_MS),
            False,
            {AUDIO: Record(open_since_ms=T - 2 * HOUR_MS), VIDEO: Record(open_since_ms=T - HOUR_MS + 1)},
            Check(T + GONE_AGAIN_MS, T, (), T),
            id="gone, but a task was heard of since",
        ),
        pytest.param(
            Record(gone_at_ms=T - HOUR_MS),
            False,
            {AUDIO: Record(open_since_ms=T - 2 * HOUR_MS, started_at_ms=T - 2 * HOUR_MS, seen_at_ms=T - HOUR_MS + 1)},
            Check(T + GONE_AGAIN_MS, T, (), T),
            id="gone, but a slice came since",
        ),
        pytest.param(
            Record(gone_at_ms=T - GONE_AGAIN_MS),
            False,
            {AUDIO: ENDED_UNTOLD},
            Check(T + SWEEP_MS, T, (AUDIO,), T - GONE_AGAIN_MS),
            id="gone twice, and a session may have begun unseen since a stop",
        ),
    ],
)
def test_what_is_done_about_a_room(room: Record, exists: bool, tasks: dict[Task, Record], decided: Check) -> None:
    assert check(room, exists=exists, tasks=tasks) == decided


@pytest.mark.parametrize(
    ("max_task_ms", "open_for_ms", "is_stopped"),
    [(0, 1_000 * HOUR_MS, False), (HOUR_MS, HOUR_MS - 1, False), (HOUR_MS, HOUR_MS, True), (HOUR_MS, T, True)],
)
def test_a_task_may_be_too_old_though_its_room_exists(max_task_ms: int, open_for_ms: int, is_stopped: bool) -> None:
    tasks = {AUDIO: Record(open_since_ms=T - open_for_ms), VIDEO: Record(open_since_ms=T)}
    decided = check(Record(), exists=True, tasks=tasks, max_task_ms=max_task_ms)
    assert decided == Check(T + SWEEP_MS, None, (AUDIO,) if is_stopped else (), T)


@pytest.mark.parametrize(
    ("answered_ms", "starts_over"), [(T - GONE_AGAIN_MS - 1, False), (T - GONE_AGAIN_MS, True), (T - 1, True)]
)
def test_a_room_whose_end_was_told_since_starts_over(answered_ms: int, starts_over: bool) -> None:
    """Of a stop that covers the first answer the sweeper's event would be a duplicate, for ever."""
    ended = Record(stop_event_time_ms=answered_ms, outcome="stopped", event_type="RoomDestroy")
    decided = check(Record(gone_at_ms=T - GONE_AGAIN_MS), exists=False, tasks={AUDIO: ended})
    assert (decided.to_stop == ()) == starts_over
    assert decided.gone_at_ms == T


times_ms = st.integers(T - 10 * HOUR_MS, T)
records = st.builds(
    Record,
    open_since_ms=times_ms,
    started_at_ms=st.none() | times_ms,
    seen_at_ms=st.none() | times_ms,
)


@given(
    gone_at_ms=st.none() | times_ms,
    exists=st.booleans(),
    tasks=st.dictionaries(st.sampled_from([AUDIO, VIDEO]), records, min_size=1),
    max_task_ms=st.sampled_from([0, HOUR_MS]),
)
def test_nothing_is_stopped_at_a_time_at_which_its_room_was_not_known_to_be_over(
    gone_at_ms: int | None, exists: bool, tasks: dict[Task, Record], max_task_ms: int
) -> None:
    decided = check(Record(gone_at_ms=gone_at_ms), exists=exists, tasks=tasks, max_task_ms=max_task_ms)
    assert T < decided.check_at_ms <= T + SWEEP_MS
    assert set(decided.to_stop) <= tasks.keys()
    if exists:
        assert decided.gone_at_ms is None
        assert not (decided.to_stop and not max_task_ms)
        return
    assert decided.gone_at_ms == T
    if decided.to_stop:
        heard_ms = max(record.heard_ms or 0 for record in tasks.values())
        assert decided.stop_time_ms == gone_at_ms
        assert heard_ms <= decided.stop_time_ms
        assert set(decided.to_stop) == tasks.keys()
