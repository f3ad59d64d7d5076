"""The request limit of one function environment."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from stop_segment.errors import NoTimeLeft

# A second and a little: a request is counted when it arrives, and not each takes equally long on its way.
WINDOW_SECONDS = 1.04
RECOVERY_SECONDS = 10


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
        self._given: deque[float] = deque(maxlen=per_second)
        self._queue = asyncio.Lock()
        self._slowed_to = per_second
        self._slowed_at = float("-inf")

    async def take(self, seconds_left: Callable[[], float]) -> None:
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
            self._given.append(self._clock_seconds())

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
        if len(self._given) < rate:
            return 0
        return max(0, self._given[-rate] + WINDOW_SECONDS - self._clock_seconds())
