"""The handling of single events: outcomes, costs, times and ids. tests/explorer checks whole histories."""

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
from segments.ledger import SegmentTable, room_item
from segments.rtc import RtcApi, Stopped
from segments.stop_rules import Outcome, Record, RunningTask
from stop_segment.settings import Settings
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
    """The RTC API: it accepts every stop, and answers each question about a task with `found`."""

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

    def get_segment_task(self, task: Task) -> tuple[RunningTask | None, str]:
        assert task.room.app_id == ROOM.app_id
        self.questions += 1
        return self.found, "query-1"


class Environment:
    """A function environment whose API calls do not wait for turns, with its table, API and clock."""

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
        self.restart(SETTINGS)

    def restart(self, settings: Settings) -> None:
        """Begin again without memory, with other settings."""
        calls, api = cast("Calls", self), cast("RtcApi", self.rtc)
        self.stopper = Stopper(
            settings,
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
        assert message.room == cast("Task", arguments[0]).room
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
    def test_only_newer_slices_within_a_minute_cost_nothing(self, environment: Environment) -> None:
        assert environment.serve(sighting()) == [KNOWN]
        assert environment.did == {"read": 2, "note_sighting": 1}
        for later_ms in (0, 1, MINUTE_MS - 1):
            environment.now_ms = T + later_ms
            assert environment.serve(sighting(T + later_ms)) == [KNOWN]
            assert not environment.did
        older, retried = sighting(T - 1), replace(sighting(T + 1), is_second_try=True)
        for now_ms, event in ((T, older), (T, retried), (T + MINUTE_MS, sighting(T + MINUTE_MS))):
            environment.now_ms = now_ms
            assert environment.serve(event) == [KNOWN]
            assert environment.did == {"read": 2}

    def test_a_slice_after_a_stop_opens_its_task_again(self, environment: Environment) -> None:
        for event in (sighting(), stop(T + 1), sighting(T + 2)):
            environment.serve(event)
        assert environment.table.open_tasks(ROOM).keys() == {AUDIO}

    def test_the_last_ten_thousand_tasks_are_remembered(self, environment: Environment) -> None:
        tasks = [Task(ROOM, f"task-{number}") for number in range(10_001)]
        for task in tasks:
            environment.stopper.remember(task, T)
        assert [environment.stopper.remembers(tasks[number], T) for number in (0, 1, -1)] == [False, True, True]


class TestRooms:
    def test_an_end_without_open_tasks_is_a_duplicate_within_the_window(self, environment: Environment) -> None:
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
    def test_the_cost_of_an_end_does_not_depend_on_the_room_s_past_tasks(
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

    def test_a_start_from_before_the_stop_ends_as_known(self, environment: Environment) -> None:
        environment.serve(stop())
        assert environment.serve(start(T - 1)) == [KNOWN]

    def test_a_start_until_its_room_s_end_is_stopped_and_recorded_with_the_end(self, environment: Environment) -> None:
        environment.serve(room_end(business_id="biz-1"))
        later = Served([Done("later", Outcome.KNOWN)])
        assert environment.serve(replace(start(T + 1), task_ids=("later",))) == [later]
        environment.serve(start(T))
        assert environment.rtc.stops == [("audio", "biz-1")]
        record = environment.record()
        assert record
        assert (record.event_type, record.event_id, record.business_id) == ("RoomEnded", "evt-2", "biz-1")
        assert (record.stop_event_time_ms, record.outcome) == (T, "stopped")

    @pytest.mark.parametrize(("is_second_try", "questions"), [(False, 0), (True, 1)])
    def test_only_a_second_try_of_a_start_asks_the_api(
        self, environment: Environment, is_second_try: bool, questions: int
    ) -> None:
        environment.rtc.found = RunningTask(T, 0, RUNNING)
        environment.serve(room_end())
        environment.serve(replace(start(), is_second_try=is_second_try))
        assert (environment.rtc.questions, environment.rtc.stops) == (questions, [("audio", None)])

    @pytest.mark.parametrize(
        ("event_type", "noted"), [("RoomDestroy", "RoomDestroy"), ("RoomExploded", "RoomEnded"), (None, "RoomEnded")]
    )
    def test_a_room_s_end_of_an_unknown_or_missing_type_is_recorded_as_room_ended(
        self, environment: Environment, event_type: str | None, noted: str
    ) -> None:
        environment.table._update(room_item(ROOM), {"stop_event_time": T, "event_type": event_type})
        assert environment.serve(start()) == [Served([Done("audio", Outcome.STOPPED, "stop-1")])]
        record = environment.record()
        assert record
        assert record.event_type == noted


class TestCosts:
    def test_a_reported_session_with_two_ends_costs_eight_write_units(self, environment: Environment) -> None:
        environment.serve(start())
        environment.serve(room_end(T + 1))
        environment.serve(room_end(T + 300))
        assert environment.write_units == 8
        assert len(environment.rtc.stops) == 1

    def test_a_stop_costs_one_write_unit_and_later_copies_and_older_slices_none(self, environment: Environment) -> None:
        for event in (stop(), stop(), sighting()):
            environment.serve(event)
            assert environment.write_units == 1


OBSERVING = replace(SETTINGS, observes=True)
UNCLEAR = "TaskUnclear: GetSegmentTask gave no start time: send a new stop event"


@pytest.mark.parametrize(
    ("found", "outcome", "started_at_ms"),
    [
        pytest.param(None, Outcome.ALREADY_STOPPED, None, id="no such task"),
        pytest.param(RunningTask(T + 1, 0, RUNNING), Outcome.SUPERSEDED, T + 1, id="started later"),
        pytest.param(RunningTask(1_000 * T, 0, RUNNING), Outcome.SUPERSEDED, T + STALE_MS, id="starts in the future"),
        pytest.param(RunningTask(T, 0, NOT_STARTED), Outcome.SUPERSEDED, None, id="not started yet"),
        pytest.param(RunningTask(T + 1, T + 2, ENDED), Outcome.ALREADY_STOPPED, None, id="started later, and ended"),
        pytest.param(RunningTask(0, 0, RUNNING), None, None, id="running since an unknown time"),
    ],
)
def test_the_api_s_answer_decides_about_a_stale_event(
    environment: Environment,
    found: RunningTask | None,
    outcome: Outcome | None,
    started_at_ms: int | None,
) -> None:
    environment.rtc.found = found
    environment.now_ms += STALE_MS
    (served,) = environment.serve(stop())
    record = environment.record() or Record()
    assert record.started_at_ms == started_at_ms
    if outcome is None:
        ((task_id, error),) = served.failed
        assert (task_id, str(error), error.request_id) == ("audio", UNCLEAR, "query-1")
        assert isinstance(error, Retryable)
        assert record == Record()
        return
    assert served == Served([Done("audio", outcome, "query-1")])
    assert record.outcome == (None if outcome is Outcome.SUPERSEDED else outcome.value)


class TestHeartbeats:
    @staticmethod
    def beat(time_ms: int) -> Event:
        body = {"EventType": "Heartbeat", "AppId": "661e", "RoomId": "room-1", "TaskId": "audio"}
        event = parse_event(json.dumps(body), time_ms)
        assert event
        return event

    def test_a_heartbeat_stops_its_own_task_and_only_its_copy_is_a_duplicate(self, environment: Environment) -> None:
        assert environment.serve(self.beat(T)) == [Served([Done("heartbeat", Outcome.HEARTBEAT, "stop-1")])]
        assert environment.serve(self.beat(T)) == [Served([Done("heartbeat", Outcome.DUPLICATE)])]
        assert environment.serve(self.beat(T + 1)) == [Served([Done("heartbeat", Outcome.HEARTBEAT, "stop-1")])]
        assert environment.rtc.stops == [("heartbeat", None)] * 2
        assert environment.record() is None
        assert environment.measured == []

    def test_a_heartbeat_without_an_answer_has_failed(self, environment: Environment) -> None:
        environment.rtc.silent = True
        assert environment.serve(self.beat(T)) == [Served([], [("heartbeat", NO_ANSWER)])]

    @pytest.mark.parametrize("found", [None, RunningTask(T - 1, 0, RUNNING), RunningTask(T - 1, T, ENDED)])
    def test_in_observe_mode_a_heartbeat_asks_the_api_and_stops_nothing(
        self, environment: Environment, found: RunningTask | None
    ) -> None:
        environment.rtc.found = found
        environment.restart(OBSERVING)
        assert environment.serve(self.beat(T)) == [Served([Done("heartbeat", Outcome.HEARTBEAT, "query-1")])]
        assert environment.serve(self.beat(T)) == [Served([Done("heartbeat", Outcome.DUPLICATE)])]
        assert environment.rtc.stops == []


def test_a_sighting_s_business_id_is_used_for_the_stop_at_the_room_s_end(environment: Environment) -> None:
    environment.serve(replace(sighting(), business_id="biz-1"))
    environment.serve(room_end(T + 1))
    assert environment.rtc.stops == [("audio", "biz-1")]


class TestObserving:
    def test_an_observed_room_end_is_no_duplicate_of_itself_and_is_stopped_later(
        self, environment: Environment
    ) -> None:
        environment.restart(OBSERVING)
        environment.rtc.found = RunningTask(T - 1, 0, RUNNING)
        environment.serve(start(T - 1))
        for _ in range(2):
            assert environment.serve(room_end()) == [Served([Done("audio", Outcome.WOULD_STOP, "query-1")])]
        environment.restart(SETTINGS)
        assert environment.serve(room_end()) == [Served([Done("audio", Outcome.STOPPED, "stop-1")])]

    def test_a_task_that_is_over_at_the_api_is_closed(self, environment: Environment) -> None:
        environment.restart(OBSERVING)
        environment.serve(start(T - 2), sighting(T - 2))
        environment.rtc.found = RunningTask(T - 2, T - 1, ENDED)
        assert environment.serve(stop()) == [Served([Done("audio", Outcome.ALREADY_STOPPED, "query-1")])]
        assert environment.record() == Record(started_at_ms=T - 2)
        assert environment.serve(room_end()) == [Served([Done(None, Outcome.NO_OPEN_TASKS)])]
        environment.serve(sighting(T + 1))  # not one that says nothing new
        assert environment.table.open_tasks(ROOM)


class TestStops:
    # CloudWatch API reference, GetMetricStatistics: no percentiles of a metric in which any value is negative.
    @pytest.mark.parametrize(("later_ms", "measured_ms"), [(250, 250), (-250, 0)])
    def test_the_time_to_stop_begins_with_the_event_and_is_never_negative(
        self, environment: Environment, later_ms: int, measured_ms: int
    ) -> None:
        environment.now_ms += later_ms
        assert environment.serve(stop()) == [Served([Done("audio", Outcome.STOPPED, "stop-1")])]
        assert environment.measured == [("TimeToStop", measured_ms)]
        assert environment.dynamo.items()[0]["request_id"] == {"S": "stop-1"}

    @pytest.mark.parametrize(
        ("event", "business_id"),
        [
            pytest.param(stop(T, "audio", business_id="biz-2"), "biz-2", id="the event's id"),
            pytest.param(stop(T, "audio"), None, id="no id: the event names the task"),
            pytest.param(room_end(T), "biz-1", id="the task's id: the event does not name the task"),
            pytest.param(room_end(T, business_id="biz-2"), "biz-2", id="the event's id before the task's"),
        ],
    )
    def test_a_request_has_the_business_id_of_its_event_or_its_task(
        self, environment: Environment, event: Event, business_id: str | None
    ) -> None:
        environment.serve(replace(start(T - 1), business_id="biz-1"))
        environment.serve(event)
        assert environment.rtc.stops == [("audio", business_id)]

    def test_events_about_one_task_in_a_batch_make_one_request(self, environment: Environment) -> None:
        first, *others = environment.serve(stop(T), stop(T), stop(T - 1), stop(T + 1))
        assert first.done[0].outcome is Outcome.STOPPED
        assert others == [Served([Done("audio", Outcome.DUPLICATE)])] * 3
        assert environment.did == {"read": 1, "note_stop": 1}
        assert len(environment.rtc.stops) == 1

    @pytest.mark.parametrize("earlier", [(), (stop(T - MINUTE_MS),)])
    def test_a_room_end_that_read_its_tasks_earlier_uses_an_answer_of_its_batch(
        self, environment: Environment, earlier: tuple[Event, ...]
    ) -> None:
        for event in (*earlier, start(T - 1)):
            environment.serve(event)
        assert environment.serve(stop(), room_end()) == [
            Served([Done("audio", Outcome.STOPPED, "stop-1")]),
            Served([Done("audio", Outcome.DUPLICATE)]),
        ]

    def test_a_stop_from_before_a_reported_start_is_superseded_without_a_request(
        self, environment: Environment
    ) -> None:
        environment.serve(start(T + 1))
        assert environment.serve(stop()) == [Served([Done("audio", Outcome.SUPERSEDED)])]
        assert (environment.rtc.stops, environment.rtc.questions) == ([], 0)

    def test_events_about_one_task_in_a_batch_fail_with_one_request(self, environment: Environment) -> None:
        environment.rtc.silent = True
        assert environment.serve(stop(), stop(T - 1)) == [Served([], [("audio", NO_ANSWER)])] * 2
        assert len(environment.rtc.stops) == 1
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
def test_a_retryable_error_of_any_task_is_the_message_s_error(
    errors: list[StopError], expected: StopError | None
) -> None:
    served = Served([], [(f"task-{number}", error) for number, error in enumerate(errors)])
    assert repr(served.failure) == repr(expected)


@pytest.mark.parametrize("cancelled", [False, True])
def test_a_read_that_fails_after_its_message_timed_out_logs_nothing(environment: Environment, cancelled: bool) -> None:
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
