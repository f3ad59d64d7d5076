import pytest
from hypothesis import given
from hypothesis import strategies as st

from stop_segment.rules import Record, RunningTask, Verdict, decide, decide_from_api

WINDOW_MS = 5_000
STALE_MS = 300_000
T = 1_795_327_920_000


def verdict(time_ms: int, record: Record, now_ms: int) -> Verdict:
    return decide(time_ms, record, now_ms, duplicate_window_ms=WINDOW_MS, stale_after_ms=STALE_MS)


def stopped_at(time_ms: int, *, started_at_ms: int | None = None) -> Record:
    return Record(stop_event_time_ms=time_ms, started_at_ms=started_at_ms)


def started_at(time_ms: int) -> Record:
    return Record(started_at_ms=time_ms)


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        pytest.param(Record(), Verdict.STOP, id="nothing is known"),
        pytest.param(Record(seen_at_ms=T + 1), Verdict.STOP, id="a sighting is not a start"),
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
    assert verdict(T, record, now_ms=T) is expected


@pytest.mark.parametrize(
    ("record", "age_ms", "expected"),
    [
        pytest.param(Record(), STALE_MS, Verdict.STOP, id="as old as may be"),
        pytest.param(Record(), STALE_MS + 1, Verdict.ASK, id="stale"),
        pytest.param(Record(seen_at_ms=T - 1), STALE_MS + 1, Verdict.ASK, id="stale, and a sighting is not a start"),
        pytest.param(stopped_at(T - WINDOW_MS - 1), STALE_MS + 1, Verdict.ASK, id="stale, stopped once long before"),
        pytest.param(stopped_at(T), STALE_MS + 1, Verdict.DUPLICATE, id="stale, but answered"),
        pytest.param(started_at(T), STALE_MS + 1, Verdict.STOP, id="stale, but the start is known"),
        pytest.param(started_at(T + 1), STALE_MS + 1, Verdict.SUPERSEDED, id="stale, and started later"),
        pytest.param(Record(), -1, Verdict.STOP, id="our clock is behind"),
    ],
)
def test_a_stale_stop_event_asks_first_where_no_start_is_known(record: Record, age_ms: int, expected: Verdict) -> None:
    assert verdict(T, record, now_ms=T + age_ms) is expected


def test_an_expired_record_still_counts() -> None:
    assert verdict(T, Record(stop_event_time_ms=T, expires_at_seconds=1), now_ms=T) is Verdict.DUPLICATE


def test_without_a_window_only_the_same_or_an_older_event_is_a_duplicate() -> None:
    verdicts = [
        decide(time_ms, stopped_at(T), T, duplicate_window_ms=0, stale_after_ms=STALE_MS) for time_ms in (T, T + 1)
    ]
    assert verdicts == [Verdict.DUPLICATE, Verdict.STOP]


TIMES = st.integers(T - 2 * STALE_MS, T + 2 * STALE_MS) | st.integers(T - 3, T + 3)
RECORDS = st.builds(
    Record,
    stop_event_time_ms=st.none() | TIMES,
    started_at_ms=st.none() | TIMES,
    seen_at_ms=st.none() | TIMES,
    expires_at_seconds=st.integers(0, 2**33),
)


class TestAlways:
    @given(TIMES, TIMES, RECORDS, TIMES)
    def test_what_is_older_than_a_duplicate_is_a_duplicate(
        self, one_ms: int, other_ms: int, record: Record, now_ms: int
    ) -> None:
        older_ms, newer_ms = sorted([one_ms, other_ms])
        if verdict(newer_ms, record, now_ms) is Verdict.DUPLICATE:
            assert verdict(older_ms, record, now_ms) is Verdict.DUPLICATE

    @given(TIMES, RECORDS, TIMES)
    def test_late_event_never_stops_a_restarted_task(self, time_ms: int, record: Record, now_ms: int) -> None:
        if record.started_at_ms is not None and record.started_at_ms > time_ms:
            assert verdict(time_ms, record, now_ms) in (Verdict.DUPLICATE, Verdict.SUPERSEDED)

    @given(TIMES, RECORDS, TIMES)
    def test_only_a_later_start_supersedes(self, time_ms: int, record: Record, now_ms: int) -> None:
        if verdict(time_ms, record, now_ms) is Verdict.SUPERSEDED:
            assert record.started_at_ms is not None
            assert record.started_at_ms > time_ms

    @given(TIMES, RECORDS, TIMES)
    def test_an_answered_event_is_never_answered_again(self, time_ms: int, record: Record, now_ms: int) -> None:
        answered = Record(stop_event_time_ms=time_ms, started_at_ms=record.started_at_ms)
        assert verdict(time_ms, answered, now_ms) is Verdict.DUPLICATE

    @given(TIMES, RECORDS, TIMES)
    def test_a_known_start_after_the_last_answer_is_stopped_by_any_later_event(
        self, time_ms: int, record: Record, now_ms: int
    ) -> None:
        restarted = Record(stop_event_time_ms=time_ms - 2, started_at_ms=time_ms - 1, seen_at_ms=record.seen_at_ms)
        assert verdict(time_ms, restarted, now_ms) is Verdict.STOP

    @given(TIMES, RECORDS, TIMES, TIMES)
    def test_age_counts_only_where_no_start_is_known(
        self, time_ms: int, record: Record, now_ms: int, later_ms: int
    ) -> None:
        if record.started_at_ms is not None:
            assert verdict(time_ms, record, now_ms) is verdict(time_ms, record, later_ms) is not Verdict.ASK

    @given(TIMES, RECORDS, TIMES)
    def test_a_sighting_decides_nothing(self, time_ms: int, record: Record, now_ms: int) -> None:
        unseen = Record(stop_event_time_ms=record.stop_event_time_ms, started_at_ms=record.started_at_ms)
        assert verdict(time_ms, record, now_ms) is verdict(time_ms, unseen, now_ms)


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
        pytest.param(RunningTask(T - 1, 0, ENDED), Verdict.ALREADY_STOPPED, id="ended, nobody knows when"),
        pytest.param(RunningTask(T - 1, T, RUNNING), Verdict.ALREADY_STOPPED, id="an end says more than a status"),
        pytest.param(RunningTask(T + 1, T + 2, ENDED), Verdict.SUPERSEDED, id="started and ended later"),
        pytest.param(RunningTask(0, 0, FAILED), Verdict.ALREADY_STOPPED, id="failed to start"),
        pytest.param(RunningTask(T - 1, 0, FAILED), Verdict.ALREADY_STOPPED, id="failed"),
        pytest.param(RunningTask(0, 0, NOT_STARTED), Verdict.SUPERSEDED, id="not started yet"),
        pytest.param(RunningTask(T - 1, 0, UNKNOWN), Verdict.STOP, id="status unknown, started before"),
        pytest.param(RunningTask(T + 1, 0, UNKNOWN), Verdict.SUPERSEDED, id="status unknown, started later"),
        pytest.param(RunningTask(0, 0, UNKNOWN), Verdict.ASK, id="nothing is known"),
        pytest.param(RunningTask(0, 0, RUNNING), Verdict.ASK, id="running, nobody knows since when"),
    ],
)
def test_the_api_decides_of_a_stale_stop_event(task: RunningTask | None, expected: Verdict) -> None:
    assert decide_from_api(T, task) is expected


@given(TIMES, TIMES, st.integers(0, 2 * T), st.integers(UNKNOWN, FAILED))
def test_the_api_never_lets_a_late_event_stop_a_restarted_task(
    time_ms: int, started_at_ms: int, ended_at_ms: int, status: int
) -> None:
    stops = decide_from_api(time_ms, RunningTask(started_at_ms, ended_at_ms, status)) is Verdict.STOP
    assert not (stops and started_at_ms > time_ms)
