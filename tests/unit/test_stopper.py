"""The handling of one event, step by step; tests/explorer checks whole histories."""

import asyncio
import gc
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import pytest

from benchmarks.table_units import index_of
from segments.api_calls import Calls
from segments.errors import InvalidMessage, NoAnswer, Rejected, Retryable, StopError
from segments.events import Event, EventType, Room, Task, parse_event
from segments.ledger import SegmentTable
from segments.rtc import RtcApi, Stopped
from segments.stop_rules import Outcome, Record, RunningTask
from stop_segment.stopper import Done, Served, Stopper
from tests.segment_table import GLOBAL, LOCAL, keys_of
from tests.unit.memory_dynamo import MemoryDynamo
from tests.unit.rtc_model import SETTINGS

T = 1_795_327_920_000
MINUTE_MS = 60_000
STALE_MS = SETTINGS.stale_after_ms + 1
ROOM = Room("661e", "room-1")
AUDIO = Task(ROOM, "audio")
DEADLINE_SECONDS = 5
NOT_STARTED, RUNNING, ENDED = 1, 2, 3
INDEXES = [index_of(index, set(keys_of(None))) for index in (LOCAL | GLOBAL).values()]
NO_ANSWER = NoAnswer("Timeout", "the API did not answer in time")


class Rtc:
    """The RTC API: it stops everything, and answers about every task as configured."""

    def __init__(self) -> None:
        self.found: RunningTask | None = None
        self.silent = False
        self.stops: list[tuple[str, str | None]] = []
        self.questions = 0

    def stop_segment(self, task: Task, business_id: str | None) -> Stopped:
        self.stops.append((task.task_id, business_id))
        if self.silent:
            raise NO_ANSWER
        return Stopped(Outcome.STOPPED, "stop-1")

    def get_segment_task(self, _: Task) -> tuple[RunningTask | None, str]:
        self.questions += 1
        return self.found, "query-1"


class Environment:
    """A function environment with API calls that need no turn, and its surroundings."""

    def __init__(self) -> None:
        self.now_ms = T
        self.rtc = Rtc()
        self.dynamo = MemoryDynamo()
        self.table = SegmentTable(
            self.dynamo.client, SETTINGS.segment_table_name, SETTINGS.record_retention_seconds, sweeps=True
        )
        self.did: Counter[str] = Counter()
        self.write_units = 0
        self.measured: list[tuple[str, float]] = []
        self.settings = SETTINGS
        self.restart()

    def restart(self) -> None:
        calls, api = cast("Calls", self), cast("RtcApi", self.rtc)
        self.stopper = Stopper(
            self.settings,
            self.table,
            api,
            calls,
            calls,
            self.in_thread,
            lambda: self.now_ms,
            lambda name, value: self.measured.append((name, value)),
        )

    async def in_thread(self, function: Callable[..., Any], *arguments: object) -> Any:
        self.did[function.__name__] += 1
        before = len(self.dynamo.changes)
        result = function(*arguments)
        # A write of a small item costs a unit, also if its condition fails, and another one for each index that it
        # changes (Amazon DynamoDB Developer Guide, "Working with read and write operations").
        self.write_units += function.__name__.startswith("note_")
        self.write_units += sum(index.writes(*change) for index in INDEXES for change in self.dynamo.changes[before:])
        return result

    async def make(
        self, function: Callable[..., Any], *arguments: object, seconds_left: Callable[[], float], message: object
    ) -> Any:
        assert seconds_left() == 60
        assert isinstance(message, Event)
        return function(*arguments)

    def serve(self, *events: Event) -> list[Served]:
        """Serve events as one batch."""

        async def serve_all() -> list[Served]:
            batch = self.stopper.batch(lambda: 60)
            asyncio.get_running_loop().set_exception_handler(lambda _, context: unseen.append(context))
            async with asyncio.timeout(DEADLINE_SECONDS):
                return await asyncio.gather(*(batch.serve(event) for event in events))

        unseen: list[dict[str, Any]] = []
        self.did.clear()
        served = asyncio.run(serve_all())
        assert unseen == []
        return served

    def record(self) -> Record | None:
        return self.table.read([AUDIO]).get(AUDIO)


@pytest.fixture
def environment() -> Environment:
    return Environment()


def sighting(time_ms: int = T) -> Event:
    return Event(EventType.SEGMENT_REAL_TIME_DATA, ROOM, time_ms, ("audio",))


def start(time_ms: int = T) -> Event:
    return Event(EventType.SEGMENT_STARTED, ROOM, time_ms, ("audio",))


def stop(time_ms: int = T, *task_ids: str, business_id: str | None = None) -> Event:
    return Event(EventType.MODERATION_VIOLATION, ROOM, time_ms, task_ids or ("audio",), "evt-1", business_id)


def room_end(time_ms: int = T, business_id: str | None = None) -> Event:
    return Event(EventType.ROOM_ENDED, ROOM, time_ms, (), "evt-2", business_id)


KNOWN = Served([Done("audio", Outcome.KNOWN)])


class TestSightings:
    def test_a_task_that_was_just_seen_costs_nothing(self, environment: Environment) -> None:
        assert environment.serve(sighting()) == [KNOWN]
        assert environment.did["note_sighting"] == 1
        for later_ms in (0, 1, MINUTE_MS - 1):
            environment.now_ms = T + later_ms
            assert environment.serve(sighting(T + later_ms)) == [KNOWN]
            assert not environment.did

    @pytest.mark.parametrize("again", [replace(sighting(T + 1), is_second_try=True), sighting(T - 1)])
    def test_one_that_was_tried_before_or_is_older_looks_whether_the_room_is_over(
        self, environment: Environment, again: Event
    ) -> None:
        environment.serve(sighting())
        assert environment.serve(again) == [KNOWN]
        assert environment.did["read"]

    def test_a_minute_later_the_table_is_asked_again_and_nothing_is_written(self, environment: Environment) -> None:
        environment.serve(sighting())
        environment.now_ms += MINUTE_MS
        assert environment.serve(sighting(T + MINUTE_MS)) == [KNOWN]
        assert environment.did == {"read": 2}

    def test_a_slice_from_before_the_stop_changes_nothing(self, environment: Environment) -> None:
        environment.serve(stop())
        assert environment.serve(sighting(T)) == [KNOWN]
        assert environment.did == {"read": 1}

    @pytest.mark.parametrize("told", [start, sighting])
    def test_what_is_opened_costs_one_write_and_a_look_at_its_room(
        self, environment: Environment, told: Callable[[int], Event]
    ) -> None:
        environment.serve(told(T))
        reads = 1 if told is start else 2
        assert environment.did == {f"note_{'start' if told is start else 'sighting'}": 1, "read": reads}

    @pytest.mark.parametrize("later_ms", [1, -1])
    def test_a_retry_finds_the_room_s_end_though_nothing_was_to_be_written(
        self, environment: Environment, later_ms: int
    ) -> None:
        environment.table.note_start(AUDIO, T)
        environment.table.note_room_end(room_end(T + MINUTE_MS), T)
        environment.rtc.found = RunningTask(T, 0, RUNNING)
        retry = replace(sighting(T + later_ms), is_second_try=True)
        assert environment.serve(retry) == [Served([Done("audio", Outcome.STOPPED, "stop-1")])]
        assert not environment.did["note_sighting"]

    def test_ten_thousand_tasks_are_remembered_and_the_first_is_forgotten_first(self, environment: Environment) -> None:
        tasks = [Task(ROOM, f"task-{number}") for number in range(10_001)]
        for task in tasks:
            environment.stopper.remember(task, T)
        assert [environment.stopper.remembers(tasks[number], T) for number in (0, 1, -1)] == [False, True, True]


class TestRooms:
    def test_a_room_whose_tasks_are_closed_has_none_to_stop(self, environment: Environment) -> None:
        environment.serve(start())
        environment.serve(room_end(T + 1))
        duplicate, nothing = (Served([Done(None, outcome)]) for outcome in (Outcome.DUPLICATE, Outcome.NO_OPEN_TASKS))
        window_ms = SETTINGS.duplicate_window_ms
        assert environment.serve(room_end(T + 1)) == [duplicate]
        assert environment.serve(room_end(T + 2)) == [duplicate]
        assert environment.serve(room_end(T + 2 + window_ms)) == [duplicate]
        assert environment.serve(room_end(T + 3 + 2 * window_ms)) == [nothing]
        assert len(environment.rtc.stops) == 1

    @pytest.mark.parametrize("ends", [1, 10, 100])
    def test_an_end_costs_the_same_however_many_tasks_the_room_has_had(
        self, environment: Environment, ends: int
    ) -> None:
        for number in range(ends):
            environment.now_ms = T + number * MINUTE_MS
            environment.serve(replace(start(environment.now_ms), task_ids=(f"audio-{number}",)))
            environment.write_units = 0
            environment.serve(room_end(environment.now_ms + 1))
        assert (len(environment.rtc.stops), environment.rtc.questions) == (ends, 0)
        assert environment.write_units == 4
        assert environment.did == {"note_room_end": 1, "open_tasks": 1, "note_stop": 1}

    @pytest.mark.parametrize("told", [start, sighting])
    def test_what_began_until_the_end_of_its_room_is_stopped(self, told: Callable[[int], Event]) -> None:
        stopped = Served([Done("audio", Outcome.STOPPED, "stop-1")])
        for later_ms, expected in ((-1, stopped), (0, stopped), (1, KNOWN)):
            fresh = Environment()
            fresh.serve(room_end(business_id="biz-1"))
            assert fresh.serve(told(T + later_ms)) == [expected]
            assert fresh.rtc.stops == ([("audio", "biz-1")] if expected is stopped else [])

    def test_what_is_stopped_with_its_room_is_recorded_as_the_rooms_event_told(self, environment: Environment) -> None:
        environment.serve(room_end(business_id="biz-1"))
        environment.serve(start(T - 1))
        record = environment.record()
        assert record
        assert (record.event_type, record.event_id, record.business_id) == ("RoomEnded", "evt-2", "biz-1")
        assert (record.stop_event_time_ms, record.outcome) == (T, "stopped")


class TestCosts:
    def test_a_told_session_with_two_ends_costs_eight_write_units(self, environment: Environment) -> None:
        environment.serve(start())
        environment.serve(room_end(T + 1))
        environment.serve(room_end(T + 300))
        assert environment.write_units == 8
        assert len(environment.rtc.stops) == 1

    def test_a_stop_of_an_unknown_task_costs_a_write_and_its_duplicate_none(self, environment: Environment) -> None:
        environment.serve(stop())
        assert environment.write_units == 1
        environment.serve(stop())
        assert environment.write_units == 1


UNCLEAR = "TaskUnclear: GetSegmentTask does not say when the task started"


@pytest.mark.parametrize(
    ("found", "outcome", "request_id", "started_at_ms"),
    [
        pytest.param(None, Outcome.ALREADY_STOPPED, "query-1", None, id="no such task"),
        pytest.param(RunningTask(T + 1, 0, RUNNING), Outcome.SUPERSEDED, "query-1", T + 1, id="started later"),
        pytest.param(
            RunningTask(1_000 * T, 0, RUNNING), Outcome.SUPERSEDED, "query-1", T + STALE_MS, id="starts in the future"
        ),
        pytest.param(RunningTask(T, 0, NOT_STARTED), Outcome.SUPERSEDED, "query-1", None, id="to start then"),
        pytest.param(RunningTask(T - 1, 0, RUNNING), Outcome.STOPPED, "stop-1", None, id="running since before"),
        pytest.param(RunningTask(0, 0, RUNNING), None, "query-1", None, id="running, nobody knows since when"),
    ],
)
def test_a_stale_event_does_what_the_api_says(
    environment: Environment,
    found: RunningTask | None,
    outcome: Outcome | None,
    request_id: str,
    started_at_ms: int | None,
) -> None:
    environment.rtc.found = found
    environment.now_ms += STALE_MS
    (served,) = environment.serve(stop())
    record = environment.record() or Record()
    assert record.started_at_ms == started_at_ms
    if outcome is None:
        ((task_id, error),) = served.failed
        assert (task_id, str(error), error.request_id) == ("audio", UNCLEAR, request_id)
        assert isinstance(error, Retryable)
        assert record == Record()
        return
    assert served == Served([Done("audio", outcome, request_id)])
    assert record.outcome == (None if outcome is Outcome.SUPERSEDED else outcome.value)


class TestHeartbeats:
    @staticmethod
    def beat(time_ms: int) -> Event:
        body = {"EventType": "Heartbeat", "AppId": "661e", "RoomId": "room-1", "TaskId": "audio"}
        event = parse_event(json.dumps(body), time_ms)
        assert event
        return event

    def test_it_stops_the_task_that_nobody_has_whatever_it_names(self, environment: Environment) -> None:
        assert environment.serve(self.beat(T)) == [Served([Done("heartbeat", Outcome.HEARTBEAT, "stop-1")])]
        assert environment.rtc.stops == [("heartbeat", None)]
        assert environment.record() is None
        assert environment.measured == []

    def test_the_next_one_is_not_its_duplicate_and_the_same_one_is(self, environment: Environment) -> None:
        environment.serve(self.beat(T))
        assert environment.serve(self.beat(T))[0].done[0].outcome is Outcome.DUPLICATE
        environment.now_ms = T + SETTINGS.duplicate_window_ms
        assert environment.serve(self.beat(T + 1))[0].done[0].outcome is Outcome.HEARTBEAT
        assert len(environment.rtc.stops) == 2

    @pytest.mark.parametrize("found", [None, RunningTask(T - 1, 0, RUNNING), RunningTask(T - 1, T, ENDED)])
    def test_while_only_observing_it_asks_and_stops_nothing(
        self, environment: Environment, found: RunningTask | None
    ) -> None:
        environment.rtc.found = found
        environment.settings = replace(environment.settings, observes=True)
        environment.restart()
        assert environment.serve(self.beat(T)) == [Served([Done("heartbeat", Outcome.HEARTBEAT, "query-1")])]
        assert environment.rtc.stops == []


class TestObserving:
    @pytest.fixture
    def environment(self) -> Environment:
        environment = Environment()
        environment.settings = replace(SETTINGS, observes=True)
        environment.restart()
        return environment

    def test_the_same_room_end_is_told_again_until_it_is_stopped(self, environment: Environment) -> None:
        environment.rtc.found = RunningTask(T - 1, 0, RUNNING)
        environment.serve(start(T - 1))
        for _ in range(2):
            assert environment.serve(room_end()) == [Served([Done("audio", Outcome.WOULD_STOP, "query-1")])]
        environment.settings = SETTINGS
        environment.restart()
        assert environment.serve(room_end()) == [Served([Done("audio", Outcome.STOPPED, "stop-1")])]

    def test_what_somebody_else_has_stopped_is_open_no_longer(self, environment: Environment) -> None:
        environment.serve(start(T - 2))
        environment.rtc.found = RunningTask(T - 2, T - 1, ENDED)
        assert environment.serve(stop()) == [Served([Done("audio", Outcome.ALREADY_STOPPED, "query-1")])]
        assert environment.record() == Record(started_at_ms=T - 2)
        assert environment.serve(room_end()) == [Served([Done(None, Outcome.NO_OPEN_TASKS)])]
        assert environment.table.note_start(AUDIO, T + 1)


class TestStops:
    # CloudWatch API reference, GetMetricStatistics: no percentiles of a metric in which any value is negative.
    def test_an_event_of_a_clock_ahead_of_ours_takes_no_negative_time(self, environment: Environment) -> None:
        environment.now_ms -= 250
        environment.serve(stop())
        assert environment.measured == [("TimeToStop", 0)]

    def test_a_stop_is_measured_from_its_event_and_recorded(self, environment: Environment) -> None:
        environment.now_ms += 250
        assert environment.serve(stop()) == [Served([Done("audio", Outcome.STOPPED, "stop-1")])]
        assert environment.measured == [("TimeToStop", 250)]
        assert environment.dynamo.items()[0]["request_id"] == {"S": "stop-1"}
        assert environment.record() == Record(
            stop_event_time_ms=T,
            outcome="stopped",
            event_type="ModerationViolation",
            event_id="evt-1",
        )

    @pytest.mark.parametrize(
        ("event", "business_id"),
        [
            pytest.param(stop(T, "audio", business_id="biz-2"), "biz-2", id="the event's"),
            pytest.param(stop(T, "audio"), None, id="none: the event names the task"),
            pytest.param(room_end(T), "biz-1", id="the task's: the event does not name it"),
            pytest.param(room_end(T, business_id="biz-2"), "biz-2", id="the event's goes first"),
        ],
    )
    def test_a_request_names_the_business_id_that_is_known(
        self, environment: Environment, event: Event, business_id: str | None
    ) -> None:
        environment.serve(replace(start(T - 1), business_id="biz-1"))
        environment.serve(event)
        assert environment.rtc.stops == [("audio", business_id)]

    def test_several_events_of_a_batch_about_a_task_make_one_request(self, environment: Environment) -> None:
        first, *others = environment.serve(stop(T), stop(T), stop(T - 1), stop(T + 1))
        assert first.done[0].outcome is Outcome.STOPPED
        assert others == [Served([Done("audio", Outcome.DUPLICATE)])] * 3
        assert environment.did == {"read": 1, "note_stop": 1}
        assert len(environment.rtc.stops) == 1

    def test_an_answer_of_the_batch_counts_for_a_room_whose_tasks_were_read_before_it(
        self, environment: Environment
    ) -> None:
        environment.serve(start(T - 1))
        assert environment.serve(stop(), room_end()) == [
            Served([Done("audio", Outcome.STOPPED, "stop-1")]),
            Served([Done("audio", Outcome.DUPLICATE)]),
        ]

    def test_several_events_of_a_batch_about_a_task_that_cannot_be_stopped_fail_alike(
        self, environment: Environment
    ) -> None:
        environment.rtc.silent = True
        assert environment.serve(stop(), stop(T - 1)) == [Served([], [("audio", NO_ANSWER)])] * 2
        assert environment.record() is None


@pytest.mark.parametrize(
    ("errors", "expected"),
    [
        ([], None),
        ([Rejected("A", "never", "request-1")], Rejected("A", "task task-0: never", "request-1")),
        (
            [Rejected("A", "never"), Retryable("B", "later", "request-2"), Retryable("C", "later")],
            Retryable("B", "task task-1: later", "request-2"),
        ),
        ([InvalidMessage("A", "never"), Rejected("B", "never")], InvalidMessage("A", "task task-0: never")),
    ],
)
def test_a_message_fails_of_what_may_work_later_first(errors: list[StopError], expected: StopError | None) -> None:
    served = Served([], [(f"task-{number}", error) for number, error in enumerate(errors)])
    assert repr(served.failure) == repr(expected)


@pytest.mark.parametrize("cancelled", [False, True])
def test_a_read_that_fails_after_its_message_s_time_is_no_unexpected_error(
    environment: Environment, cancelled: bool
) -> None:
    unseen: list[dict[str, Any]] = []

    async def read_for_too_long() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: unseen.append(context))
        begun, failed = asyncio.Event(), asyncio.Event()

        async def in_thread(*_: object) -> None:
            begun.set()
            await failed.wait()
            raise Retryable("TableUnreachable", "DynamoDB did not answer")

        environment.stopper.in_thread = in_thread
        serving = asyncio.create_task(environment.stopper.batch(lambda: 60).serve(sighting()))
        async with asyncio.timeout(DEADLINE_SECONDS):
            await begun.wait()
        serving.cancel()
        await asyncio.wait([serving])
        (reading,) = asyncio.all_tasks() - {asyncio.current_task()}
        (reading.cancel if cancelled else failed.set)()
        await asyncio.wait([reading])

    asyncio.run(read_for_too_long())
    gc.collect()
    assert unseen == []
