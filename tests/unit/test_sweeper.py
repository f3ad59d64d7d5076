"""Sweeps on the code of the real table: their requests, writes and messages, in order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar, cast

import pytest

from segments.api_calls import Calls
from segments.errors import CircuitOpen, CredentialsRefused, NoAnswer, Rejected, Retryable, StopError
from segments.events import Event, EventType, Room, Task
from segments.ledger import LOOK_ITEM, SegmentTable
from segments.rtc import RtcApi, Stopped
from segments.stop_rules import Outcome, RunningTask
from stop_segment.stopper import Served, Stopper
from sweep_rooms.checks import GONE_AGAIN_MS
from sweep_rooms.sweeper import PAGE_SECONDS, ROOMS_A_PAGE, Sweep, Sweeper
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
CIRCUIT_OPEN = CircuitOpen("CircuitOpen", "the API has been silent for a while")
BUSY = Retryable("ServiceUnavailable", "the API answered HTTP 503")
NO_SUCH_APP = Rejected("InvalidParameter.NotExistAppId", "the API answered HTTP 400")

Result = TypeVar("Result")


@dataclass
class World:
    """The surroundings of sweeps and stops: the table, the RTC API, the event queue and the clock.

    Attributes
    ----------
    rooms
        The rooms that exist.
    answers
        The errors of the requests about rooms.
    did
        The steps of the last sweep, in order: each write to the table, request and message.
    before
        Functions to call once, each before the step of that name.
    """

    now_ms: int = T
    rooms: set[Room] = field(default_factory=set)
    running: dict[Task, RunningTask] = field(default_factory=dict)
    answers: dict[Room, Exception] = field(default_factory=dict)
    sent: list[tuple[Room, list[str], int]] = field(default_factory=list)
    did: list[tuple[str, ...]] = field(default_factory=list)
    before: dict[str, Callable[[], object]] = field(default_factory=dict)
    max_task_ms: int = 0

    def __post_init__(self) -> None:
        self.dynamo = MemoryDynamo()
        self.table = SegmentTable(
            self.dynamo.client, SETTINGS.segment_table_name, SETTINGS.record_retention_seconds, sweeps=True
        )

    async def in_thread(self, function: Callable[..., Any], *arguments: object) -> Any:
        if event := self.before.pop(function.__name__, None):
            event()
        await asyncio.sleep(0)  # lets the other tasks of the loop go on
        result = function(*arguments)
        if function.__name__ not in ("_next_page", "read", "open_tasks"):
            self.did.append((function.__name__, *(one.room_id for one in arguments if isinstance(one, Room))))
        return result

    async def make(
        self, function: Callable[..., Any], *arguments: object, seconds_left: Callable[[], float], **_: object
    ) -> Any:
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

    def send(self, room: Room, tasks: Sequence[Task], time_ms: int) -> None:
        self.sent.append((room, [task.task_id for task in tasks], time_ms))

    def sweeper(self) -> Sweeper:
        settings = replace(SWEEP_SETTINGS, max_task_ms=self.max_task_ms)
        api, questions = cast("RtcApi", self), cast("Calls", self)
        return Sweeper(settings, self.table, api, questions, self.in_thread, self.send, lambda: self.now_ms)

    def sweep(self, after_ms: int = 0, seconds_left: Callable[[], float] = lambda: 60) -> Sweep:
        self.now_ms += after_ms
        self.did.clear()
        sweep = run(self.sweeper().sweep(seconds_left))
        assert sweep
        return sweep

    def serve(self, event: Event) -> None:
        """Let the stop function serve an event without an error."""
        assert self.served(event).failure is None

    def served(self, event: Event) -> Served:
        """Let the stop function serve an event."""
        calls, api = cast("Calls", self), cast("RtcApi", self)
        stopper = Stopper(SETTINGS, self.table, api, calls, calls, self.in_thread, lambda: self.now_ms, lambda *_: None)
        return run(stopper.batch(lambda: 60).serve(event))

    def serve_what_was_sent(self) -> None:
        """Let the stop function serve the RoomGone events."""
        for room, task_ids, time_ms in self.sent:
            self.serve(Event(EventType.ROOM_GONE, room, time_ms, tuple(task_ids)))
        self.sent.clear()

    def open(self, *tasks: Task, at_ms: int = T - HOUR_MS) -> None:
        for task in tasks:
            self.table.note_start(task, at_ms)

    def gone_at_ms(self, room: Room = ROOM) -> int | None:
        """Return the time at which the sweeper found the room gone, from the table itself."""
        look = Task(room, LOOK_ITEM)
        record = self.table.read([look]).get(look)
        return record.gone_at_ms if record else None

    def watched(self) -> list[str]:
        return sorted({item["room"]["S"].partition("#")[2] for item in self.dynamo.items() if "watch" in item})

    def seconds_for_one_page(self) -> float:
        return 0 if ("note_place",) in {step[:1] for step in self.did} else PAGE_SECONDS

    def asked(self) -> list[str]:
        """Return the ids of the rooms about which the last sweep asked, in order."""
        return [step[1] for step in self.did if step[0] == "room_exists"]


def rooms(count: int) -> list[Room]:
    """Create rooms in the order in which the sweeper reads them."""
    return [Room(APP_ID, f"room-{number:03}") for number in range(count)]


def run(work: Coroutine[Any, Any, Result]) -> Result:
    async def in_time() -> Result:
        async with asyncio.timeout(DEADLINE_SECONDS):
            return await work

    return asyncio.run(in_time())


@pytest.fixture
def world() -> World:
    return World()


class TestGone:
    def test_the_tasks_of_a_room_that_is_gone_twice_are_stopped_as_of_the_first_answer(self, world: World) -> None:
        world.open(AUDIO, VIDEO)
        assert world.sweep() == Sweep(rooms_swept=1, rooms_gone=1)
        assert (world.asked(), world.sent, world.gone_at_ms()) == ([ROOM.room_id], [], T)

        world.sweep(GONE_AGAIN_MS - 1)
        assert (world.asked(), world.gone_at_ms()) == ([], T)
        world.sweep(1)
        assert world.sent == [(ROOM, ["audio", "video"], T)]
        assert world.gone_at_ms() == T + GONE_AGAIN_MS
        steps = ["take_lease", "note_place", "room_exists", "send", "note_gone", "give_back"]
        assert [step[0] for step in world.did] == steps

        world.rooms.add(ROOM)
        world.sweep(SWEEP_MS)
        assert world.gone_at_ms() is None

    def test_nothing_is_written_about_a_room_that_exists(self, world: World) -> None:
        world.open(AUDIO)
        world.rooms.add(ROOM)
        for _ in range(3):
            assert world.sweep(SWEEP_MS).rooms_swept == 1
            assert [step[0] for step in world.did] == ["take_lease", "note_place", "room_exists", "give_back"]
        assert world.sent == []

    def test_a_task_that_is_too_old_is_stopped_in_a_room_that_exists(self, world: World) -> None:
        world.max_task_ms = HOUR_MS
        world.open(AUDIO, at_ms=T - HOUR_MS)
        world.open(VIDEO, at_ms=T - HOUR_MS + 1)
        world.rooms.add(ROOM)
        world.sweep()
        assert world.sent == [(ROOM, ["audio"], T)]

    def test_a_gone_room_without_watched_tasks_is_forgotten(self, world: World) -> None:
        world.open(AUDIO)
        for after_ms in (0, GONE_AGAIN_MS):
            world.sweep(after_ms)
        world.serve_what_was_sent()
        assert world.sweep(SWEEP_MS) == Sweep(round_seconds=SWEEP_MS / 1000)
        assert world.watched() == []

    @pytest.mark.parametrize("seconds_after", [-90, -1, 0, 1, 4, 6])
    def test_a_task_without_a_reported_start_is_watched_until_its_room_is_gone_twice(
        self, world: World, seconds_after: int
    ) -> None:
        """A session may begin right after the stop without a report."""
        world.serve(Event(EventType.SEGMENT_REAL_TIME_DATA, ROOM, T - HOUR_MS, ("audio",)))
        world.now_ms += SWEEP_MS
        ended_ms = world.now_ms - 1000 * seconds_after
        if seconds_after < 0:
            world.sweep()
            world.now_ms = ended_ms
        world.serve(Event(EventType.ROOM_DESTROY, ROOM, ended_ms))
        for _ in range(4):
            world.sweep(SWEEP_MS)
            world.serve_what_was_sent()
        assert world.watched() == []


class TestPlace:
    def test_a_sweep_continues_after_the_last_place_and_makes_one_round(self, world: World) -> None:
        names = [room.room_id for room in rooms(2 * ROOMS_A_PAGE + 10)]
        world.open(*(Task(room, "audio") for room in rooms(len(names))))
        world.sweep(seconds_left=world.seconds_for_one_page)
        assert world.asked() == names[:ROOMS_A_PAGE]
        world.sweep(SWEEP_MS)
        assert world.asked() == [*names[ROOMS_A_PAGE:], *names[:ROOMS_A_PAGE]]

    def test_a_page_begins_only_if_there_is_time_for_it(self, world: World) -> None:
        world.open(AUDIO)
        assert world.sweep(seconds_left=lambda: PAGE_SECONDS - 0.1) == Sweep()
        assert [step[0] for step in world.did] == ["take_lease", "give_back"]

    def test_the_next_sweep_skips_a_page_that_crashed_one(self, world: World) -> None:
        world.open(*(Task(room, "audio") for room in rooms(ROOMS_A_PAGE + 1)))
        deadly, *_, last = rooms(ROOMS_A_PAGE + 1)
        world.answers[deadly] = RuntimeError("the process crashes")
        with pytest.raises(RuntimeError):
            world.sweep()
        with pytest.raises(RuntimeError):
            world.sweep(SWEEP_MS)
        assert world.asked()[0] == last.room_id

    def test_a_sweep_reports_the_length_of_a_round(self, world: World) -> None:
        world.open(*(Task(room, "audio") for room in rooms(2 * ROOMS_A_PAGE)))

        def sweep_a_page() -> float | None:
            return world.sweep(SWEEP_MS, seconds_left=world.seconds_for_one_page).round_seconds

        assert [sweep_a_page() for _ in range(5)] == [None, None, 2 * SWEEP_MS / 1000, None, 2 * SWEEP_MS / 1000]


class TestLease:
    def test_of_two_simultaneous_sweeps_only_one_works(self, world: World) -> None:
        world.open(*(Task(room, "audio") for room in rooms(2 * ROOMS_A_PAGE)))

        async def both() -> list[Sweep | None]:
            return await asyncio.gather(*(world.sweeper().sweep(lambda: 60) for _ in range(2)))

        one, other = run(both())
        assert (one and one.rooms_swept, other) == (2 * ROOMS_A_PAGE, None)
        assert len(world.asked()) == 2 * ROOMS_A_PAGE

    def test_the_lease_of_a_crashed_sweep_ends_before_the_next_sweep(self, world: World) -> None:
        world.open(AUDIO)
        world.answers[ROOM] = RuntimeError("the process crashes")
        with pytest.raises(RuntimeError):
            world.sweep()
        world.answers.clear()
        assert run(world.sweeper().sweep(lambda: 60)) is None
        assert world.sweep(SWEEP_MS) == Sweep(rooms_swept=1, rooms_gone=1, round_seconds=SWEEP_MS / 1000)

    def test_a_sweep_whose_lease_another_one_took_sends_no_request(self, world: World) -> None:
        world.open(AUDIO)

        def lose_the_lease() -> None:
            world.now_ms += SWEEP_MS
            assert world.table.take_lease(world.now_ms, world.now_ms + 1)

        world.before["note_place"] = lose_the_lease
        assert world.sweep() == Sweep()
        assert world.asked() == []


class TestTrouble:
    @pytest.mark.parametrize(
        ("answer", "counted"),
        [
            (NO_ANSWER, Sweep(rooms_swept=1, rooms_unanswered=1)),
            (NO_SUCH_APP, Sweep(rooms_swept=1, rooms_rejected=1)),
            (REFUSED, Sweep(rooms_swept=1, rooms_rejected=1, refused=REFUSED)),
            (BUSY, Sweep(rooms_swept=1, rooms_unanswered=1)),
        ],
    )
    def test_a_room_without_an_answer_is_asked_about_again_by_the_next_sweep(
        self, world: World, answer: StopError, counted: Sweep
    ) -> None:
        other = Room(APP_ID, "room-2")
        world.open(AUDIO, Task(other, "audio"))
        world.answers[other] = answer
        world.rooms.add(ROOM)
        assert world.sweep() == counted
        assert world.gone_at_ms(other) is None
        del world.answers[other]
        sweep = world.sweep(SWEEP_MS)
        assert (sweep.rooms_swept, sweep.rooms_gone) == (2, 1)

    @pytest.mark.parametrize("silence", [NO_ANSWER, CIRCUIT_OPEN])
    def test_a_sweep_ends_after_a_page_without_any_answer(self, world: World, silence: StopError) -> None:
        world.open(*(Task(room, "audio") for room in rooms(2 * ROOMS_A_PAGE)))
        world.answers = dict.fromkeys(rooms(2 * ROOMS_A_PAGE), silence)
        assert world.sweep() == Sweep(rooms_unanswered=ROOMS_A_PAGE)

    @pytest.mark.parametrize("rejection", [NO_SUCH_APP, REFUSED])
    def test_rejected_rooms_do_not_delay_others(self, world: World, rejection: StopError) -> None:
        healthy = Room(APP_ID, "room-999")
        rejected = rooms(3 * ROOMS_A_PAGE)
        world.open(Task(healthy, "audio"), *(Task(room, "audio") for room in rejected))
        world.answers = dict.fromkeys(rejected, rejection)
        world.rooms.add(healthy)
        for _ in range(3):
            sweep = world.sweep(SWEEP_MS)
            assert (sweep.rooms_swept, sweep.rooms_rejected) == (1, len(rejected))

    def test_a_refused_write_does_not_end_the_sweep(self, world: World) -> None:
        def refuse() -> None:
            raise Retryable("TableThrottled", "DynamoDB refused update_item")

        world.open(AUDIO, Task(Room(APP_ID, "room-2"), "audio"))
        world.before["note_gone"] = refuse
        sweep = world.sweep()
        assert (sweep.rooms_gone, sweep.rooms_unanswered) == (2, 1)

    @pytest.mark.parametrize("lost", [("#", "#sweep"), (f"{APP_ID}#room-1", LOOK_ITEM)])
    def test_a_lost_item_of_the_sweeper_delays_a_stop_by_one_sweep(self, world: World, lost: tuple[str, str]) -> None:
        world.open(AUDIO)
        world.sweep()
        world.dynamo.delete_item(TableName="", Key={"room": {"S": lost[0]}, "task_id": {"S": lost[1]}})
        world.sweep(SWEEP_MS)
        assert world.sent == []
        world.sweep(SWEEP_MS)
        assert world.sent == [(ROOM, ["audio"], T + SWEEP_MS)]
