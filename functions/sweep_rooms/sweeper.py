"""Asks the API whether the rooms of watched tasks exist, and sends RoomGone events for rooms that are gone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from segments.api_calls import Calls, InThread
from segments.errors import CircuitOpen, CredentialsRefused, NoAnswer, Rejected, SetupRefused, StopError
from segments.events import Room, Task
from segments.ledger import LOOK_ITEM, Lease, SegmentTable
from segments.rtc import RtcApi
from segments.settings import Reader, SharedSettings
from segments.stop_rules import Record
from sweep_rooms.checks import GONE_AGAIN_MS, decide_check

QUESTIONS_PER_SECOND = 30  # of the 40 that an account may send (document 1188355); other programs may send the rest
ROOMS_A_PAGE = 60
PAGE_SECONDS = ROOMS_A_PAGE / QUESTIONS_PER_SECOND
# A sweep ends before the next sweep begins: two sweeps at once would exceed the API's limit.
BETWEEN_SWEEPS_SECONDS = 15.0
_HOUR_MS = 3_600_000

# Puts RoomGone events for tasks of a room, with their time T, on the event queue.
SendRoomGone = Callable[[Room, Sequence[Task], int], object]


@dataclass(frozen=True)
class SweepSettings(SharedSettings):
    """The sweeper's settings that a deployment can change."""

    max_task_ms: int


def read_settings(environment: Mapping[str, str]) -> SweepSettings:
    """Read the settings. Raises `SettingsError` if a setting is missing, out of range, or a URL that is not allowed."""
    read = Reader(environment)
    read.number("SWEEP_MINUTES", least=1)
    return SweepSettings(**read.shared(), max_task_ms=read.amount("MAX_TASK_HOURS", _HOUR_MS))


@dataclass
class Sweep:
    """The result of a sweep."""

    rooms_swept: int = 0  # with an answer of the API
    rooms_gone: int = 0  # of rooms_swept
    rooms_rejected: int = 0
    rooms_unanswered: int = 0
    round_seconds: float | None = None  # of the last round through all watched rooms, if it ended in this sweep
    refused: StopError | None = None  # the API's refusal of the key or the account, if any


@dataclass(eq=False)
class Sweeper:
    """Sweeps the rooms of watched tasks in pages and in repeated rounds. Only one sweep runs at a time."""

    settings: SweepSettings
    table: SegmentTable
    api: RtcApi
    questions: Calls  # of GetRoomOnlineUsers
    in_thread: InThread
    send_room_gone: SendRoomGone
    now_ms: Callable[[], int]

    async def sweep(self, seconds_left: Callable[[], float]) -> Sweep | None:
        """Continue from the place of the last sweep for at most one round, while `seconds_left()` is enough for a page.

        Returns None if another sweep is running. Raises `Retryable` if the table's watched rooms could not be read.
        """
        sweep = Sweep()
        now_ms = self.now_ms()
        # The lease ends before the next sweep begins, in case this sweep does not give it back.
        until_ms = now_ms + self.settings.sweep_every_ms - int(1000 * BETWEEN_SWEEPS_SECONDS)
        lease = await self.in_thread(self.table.take_lease, now_ms, until_ms)
        if lease is None:
            return None
        began_at_ms = lease.round_began_at_ms
        is_over = lease.place is None or await self._sweep_on(
            sweep, lease, self.table.watched_rooms(after=lease.place), seconds_left
        )
        # A round in less than a minute would find rooms gone again too soon.
        if is_over and (began_at_ms is None or now_ms - began_at_ms >= GONE_AGAIN_MS):
            sweep.round_seconds = None if began_at_ms is None else (now_ms - began_at_ms) / 1000
            lease = replace(lease, round_began_at_ms=now_ms, last_round_began_at_ms=began_at_ms)
            await self._sweep_on(sweep, lease, self.table.watched_rooms(until=lease.place), seconds_left)
        await self.in_thread(self.table.give_back, lease)
        return sweep

    async def _sweep_on(
        self,
        sweep: Sweep,
        lease: Lease,
        rooms: Iterator[tuple[Room, dict[Task, Record]]],
        seconds_left: Callable[[], float],
    ) -> bool:
        """Sweep rooms in pages. Returns whether all rooms were swept."""
        while seconds_left() >= PAGE_SECONDS:
            page: list[tuple[Room, dict[Task, Record]]] = await self.in_thread(_next_page, rooms)
            if not page:
                return True
            # Before the page: if a page crashes this sweep, the next sweep skips the page.
            if not await self.in_thread(self.table.note_place, lease, page[-1][0]):
                return False
            looks = (self._look(sweep, lease, room, items, seconds_left) for room, items in page)
            if not any(await asyncio.gather(*looks)):
                return False  # no answer at all: the next sweep continues
        return False

    async def _look(
        self, sweep: Sweep, lease: Lease, room: Room, items: Mapping[Task, Record], seconds_left: Callable[[], float]
    ) -> bool:
        """Check a room. Returns False if the API did not answer."""
        try:
            await self._ask(sweep, lease, room, items, seconds_left)
        except StopError as error:
            is_refused = isinstance(error, CredentialsRefused | SetupRefused)
            is_rejected = is_refused or isinstance(error, Rejected)
            sweep.rooms_rejected += is_rejected
            sweep.rooms_unanswered += not is_rejected
            sweep.refused = error if is_refused else sweep.refused
            return not isinstance(error, NoAnswer | CircuitOpen)
        return True

    async def _ask(
        self, sweep: Sweep, lease: Lease, room: Room, items: Mapping[Task, Record], seconds_left: Callable[[], float]
    ) -> None:
        look = items.get(Task(room, LOOK_ITEM), Record())
        tasks = {task: record for task, record in items.items() if task.task_id != LOOK_ITEM}
        if not tasks:
            await self.in_thread(self.table.forget_gone, room)
            return
        asked_at_ms = self.now_ms()
        exists = await self.questions.make(self.api.room_exists, room, seconds_left=seconds_left)
        sweep.rooms_swept += 1
        sweep.rooms_gone += not exists
        last_ms = lease.last_round_began_at_ms
        check = decide_check(
            tasks,
            look.gone_at_ms,
            asked_at_ms,
            exists=exists,
            last_round_began_at_ms=asked_at_ms if last_ms is None else last_ms,
            max_task_ms=self.settings.max_task_ms,
        )
        if check.to_stop:
            await self.in_thread(self.send_room_gone, room, check.to_stop, check.stop_time_ms)
        if check.gone_at_ms == look.gone_at_ms:
            return
        if check.gone_at_ms is None:
            await self.in_thread(self.table.forget_gone, room)
        else:
            await self.in_thread(self.table.note_gone, room, check.gone_at_ms)


def _next_page(rooms: Iterator[tuple[Room, dict[Task, Record]]]) -> list[tuple[Room, dict[Task, Record]]]:
    return list(islice(rooms, ROOMS_A_PAGE))
