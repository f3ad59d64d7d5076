"""The request limit of one action of the API, held by each invocation for itself.

Lambda keeps as many environments as it likes; only the number of invocations in flight is bounded. So there are that
many slots, and in each of them one invocation follows another, wherever it runs: none knows what was sent just before
it. That is why requests go in trains, and why an invocation ends no sooner than a gap after its last train::

    an invocation                                  the next one in this slot, in whatever environment
    |  | | | | |               gap            |  | | | | |
             |<--------------------------------->|

Of as many distances between requests as a full train has requests, one is a gap: so they are no shorter than a full
train with its gap, however many trains there are, and `pace` makes these so long that a second holds a share. The
API counts a request when it arrives, and that is not known here::

    sent ------------- arrived ------------- answered
      |<-------------- its time --------------->|
           |<----------- fastest -------------->|
           as if sent here, at the latest

What a request took longer than the fastest one, it may have lost on its way. So it is taken for one that was sent
`fastest` before its answer. From there it needed the shortest way at most, and whatever is sent later needs that at
least.
"""

from __future__ import annotations

import asyncio
import math
import threading
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

from segments.errors import NoTimeLeft

# A second, and what even the fastest answer may have lost on its way.
WINDOW_SECONDS = 1.005
# As long as a stop takes whose answer comes after 200 ms, the table's part in it included: then a message alone costs
# no more than without a gap.
GAP_SECONDS = 0.22
# The part of the gap at the beginning of an invocation: it reads the table first anyway.
LEAD_SECONDS = 0.01
RECOVERY_SECONDS = 10
MOST_SLOWED = 4
# What SQS gives at once, at most.
_BATCH = 10
_LOOK_AGAIN_SECONDS = 0.005

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Pace:
    """How requests follow each other.

    Parameters
    ----------
    train
        How many make a train, at most.
    pause_seconds
        How far the requests of a train are apart.
    gap_seconds
        How far a train is behind the last request of the one before.
    """

    train: int
    pause_seconds: float
    gap_seconds: float

    def length_seconds(self, requests: int) -> float:
        """Say how far the first and the last of so many requests of a train are apart."""
        return (requests - 1) * self.pause_seconds

    @property
    def per_second(self) -> float:
        """How many requests a second full trains make."""
        return self.train / (self.length_seconds(self.train) + self.gap_seconds)


def pace(per_second: int) -> Pace:
    """Find the pace that lets at most so many requests arrive in any second, and is the fastest one for a batch.

    Among those that are as fast it is the one that leaves least of the limit unused, in the longest trains.
    """
    paces = (_pace(per_second, per_second // train) for train in range(min(per_second, 3 * _BATCH), 0, -1))
    return min(paces, key=lambda found: (round(_batch_seconds(found), 6), -found.per_second))


def _pace(per_second: int, trains: int) -> Pace:
    """Divide a second into equal trains, each with a gap behind it that is no shorter than a pause."""
    train = per_second // trains
    period_seconds = WINDOW_SECONDS / trains
    gap_seconds = min(max(GAP_SECONDS, period_seconds / train), period_seconds)
    return Pace(train, (period_seconds - gap_seconds) / max(1, train - 1), gap_seconds)


def _batch_seconds(found: Pace) -> float:
    """Say how long a batch takes at this pace, its last answer included."""
    trains, rest = divmod(_BATCH - 1, found.train)
    before_seconds = trains * (found.length_seconds(found.train) + found.gap_seconds)
    return before_seconds + found.length_seconds(rest + 1) + max(found.gap_seconds, GAP_SECONDS)


class Turn:
    """Leave to send one request: whoever has it must spend it or give it up.

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

    @property
    def was_sent(self) -> bool:
        """Whether its request was sent."""
        return self._sent_at is not None

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
            now = -math.inf if self._sent_at is None else self._clock_seconds()
            self._over = _Over(now, now)

    def counts_from(self, fastest_seconds: float) -> float | None:
        """Say from when its request counts, at the latest.

        Returns
        -------
        float or None
            -inf: there was no request. None: it is under way, so that nobody knows.
        """
        if (over := self._over) is None:
            return None
        return max(over.sent_at, over.answered_at - fastest_seconds)


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

        The first requests, a batch of them, may all have waited for their connections: then none of them was fast.
        """
        with self._lock:
            return min(self._before, self._lately) if self._count > min(self._per_second, _BATCH) else 0.0


class Turns:
    """Lets requests leave at the pace of a slot's share, the messages of an invocation in turn.

    What it remembers from one invocation to the next is of the API only: how fast it is, and whether it refuses.

    Parameters
    ----------
    per_second
        How many requests of a slot may arrive in any second.
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
        self._pace = pace(per_second)
        self._clock_seconds = clock_seconds
        self._sleep = sleep
        self._fastest = _Fastest(per_second)
        # First come, first served, and at most one request of each message is in the queue: its next one goes to the
        # end, so that turns go round.
        self._queue = asyncio.Lock()
        self._queues: defaultdict[Hashable, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._train: list[Turn] = []
        self._train_leaves_at = float("-inf")
        self._most_slowed = min(MOST_SLOWED, per_second)
        self._slowed_by = 1.0
        self._slowed_at = float("-inf")

    @asynccontextmanager
    async def invocation(self) -> AsyncIterator[None]:
        """Begin an invocation; at its end, wait until the next one may begin, in whatever environment."""
        lead_seconds = min(LEAD_SECONDS, self._pace.gap_seconds)
        self._train, self._train_leaves_at = [], self._clock_seconds() + lead_seconds
        self._queues.clear()
        try:
            yield
        finally:
            while (ends_at := self._next_train_at() - lead_seconds) > (now := self._clock_seconds()):
                await self._sleep(ends_at - now)

    async def take(self, seconds_left: Callable[[], float], message: Hashable = None) -> Turn:
        """Wait for a turn.

        Parameters
        ----------
        seconds_left
            For how long a turn may still be waited for.
        message
            The message that needs it: between messages turns go round, however many a message needs.

        Raises
        ------
        NoTimeLeft
            The turn would come later than that.
        """
        async with self._queues[message], self._queue:
            while True:
                wait = max(0.0, self._next_at() - self._clock_seconds())
                if wait > seconds_left():
                    raise NoTimeLeft("NoTimeLeft", "the invocation ends before this call's turn; it is tried again")
                if not wait:
                    break
                await self._sleep(wait)
            if not self._train:
                self._train_leaves_at = self._clock_seconds()
            turn = Turn(self._clock_seconds, self._fastest.note)
            self._train.append(turn)
            return turn

    def slow_down(self) -> None:
        """Halve the rate, since others share the account's limit; it recovers within RECOVERY_SECONDS."""
        now = self._clock_seconds()
        # The refusals of one burst are one piece of news.
        if now - self._slowed_at >= WINDOW_SECONDS:
            self._slowed_by = min(2 * self._slowness(), self._most_slowed)
            self._slowed_at = now

    def _slowness(self) -> float:
        recovered = min(1, (self._clock_seconds() - self._slowed_at) / RECOVERY_SECONDS)
        return self._slowed_by + recovered * (1 - self._slowed_by)

    def _next_at(self) -> float:
        """Say when the next request may leave, or the soonest that this may be."""
        if len(self._train) == self._pace.train:
            if (at := self._next_train_at()) > self._clock_seconds():
                return at
            self._train = []
        return self._train_leaves_at + self._slowness() * self._pace.length_seconds(len(self._train) + 1)

    def _next_train_at(self) -> float:
        """Say when the next train may leave, or the soonest that this may be.

        Seen from its end a train must be as long as from its beginning: requests that were late may arrive together.
        """
        fastest_seconds, slowness = self._fastest.seconds, self._slowness()
        arrivals = [turn.counts_from(fastest_seconds) for turn in self._train]
        known = sorted((at for at in arrivals if at is not None), reverse=True)
        if len(known) < len(arrivals):
            return self._clock_seconds() + _LOOK_AGAIN_SECONDS
        ends = [at + slowness * self._pace.length_seconds(last) for last, at in enumerate(known, 1)]
        return max(ends, default=-math.inf) + slowness * self._pace.gap_seconds
