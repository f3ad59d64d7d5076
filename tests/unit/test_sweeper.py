"""A sweep, step by step, on the real table: what it asks, writes and sends, and in which order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar, cast

import pytest

from segments.calls import Calls
from segments.errors import CredentialsRefused, NoAnswer, Rejected, Retryable
from segments.events import Event, EventType, Room, Task
from segments.ledger import SegmentTable, room_item
from segments.rtc import RtcApi, Stopped
from segments.rules import Outcome, Record, RunningTask
from stop_segment.stopper import Stopper
from sweep_rooms.checks import GONE_AGAIN_MS
from sweep_rooms.sweeper import REJECTED_AGAIN_MS, ROOMS_A_PAGE, Sweep, Sweeper
from tests.unit.memory_dynamo import MemoryDynamo
from tests.unit.rtc_model import SETTINGS, SWEEP_SETTINGS

T = 1_795_327_920_000
HOUR_MS = 3_600_000
SWEEP_MS = SWEEP_SETTINGS.sweep_every_ms
APP_ID = "661e"
ROOM = Room(APP_ID, "room-1")
AUDIO, VIDEO = Task(ROOM, "audio"), Task(ROOM, "video")
DEADLINE_SECONDS = 5
NO_ANSWER = NoAnswer("Timeout", "the API did not answer in time")
REFUSED = CredentialsRefused("AccessDenied", "the API refuses the key in the secret")
NO_SUCH_APP = Rejected("InvalidParameter.NotExistAppId", "the API answered HTTP 400")

Result = TypeVar("Result")


@dataclass
class World:
    """The table, the RTC API, the event queue and the clock around sweeps and stops.

    Attributes
    ----------
    rooms
        The rooms that exist.
    answers
        Instead of an answer about a room: what its question ends in.
    did
        What was done, in order: each write to the table, question and message.
    before
        What happens before a step of that name, once.
    """

    now_ms: int = T
    rooms: set[Room] = field(default_factory=set)
    running: dict[Task, RunningTask] = field(default_factory=dict)
    answers: dict[Room, Exception] = field(default_factory=dict)
    sent: list[tuple[Room, list[str], int]] = field(default_factory=list)
    did: list[tuple[str, ...]] = field(default_factory=list)
    before: dict[str, Callable[[], object]] = field(default_factory=dict)
    queue_takes: bool = True
    max_task_ms: int = 0

    def __post_init__(self) -> None:
        self.dynamo = MemoryDynamo()
        self.table = SegmentTable(self.dynamo.client, SETTINGS.segment_table_name, SETTINGS.record_retention_seconds)

    async def in_thread(self, function: Callable[..., Any], *arguments: object) -> Any:
        self._happens(function.__name__)
        await asyncio.sleep(0)  # the others go on here
        result = function(*arguments)
        if function.__name__ not in ("rooms_due", "read", "tasks_of"):
            self.did.append((function.__name__, *(one.room_id for one in arguments if isinstance(one, Room))))
        return result

    def _happens(self, step: str) -> None:
        if event := self.before.pop(step, None):
            event()

    async def make(self, function: Callable[..., Any], *arguments: object, seconds_left: Callable[[], float]) -> Any:
        if seconds_left() < 0:
            raise Retryable("NoTimeLeft", "the invocation ends before this call's turn")
        return await self.in_thread(function, *arguments)

    def room_exists(self, room: Room) -> bool:
        if room in self.answers:
            raise self.answers[room]
        return room in self.rooms

    def stop_segment(self, task: Task, _: str | None) -> Stopped:
        return Stopped(Outcome.STOPPED if self.running.pop(task, None) else Outcome.ALREADY_STOPPED, None)

    def get_segment_task(self, task: Task) -> tuple[RunningTask | None, None]:
        return self.running.get(task), None

    def send(self, room: Room, tasks: Sequence[Task], time_ms: int) -> bool:
        if self.queue_takes:
            self.sent.append((room, [task.task_id for task in tasks], time_ms))
        return self.queue_takes

    def sweeper(self) -> Sweeper:
        settings = replace(SWEEP_SETTINGS, max_task_ms=self.max_task_ms)
        api, questions = cast("RtcApi", self), cast("Calls", self)
        return Sweeper(settings, self.table, api, questions, self.in_thread, self.send, lambda: self.now_ms)

    def sweep(self, after_ms: int = 0, seconds_left: Callable[[], float] = lambda: 60) -> Sweep:
        self.now_ms += after_ms
        self.did.clear()
        return run(self.sweeper().sweep(seconds_left))

    def serve(self, event: Event) -> None:
        """Let the stop function serve an event."""
        calls, api = cast("Calls", self), cast("RtcApi", self)
        stopper = Stopper(SETTINGS, self.table, api, calls, calls, self.in_thread, lambda: self.now_ms, lambda *_: None)
        served = run(stopper.batch(lambda: 60).serve(event))
        assert served.failure is None

    def serve_what_was_sent(self) -> None:
        """Let the stop function serve the RoomGone events."""
        for room, task_ids, time_ms in self.sent:
            self.serve(Event(EventType.ROOM_GONE, room, time_ms, tuple(task_ids)))
        self.sent.clear()

    def open(self, *tasks: Task, at_ms: int = T - HOUR_MS) -> None:
        """Open tasks, and have their rooms watched from `at_ms` on."""
        for task in tasks:
            self.table.note_start(task, at_ms)
            self.table.watch(task.room, [task.task_id], at_ms)

    def room(self, room: Room = ROOM) -> Record:
        return self.table.read([room_item(room)])[room_item(room)]


def run(work: Coroutine[Any, Any, Result]) -> Result:
    async def in_time() -> Result:
        async with asyncio.timeout(DEADLINE_SECONDS):
            return await work

    return asyncio.run(in_time())


@pytest.fixture
def world() -> World:
    return World()


class TestGone:
    def test_a_room_that_is_gone_twice_has_its_tasks_stopped_at_the_time_of_the_first_answer(
        self, world: World
    ) -> None:
        world.open(AUDIO, VIDEO)
        assert world.sweep() == Sweep(rooms_swept=1, rooms_gone=1)
        assert world.sent == []
        assert (world.room().gone_at_ms, world.room().check_at_ms) == (T, T + GONE_AGAIN_MS)

        assert world.sweep(GONE_AGAIN_MS - 1) == Sweep()
        assert world.sweep(1) == Sweep(rooms_swept=1, rooms_gone=1)
        assert world.sent == [(ROOM, ["audio", "video"], T)]
        assert world.room().check_at_ms == T + GONE_AGAIN_MS + SWEEP_MS

    def test_a_living_room_is_asked_about_once_a_sweep(self, world: World) -> None:
        world.open(AUDIO)
        world.rooms.add(ROOM)
        for _ in range(3):
            assert world.sweep() == Sweep(rooms_swept=1)
            assert world.sweep(SWEEP_MS - 1) == Sweep()
            world.now_ms += 1
        assert world.sent == []
        assert world.room().gone_at_ms is None

    def test_a_room_that_comes_back_starts_over(self, world: World) -> None:
        world.open(AUDIO)
        world.sweep()
        world.rooms.add(ROOM)
        world.sweep(GONE_AGAIN_MS)
        assert world.room().gone_at_ms is None
        world.rooms.clear()
        world.sweep(SWEEP_MS)
        assert world.sent == []
        assert world.room().gone_at_ms == world.now_ms

    def test_a_room_of_which_something_was_heard_starts_over(self, world: World) -> None:
        world.open(AUDIO)
        world.sweep()
        world.table.note_start(AUDIO, T + 1)
        world.sweep(GONE_AGAIN_MS)
        assert world.sent == []
        assert world.room().gone_at_ms == T + GONE_AGAIN_MS
        world.sweep(GONE_AGAIN_MS)
        assert world.sent == [(ROOM, ["audio"], T + GONE_AGAIN_MS)]

    def test_what_began_untold_after_the_first_answer_is_stopped_by_the_next_sweep(self, world: World) -> None:
        world.open(AUDIO)
        for after_ms in (0, GONE_AGAIN_MS, SWEEP_MS):
            world.sweep(after_ms)
        assert world.sent == [(ROOM, ["audio"], T), (ROOM, ["audio"], T + GONE_AGAIN_MS)]

    def test_what_the_queue_does_not_take_is_sent_by_the_next_sweep(self, world: World) -> None:
        world.open(AUDIO)
        world.queue_takes = False
        world.sweep()
        world.sweep(GONE_AGAIN_MS)
        world.queue_takes = True
        world.sweep(SWEEP_MS)
        assert world.sent == [(ROOM, ["audio"], T + GONE_AGAIN_MS)]

    def test_a_task_that_began_after_the_room_was_gone_goes_on(self, world: World) -> None:
        world.open(AUDIO)
        world.sweep()
        world.running[AUDIO] = RunningTask(T + 1, 0, 2)
        world.sweep(GONE_AGAIN_MS)
        world.serve_what_was_sent()
        assert AUDIO in world.running
        assert world.table.read([AUDIO])[AUDIO].open_since_ms == T + 1

    @pytest.mark.parametrize("gone_again", [False, True])
    def test_a_task_too_old_is_stopped_though_its_room_exists(self, world: World, gone_again: bool) -> None:
        world.max_task_ms = HOUR_MS
        world.open(AUDIO, at_ms=T - HOUR_MS)
        world.open(VIDEO, at_ms=T - HOUR_MS + 1)
        world.rooms.add(ROOM)
        if gone_again:
            world.table.note_gone(ROOM, T - HOUR_MS, T, T - 1)
        world.sweep()
        assert world.sent == [(ROOM, ["audio"], T)]


class TestOrder:
    def test_the_next_look_is_written_before_the_question(self, world: World) -> None:
        world.open(AUDIO)
        world.rooms.add(ROOM)
        world.sweep()
        assert world.did == [("postpone_check", "room-1"), ("room_exists", "room-1")]

    def test_a_sweep_that_dies_over_the_question_has_put_off_the_next_look(self, world: World) -> None:
        world.open(AUDIO)
        world.answers[ROOM] = RuntimeError("the process dies")
        with pytest.raises(RuntimeError):
            world.sweep()
        assert world.room().check_at_ms == T + SWEEP_MS

    def test_events_are_sent_before_it_is_written_down_when_to_look_next(self, world: World) -> None:
        world.max_task_ms = HOUR_MS
        world.open(AUDIO)
        world.table.note_gone(ROOM, T - HOUR_MS, T, T - 1)
        world.rooms.add(ROOM)
        world.sweep()
        assert [step[0] for step in world.did] == ["postpone_check", "room_exists", "send", "note_gone"]

    def test_two_sweeps_at_once_ask_about_each_room_once(self, world: World) -> None:
        tasks = [Task(Room(APP_ID, f"room-{number}"), "audio") for number in range(2 * ROOMS_A_PAGE)]
        world.open(*tasks)

        async def both() -> list[Sweep]:
            return await asyncio.gather(*(world.sweeper().sweep(lambda: 60) for _ in range(2)))

        sweeps = run(both())
        asked = [step[1] for step in world.did if step[0] == "room_exists"]
        assert sorted(asked) == sorted({task.room.room_id for task in tasks})
        assert sum(sweep.rooms_swept for sweep in sweeps) == len(tasks)

    def test_the_room_that_waits_longest_comes_first_and_a_full_page_is_not_all(self, world: World) -> None:
        tasks = [Task(Room(APP_ID, f"room-{number}"), "audio") for number in range(ROOMS_A_PAGE + 1)]
        for number, task in enumerate(tasks):
            world.open(task, at_ms=T - number)
        assert world.sweep().rooms_swept == ROOMS_A_PAGE + 1
        asked = [step[1] for step in world.did if step[0] == "room_exists"]
        assert asked[-1] == "room-0"


class TestTrouble:
    def test_a_room_without_an_answer_is_left_for_the_next_sweep(self, world: World) -> None:
        silent, another = Room(APP_ID, "room-2"), Task(ROOM, "audio")
        world.open(another, Task(silent, "audio"))
        world.answers[silent] = NO_ANSWER
        world.rooms.add(ROOM)
        assert world.sweep() == Sweep(rooms_swept=1, rooms_unanswered=1)
        assert world.room(silent).gone_at_ms is None
        assert world.room(silent).check_at_ms == T + SWEEP_MS
        del world.answers[silent]
        assert world.sweep(SWEEP_MS) == Sweep(rooms_swept=2, rooms_gone=1)

    def test_no_answer_between_two_that_say_gone_starts_nothing_over_and_stops_nothing(self, world: World) -> None:
        world.open(AUDIO)
        world.sweep()
        world.answers[ROOM] = NO_ANSWER
        world.sweep(GONE_AGAIN_MS)
        assert world.sent == []
        del world.answers[ROOM]
        world.sweep(SWEEP_MS)
        assert world.sent == [(ROOM, ["audio"], T)]

    def test_where_nobody_answers_a_sweep_ends_after_its_first_page(self, world: World) -> None:
        tasks = [Task(Room(APP_ID, f"room-{number}"), "audio") for number in range(2 * ROOMS_A_PAGE)]
        world.open(*tasks)
        world.answers = {task.room: NO_ANSWER for task in tasks}
        assert world.sweep() == Sweep(rooms_unanswered=ROOMS_A_PAGE)

    def test_a_question_that_the_api_rejects_is_asked_again_in_an_hour(self, world: World) -> None:
        world.open(AUDIO)
        world.answers[ROOM] = NO_SUCH_APP
        assert world.sweep() == Sweep(rooms_unanswered=1)
        assert world.room().check_at_ms == T + REJECTED_AGAIN_MS

    def test_a_refused_key_ends_the_sweep_and_is_told_once(self, world: World) -> None:
        tasks = [Task(Room(APP_ID, f"room-{number}"), "audio") for number in range(2 * ROOMS_A_PAGE)]
        world.open(*tasks)
        world.answers = {task.room: REFUSED for task in tasks}
        assert world.sweep() == Sweep(refused=REFUSED)
        assert [step[0] for step in world.did].count("postpone_check") == ROOMS_A_PAGE

    def test_a_table_that_refuses_one_room_does_not_end_the_sweep(self, world: World) -> None:
        def refuse() -> None:
            raise Retryable("TableThrottled", "DynamoDB refused update_item")

        world.open(AUDIO, Task(Room(APP_ID, "room-2"), "audio"))
        world.rooms |= {ROOM, Room(APP_ID, "room-2")}
        world.before["postpone_check"] = refuse
        sweep = world.sweep()
        assert (sweep.rooms_swept, sweep.rooms_unanswered) == (2, 1)

    def test_without_time_left_nothing_is_begun(self, world: World) -> None:
        world.open(AUDIO)
        assert world.sweep(seconds_left=lambda: 0) == Sweep()
        assert world.did == []

    def test_an_index_that_is_behind_does_not_keep_a_sweep_going(self, world: World) -> None:
        world.open(AUDIO)
        due = world.table.rooms_due(world.now_ms, 1)
        world.table.postpone_check(ROOM, due[0][1], T + SWEEP_MS)
        cast("Any", world.table).rooms_due = lambda *_: due
        assert world.sweep() == Sweep()


class TestUnwatched:
    def test_a_room_without_open_tasks_is_not_asked_about_and_no_longer_watched(self, world: World) -> None:
        world.open(AUDIO)
        world.table.note_stop(AUDIO, Event(EventType.ROOM_ENDED, ROOM, T), Outcome.STOPPED, None, T)
        assert world.sweep() == Sweep()
        assert world.table.count_watched() == 0
        assert [step[0] for step in world.did] == ["postpone_check", "note_idle", "unwatch"]

    def test_a_task_opened_before_the_mark_keeps_its_room_watched(self, world: World) -> None:
        """Its starter found the room watched, so it is for the sweeper to look once more."""
        world.open(AUDIO)
        world.table.note_stop(AUDIO, Event(EventType.ROOM_ENDED, ROOM, T), Outcome.STOPPED, None, T)
        world.before["note_idle"] = lambda: world.table.note_start(AUDIO, T + 1)
        world.sweep()
        assert (world.table.count_watched(), world.room().check_at_ms) == (1, T + SWEEP_MS)

    def test_a_task_opened_after_the_mark_takes_it_away(self, world: World) -> None:
        world.open(AUDIO)
        world.table.note_stop(AUDIO, Event(EventType.ROOM_ENDED, ROOM, T), Outcome.STOPPED, None, T)

        def opened() -> None:
            world.table.note_start(AUDIO, T + 1)
            world.table.watch(ROOM, ["audio"], T + SWEEP_MS)

        world.before["unwatch"] = opened
        world.sweep()
        assert (world.table.count_watched(), world.room().check_at_ms) == (1, T + SWEEP_MS)

    def test_a_room_that_another_sweep_has_meanwhile_stays_watched(self, world: World) -> None:
        world.open(AUDIO)
        world.table.note_stop(AUDIO, Event(EventType.ROOM_ENDED, ROOM, T), Outcome.STOPPED, None, T)
        world.before["unwatch"] = lambda: world.table.postpone_check(ROOM, T + SWEEP_MS, T + 2 * SWEEP_MS)
        world.sweep()
        assert world.room().check_at_ms == T + 2 * SWEEP_MS

    @pytest.mark.parametrize("seconds_after", [-90, -1, 0, 1, 4, 6])
    def test_a_room_whose_end_was_told_is_watched_until_the_api_was_asked_and_no_longer(
        self, world: World, seconds_after: int
    ) -> None:
        """Where no start is told, a session may have begun unseen right after the stop: the API knows."""
        world.serve(Event(EventType.SEGMENT_REAL_TIME_DATA, ROOM, T - HOUR_MS, ("audio",)))
        world.now_ms += SWEEP_MS
        ended_ms = world.now_ms - 1000 * seconds_after
        if seconds_after < 0:
            world.sweep()
            world.now_ms = ended_ms
        world.serve(Event(EventType.ROOM_DESTROY, ROOM, ended_ms))
        for _ in range(4):
            world.sweep(0 if world.room().check_at_ms == world.now_ms else SWEEP_MS)
            world.serve_what_was_sent()
        assert world.table.count_watched() == 0

    def test_a_session_that_began_unseen_right_after_a_stop_is_stopped_when_its_room_is_gone(
        self, world: World
    ) -> None:
        world.serve(Event(EventType.SEGMENT_REAL_TIME_DATA, ROOM, T - HOUR_MS, ("audio",)))
        world.serve(Event(EventType.ROOM_DESTROY, ROOM, T))
        world.running[AUDIO] = RunningTask(T + 1, 0, 2)
        world.sweep(SWEEP_MS)
        world.sweep(GONE_AGAIN_MS)
        world.serve_what_was_sent()
        assert world.running == {}
