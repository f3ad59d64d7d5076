"""The request limit of one function environment."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from stop_segment.errors import NoTimeLeft

# A second and a little: a request is counted when it arrives, and not each takes equally long on its way.
WINDOW_SECONDS = 1.1
RECOVERY_SECONDS = 10


class Turn:
    """Leave to send one request. It counts until WINDOW_SECONDS after the request was sent.

    Parameters
    ----------
    clock_seconds
        A clock that never goes back.
    """

    def __init__(self, clock_seconds: Callable[[], float]) -> None:
        self._clock_seconds = clock_seconds
        self._begun_at: float | None = None

    def begin(self) -> None:
        """Say that the request is being sent now: between leave and sending, a busy machine may lose much time."""
        if self._begun_at is None:
            self._begun_at = self._clock_seconds()

    def ends_at(self, now: float) -> float:
        """Say when the turn ceases to count, or the soonest that this may be."""
        return (now if self._begun_at is None else self._begun_at) + WINDOW_SECONDS


class Turns:
    """Gives at most so many turns in any one second, first come, first served.

    Parameters
    ----------
    per_second
        How many turns any window of WINDOW_SECONDS may hold.
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
        self._queue = asyncio.Lock()
        self._slowed_to = per_second
        self._slowed_at = float("-inf")

    async def take(self, seconds_left: Callable[[], float]) -> Turn:
        """Wait for a turn. Whoever gets it must begin it, or it counts for ever.

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
            turn = Turn(self._clock_seconds)
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
        now = self._clock_seconds()
        self._counting = [turn for turn in self._counting if turn.ends_at(now) > now]
        too_many = len(self._counting) - self._current_rate()
        if too_many < 0:
            return 0
        return sorted(turn.ends_at(now) for turn in self._counting)[too_many] - now
