import pytest

from segments.events import Event, EventType, Room
from segments.stop_rules import API_REMEMBERS_MS, Record, RunningTask, Verdict, decide, decide_from_api, is_late

WINDOW_MS = 5_000
STALE_MS = 30_000
T = 1_795_327_920_000


def verdict(time_ms: int, record: Record, *, late: bool = False) -> Verdict:
    return decide(time_ms, record, is_late=late, duplicate_window_ms=WINDOW_MS)


def stopped_at(time_ms: int, *, started_at_ms: int | None = None) -> Record:
    return Record(stop_event_time_ms=time_ms, started_at_ms=started_at_ms)


def started_at(time_ms: int) -> Record:
    return Record(started_at_ms=time_ms)


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        pytest.param(Record(), Verdict.STOP, id="nothing is known"),
        pytest.param(Record(open_since_ms=T), Verdict.STOP, id="a slice is not a start"),
        pytest.param(Record(open_since_ms=T + 1), Verdict.ASK, id="first reported after the event"),
        # Rule 1
        pytest.param(stopped_at(T), Verdict.DUPLICATE, id="the same event again"),
        pytest.param(stopped_at(T, started_at_ms=T + 1), Verdict.DUPLICATE, id="the same event, of an earlier session"),
        pytest.param(stopped_at(T + 1), Verdict.DUPLICATE, id="a newer event was answered"),
        pytest.param(stopped_at(T - WINDOW_MS), Verdict.DUPLICATE, id="the window's last millisecond"),
        pytest.param(stopped_at(T - WINDOW_MS - 1), Verdict.STOP, id="just after the window"),
        pytest.param(
            stopped_at(T - 2, started_at_ms=T - 3), Verdict.DUPLICATE, id="within the window, started before the stop"
        ),
        pytest.param(
            stopped_at(T - 2, started_at_ms=T - 2), Verdict.DUPLICATE, id="within the window, started with the stop"
        ),
        pytest.param(
            stopped_at(T - 2, started_at_ms=T - 1), Verdict.STOP, id="within the window, started after the stop"
        ),
        pytest.param(
            stopped_at(T + 1, started_at_ms=T + 2), Verdict.DUPLICATE, id="answered before the task started again"
        ),
        # Rule 2
        pytest.param(started_at(T + 1), Verdict.SUPERSEDED, id="the task started later"),
        pytest.param(started_at(T), Verdict.STOP, id="the task started at the same time"),
        pytest.param(
            stopped_at(T - 1, started_at_ms=T + 1), Verdict.SUPERSEDED, id="restarted after an older stop and this one"
        ),
    ],
)
def test_a_fresh_stop_event_is_decided_by_the_record(record: Record, expected: Verdict) -> None:
    assert verdict(T, record) is expected


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        pytest.param(Record(), Verdict.ASK, id="nothing is known"),
        pytest.param(Record(open_since_ms=T - 1), Verdict.ASK, id="a slice is not a start"),
        pytest.param(stopped_at(T - WINDOW_MS - 1), Verdict.ASK, id="stopped once long before"),
        pytest.param(started_at(T), Verdict.ASK, id="the start is known, perhaps of an older session"),
        pytest.param(stopped_at(T), Verdict.DUPLICATE, id="answered"),
        pytest.param(started_at(T + 1), Verdict.SUPERSEDED, id="started later"),
    ],
)
def test_a_late_stop_event_asks_first_unless_it_is_answered_or_superseded(record: Record, expected: Verdict) -> None:
    assert verdict(T, record, late=True) is expected


@pytest.mark.parametrize(
    ("event_type", "second_try", "age_ms", "late"),
    [
        pytest.param(EventType.ROOM_ENDED, False, STALE_MS, False, id="as old as allowed"),
        pytest.param(EventType.ROOM_ENDED, False, STALE_MS + 1, True, id="stale"),
        pytest.param(EventType.ROOM_ENDED, False, -1, False, id="our clock is behind"),
        pytest.param(EventType.ROOM_ENDED, True, 0, True, id="received before"),
        pytest.param(EventType.ROOM_GONE, False, 0, True, id="from the sweeper"),
    ],
)
def test_an_event_is_late_if_a_session_may_have_begun_since(
    event_type: EventType, second_try: bool, age_ms: int, late: bool
) -> None:
    event = Event(event_type, Room("661e", "room-1"), T, is_second_try=second_try)
    assert is_late(event, T + age_ms, STALE_MS) is late


def test_without_a_window_only_the_same_or_an_older_event_is_a_duplicate() -> None:
    verdicts = [decide(time_ms, stopped_at(T), is_late=False, duplicate_window_ms=0) for time_ms in (T, T + 1)]
    assert verdicts == [Verdict.DUPLICATE, Verdict.STOP]


UNKNOWN, NOT_STARTED, RUNNING, ENDED, FAILED = range(5)


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        pytest.param(None, Verdict.ALREADY_STOPPED, id="no such task"),
        pytest.param(RunningTask(T - 1, 0, RUNNING), Verdict.STOP, id="running since before"),
        pytest.param(RunningTask(T, 0, RUNNING), Verdict.STOP, id="running since then"),
        pytest.param(RunningTask(T + 1, 0, RUNNING), Verdict.SUPERSEDED, id="running since later"),
        pytest.param(RunningTask(T - 2, T - 1, ENDED), Verdict.ALREADY_STOPPED, id="ended before"),
        pytest.param(RunningTask(T - 1, T + 1, ENDED), Verdict.ALREADY_STOPPED, id="ended since"),
        pytest.param(RunningTask(T - 1, 0, ENDED), Verdict.ALREADY_STOPPED, id="ended at an unknown time"),
        pytest.param(RunningTask(T - 1, T, RUNNING), Verdict.ALREADY_STOPPED, id="its end counts before its status"),
        pytest.param(RunningTask(T + 1, T + 2, ENDED), Verdict.ALREADY_STOPPED, id="started and ended later"),
        pytest.param(RunningTask(0, 0, FAILED), Verdict.ALREADY_STOPPED, id="failed to start"),
        pytest.param(RunningTask(T - 1, 0, FAILED), Verdict.ALREADY_STOPPED, id="failed"),
        pytest.param(RunningTask(0, 0, NOT_STARTED), Verdict.SUPERSEDED, id="not started yet"),
        pytest.param(RunningTask(T - 1, 0, UNKNOWN), Verdict.STOP, id="status unknown, started before"),
        pytest.param(RunningTask(T + 1, 0, UNKNOWN), Verdict.SUPERSEDED, id="status unknown, started later"),
        pytest.param(RunningTask(0, 0, UNKNOWN), Verdict.ASK, id="nothing is known"),
        pytest.param(RunningTask(0, 0, RUNNING), Verdict.ASK, id="running since an unknown time"),
    ],
)
def test_the_api_s_answer_decides_about_a_late_stop_event(task: RunningTask | None, expected: Verdict) -> None:
    assert decide_from_api(T, task, Record(open_since_ms=T), T) is expected


@pytest.mark.parametrize(
    ("opened_ms", "expected"),
    [(None, Verdict.ALREADY_STOPPED), (T + 1, Verdict.ALREADY_STOPPED), (T, Verdict.STOP)],
)
def test_an_open_task_that_the_api_has_forgotten_is_stopped(opened_ms: int | None, expected: Verdict) -> None:
    record = Record(open_since_ms=opened_ms)
    assert decide_from_api(T, None, record, T + API_REMEMBERS_MS) is expected
