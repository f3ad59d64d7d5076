"""The request limit of one function environment.

::

    sent ------------- arrived ------------- answered
      |<-------------- its time --------------->|
           |<----------- fastest -------------->|
           as if sent here, at the latest

The API counts a request when it arrives, and that is not known here. Requests bunch up on a busy way: a second in which
few were sent may be one in which many arrive. What a request took longer than the fastest one, it may have lost on its
way. So it is taken for one that was sent `fastest` before its answer, and counts for a second from then on. From there
it needed the shortest way at most, and whatever is sent later needs that at least: so arrivals are a second apart where
these times are.
"""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from stop_segment.errors import NoTimeLeft

# A second, and what even the fastest answer may have lost on its way.
WINDOW_SECONDS = 1.005
RECOVERY_SECONDS = 10
_LOOK_AGAIN_SECONDS = 0.02

T = TypeVar("T")


class Turn:
    """Leave to send one request. It counts until it is over: whoever has it must spend it or give it up.

    Parameters
    ----------
    clock_seconds
        A clock that never goes back.
    note_answer
        Takes how long an answer took, in seconds.
    """

    def __init__(self, clock_seconds: Callable[[], float], note_answer: Callable[[float], None]) -> None:
        self._clock_seconds = clock_seconds
        self._note_answer = note_answer
        self._sent_at: float | None = None
        self._over: _Over | None = None  # set once, whole: another thread reads it

    def spend(self, function: Callable[..., T], *arguments: object) -> T:
        """Make the request, and return what `function` does. Any thread may do it.

        Parameters
        ----------
        function
            Takes `arguments`, and what it is to call when it sends the request. It raises where the answer is no
            success, or none came.
        """
        try:
            answer = function(*arguments, self.send)
        except BaseException:
            self.give_up()
            raise
        self.end()
        return answer

    def send(self) -> None:
        """Say that the request is being sent now: between leave and sending, a busy machine may lose much time."""
        self._sent_at = self._clock_seconds()

    def end(self) -> None:
        """Say that the answer has come now."""
        if self._sent_at is None:
            self.give_up()
        else:
            self._over = _Over(self._sent_at, self._clock_seconds())
            self._note_answer(self._over.answered_at - self._over.sent_at)

    def give_up(self) -> None:
        """Say that there will be no success; once the turn is over, this changes nothing."""
        if self._over is None:
            # If the request was sent, it may have lost all this time on its way: as if it had been sent now.
            now = self._clock_seconds()
            self._over = _Over(now, now)

    def counts_until(self, now: float, fastest_seconds: float) -> float:
        """Say when the turn ceases to count, or the soonest that this may be."""
        if (over := self._over) is not None:
            return max(over.sent_at, over.answered_at - fastest_seconds) + WINDOW_SECONDS
        sent_at = now if self._sent_at is None else self._sent_at
        return max(sent_at + WINDOW_SECONDS, now + _LOOK_AGAIN_SECONDS)


@dataclass(frozen=True, slots=True)
class _Over:
    sent_at: float
    answered_at: float


class _Fastest:
    """The fastest of the last answers: of four to eight times as many as a second holds."""

    def __init__(self, per_second: int) -> None:
        self._per_second = per_second
        self._count = 0
        self._lately = self._before = math.inf
        self._lock = threading.Lock()

    def note(self, seconds: float) -> None:
        with self._lock:
            if self._count % (4 * self._per_second) == 0:
                self._before, self._lately = self._lately, math.inf
            self._lately = min(self._lately, seconds)
            self._count += 1

    @property
    def seconds(self) -> float:
        """How long it took; 0 while too few are known.

        The first requests may all have waited for their connections: then none of them was fast.
        """
        with self._lock:
            return min(self._before, self._lately) if self._count > self._per_second else 0.0


class Turns:
    """Lets at most so many requests arrive in any one second, first come, first served.

    Parameters
    ----------
    per_second
        How many requests any second may hold.
    clock_seconds
        A clock that never goes back.
    sleep
        Waits for so many seconds.
    """

    def __init__(
        self,
        per_second: int,
        clock_seconds: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._per_second = per_second
        self._clock_seconds = clock_seconds
        self._sleep = sleep
        self._counting: list[Turn] = []
        self._fastest = _Fastest(per_second)
        self._queue = asyncio.Lock()
        self._slowed_to = per_second
        self._slowed_at = float("-inf")

    async def take(self, seconds_left: Callable[[], float]) -> Turn:
        """Wait for a turn.

        Parameters
        ----------
        seconds_left
            For how long a turn may still be waited for.

        Raises
        ------
        NoTimeLeft
            The turn would come later than that.
        """
        async with self._queue:
            while True:
                wait = self._seconds_to_wait()
                if wait > seconds_left():
                    raise NoTimeLeft("NoTimeLeft", "the invocation ends before this call's turn; it is tried again")
                if not wait:
                    break
                await self._sleep(wait)
            turn = Turn(self._clock_seconds, self._fastest.note)
            self._counting.append(turn)
            return turn

    def slow_down(self) -> None:
        """Halve the rate, since others share the account's limit; it recovers within RECOVERY_SECONDS."""
        now = self._clock_seconds()
        # The refusals of one burst are one piece of news.
        if now - self._slowed_at >= WINDOW_SECONDS:
            self._slowed_to = max(1, self._current_rate() // 2)
            self._slowed_at = now

    def _current_rate(self) -> int:
        recovered = min(1, (self._clock_seconds() - self._slowed_at) / RECOVERY_SECONDS)
        return self._slowed_to + int(recovered * (self._per_second - self._slowed_to))

    def _seconds_to_wait(self) -> float:
        rate = self._current_rate()
        if len(self._counting) < rate:
            return 0
        now, fastest = self._clock_seconds(), self._fastest.seconds
        self._counting = [turn for turn in self._counting if turn.counts_until(now, fastest) > now]
        if len(self._counting) < rate:
            return 0
        ends = sorted(turn.counts_until(now, fastest) for turn in self._counting)
        return ends[len(ends) - rate] - now
