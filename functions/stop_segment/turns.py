"""The request limit of one function environment."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from stop_segment.errors import NoTimeLeft

# A second and a little: a request is counted when it arrives, and not each takes equally long on its way.
WINDOW_SECONDS = 1.04


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
        self._clock_seconds = clock_seconds
        self._sleep = sleep
        self._given: deque[float] = deque(maxlen=per_second)
        self._queue = asyncio.Lock()

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

    def _seconds_to_wait(self) -> float:
        if len(self._given) < (self._given.maxlen or 0):
            return 0
        return max(0, self._given[0] + WINDOW_SECONDS - self._clock_seconds())
