"""A sweep: ask whether the rooms that are watched exist, and send a RoomGone for the tasks of those that do not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from segments.calls import Calls, InThread
from segments.errors import CredentialsRefused, Rejected, Retryable
from segments.events import Room, Task
from segments.ledger import SegmentTable
from segments.rtc import RtcApi
from segments.rules import Record
from sweep_rooms.checks import Check, decide_check
from sweep_rooms.settings import SweepSettings

ROOMS_A_PAGE = 60
REJECTED_AGAIN_MS = 3_600_000  # the API will say the same of it in five minutes

# Puts RoomGone events for tasks of a room, and their time T, on the event queue; False: it could not.
SendRoomGone = Callable[[Room, Sequence[Task], int], bool]


@dataclass
class Sweep:
    """What a sweep has come to.

    Parameters
    ----------
    rooms_swept, rooms_gone, rooms_unanswered
        How many rooms were answered for, how many of these are gone, and how many were not answered for.
    refused
        Why the key may not ask, if so.
    """

    rooms_swept: int = 0
    rooms_gone: int = 0
    rooms_unanswered: int = 0
    refused: CredentialsRefused | None = None


class Sweeper:
    """Sweeps the rooms that are watched. Two sweeps at once do not ask about the same room.

    Parameters
    ----------
    questions
        How GetRoomOnlineUsers is called.
    send_room_gone
        See `SendRoomGone`.
    now_ms
        The time of day, Unix ms.
    """

    def __init__(
        self,
        settings: SweepSettings,
        table: SegmentTable,
        api: RtcApi,
        questions: Calls,
        in_thread: InThread,
        send_room_gone: SendRoomGone,
        now_ms: Callable[[], int],
    ) -> None:
        self._settings = settings
        self._table = table
        self._api = api
        self._questions = questions
        self._in_thread = in_thread
        self._send_room_gone = send_room_gone
        self._now_ms = now_ms

    async def sweep(self, seconds_left: Callable[[], float]) -> Sweep:
        """Look at the rooms whose time has come, the one that waits longest first, while `seconds_left()` is positive.

        Raises
        ------
        Retryable
            The table could not be asked which rooms are watched.
        """
        sweep = Sweep()
        while seconds_left() > 0 and not sweep.refused:
            due = await self._in_thread(self._table.rooms_due, self._now_ms(), ROOMS_A_PAGE)
            if not due:
                break
            before = sweep.rooms_swept
            moved = await asyncio.gather(*(self._look(sweep, room, seen_at, seconds_left) for room, seen_at in due))
            if not any(moved) or (sweep.rooms_unanswered and sweep.rooms_swept == before):
                break  # the index is behind, or nobody answers: the next sweep goes on
        return sweep

    async def _look(self, sweep: Sweep, room: Room, seen_at_ms: int, seconds_left: Callable[[], float]) -> bool:
        """Look at a room, unless another sweep does. Returns whether this one did."""
        try:
            # Before the question: another sweep then leaves the room alone.
            next_ms = self._now_ms() + self._settings.sweep_every_ms
            state = await self._in_thread(self._table.postpone_check, room, seen_at_ms, next_ms)
            if state is None:
                return False
            open_tasks = await self._open_tasks(room, state)
            if open_tasks:
                await self._ask(sweep, room, state, open_tasks, seconds_left)
            else:
                await self._unwatch(room, next_ms)
        except CredentialsRefused as error:
            sweep.refused = error
        except Retryable:
            sweep.rooms_unanswered += 1  # the next sweep looks at it again
        return True

    async def _open_tasks(self, room: Room, state: Record) -> dict[Task, Record]:
        tasks = [Task(room, task_id) for task_id in sorted(state.open_tasks)]
        records = await self._in_thread(self._table.read, tasks) if tasks else {}
        return {task: record for task, record in records.items() if record.may_be_open}

    async def _unwatch(self, room: Room, seen_at_ms: int) -> None:
        now_ms = self._now_ms()
        state = await self._in_thread(self._table.note_idle, room, seen_at_ms, now_ms)
        # After the mark: whoever opens a task from now on takes it away, and before that its task was written.
        if state is not None and not await self._open_tasks(room, state):
            await self._in_thread(self._table.unwatch, room, seen_at_ms, now_ms, now_ms)

    async def _ask(
        self,
        sweep: Sweep,
        room: Room,
        state: Record,
        open_tasks: dict[Task, Record],
        seconds_left: Callable[[], float],
    ) -> None:
        pushed_to_ms = state.check_at_ms or 0
        asked_at_ms = self._now_ms()
        try:
            exists = await self._questions.make(self._api.room_exists, room, seconds_left=seconds_left)
        except Rejected:
            sweep.rooms_unanswered += 1
            await self._in_thread(self._table.postpone_check, room, pushed_to_ms, asked_at_ms + REJECTED_AGAIN_MS)
            return
        sweep.rooms_swept += 1
        sweep.rooms_gone += not exists
        check = decide_check(
            state,
            open_tasks,
            asked_at_ms,
            exists=exists,
            sweep_every_ms=self._settings.sweep_every_ms,
            max_task_ms=self._settings.max_task_ms,
        )
        if check.to_stop:
            await self._in_thread(self._send_room_gone, room, check.to_stop, check.stop_time_ms)
        await self._remember(room, state, pushed_to_ms, check)

    async def _remember(self, room: Room, state: Record, pushed_to_ms: int, check: Check) -> None:
        if check.gone_at_ms == state.gone_at_ms:
            return  # the room is looked at again at the time that was written before the question
        await self._in_thread(self._table.note_gone, room, pushed_to_ms, check.check_at_ms, check.gone_at_ms)
