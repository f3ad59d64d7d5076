"""The request limit of one action of the API: each invocation keeps its share without knowing the other invocations.

The number of environments is not bounded, only the number of invocations at the same time. The places for invocations
are called slots. In each slot, one invocation follows another, in any environment, and does not know the requests of
the previous invocation. So requests leave in trains, and an invocation ends no sooner than a gap after its last train::

    an invocation                                  the next one in this slot, in any environment
    |  | | | | |               gap            |  | | | | |
             |<--------------------------------->|

If a full train has n requests, at least one of n consecutive distances between requests is a gap. So n distances are
at least as long as a full train with its gap. `pace` makes this period so long that a second holds at most the slot's
share of the limit.
The API counts a request at its arrival. This module does not know the time of arrival::

    sent ------------- arrived ------------- answered
      |<-------------- its time --------------->|
           |<----------- fastest -------------->|
           counts as sent here

Any time beyond the fastest round trip may have been spent on the way to the API. So a request counts as sent `fastest`
before its answer. From this time, the request took at most as long to arrive as every later request takes.
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

# A second, plus the delay that even the fastest answer may have had on its way.
WINDOW_SECONDS = 1.005
# A stop with an answer after 200 ms takes this long, with the table. So a single message does not wait for the gap.
GAP_SECONDS = 0.22
# The part of the gap at the beginning of an invocation, which reads the table at that time anyway.
LEAD_SECONDS = 0.01
RECOVERY_SECONDS = 10
MOST_SLOWED = 4
_BATCH = 10  # messages of an invocation, at most
_LOOK_AGAIN_SECONDS = 0.005

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Pace:
    """The order and spacing of requests."""

    train: int  # the maximum number of requests in a train
    pause_seconds: float  # between the requests of a train
    gap_seconds: float  # between the last request of a train and the next train

    def length_seconds(self, requests: int) -> float:
        """Return the time from the first to the last request, for this number of requests in a train."""
        return (requests - 1) * self.pause_seconds

    @property
    def per_second(self) -> float:
        """The number of requests per second in full trains."""
        return self.train / (self.length_seconds(self.train) + self.gap_seconds)


def pace(per_second: int) -> Pace:
    """Find the pace that serves a batch fastest, with at most `per_second` arrivals in any second.

    Among equally fast paces, the highest use of the limit decides, then the longest train.
    """
    paces = (_pace(per_second, per_second // train) for train in range(min(per_second, 3 * _BATCH), 0, -1))
    return min(paces, key=lambda found: (round(_batch_seconds(found), 6), -found.per_second))


def _pace(per_second: int, trains: int) -> Pace:
    """Divide a second into equal trains. Each train has a gap behind it, which is no shorter than a pause."""
    train = per_second // trains
    period_seconds = WINDOW_SECONDS / trains
    gap_seconds = min(max(GAP_SECONDS, period_seconds / train), period_seconds)
    return Pace(train, (period_seconds - gap_seconds) / max(1, train - 1), gap_seconds)


def _batch_seconds(found: Pace) -> float:
    """Return the time from the first to the last request of a batch at this pace."""
    trains, rest = divmod(_BATCH - 1, found.train)
    before_seconds = trains * (found.length_seconds(found.train) + found.gap_seconds)
    return before_seconds + found.length_seconds(rest + 1)


class Turn:
    """Permission to send one request. The holder must use the turn or give it up.

    `note_answer` receives the round trip of each answer, in seconds.
    """

    def __init__(self, clock_seconds: Callable[[], float], note_answer: Callable[[float], None]) -> None:
        self._clock_seconds = clock_seconds
        self._note_answer = note_answer
        self._sent_at: float | None = None
        # The times of the request and of its answer, set once and together: another thread reads both.
        self._over: tuple[float, float] | None = None

    def spend(self, function: Callable[..., T], *arguments: object) -> T:
        """Make the request, in any thread, and return the result of `function`.

        The last argument of `function`, after `arguments`, is a function to call just before the request is sent.
        `function` raises an error if there is no successful answer.
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
        """Whether the request of this turn was sent."""
        return self._sent_at is not None

    def send(self) -> None:
        """Record that the request is sent now. On a busy machine, the turn may have begun long before."""
        self._sent_at = self._clock_seconds()

    def end(self) -> None:
        """Record that the answer arrived now."""
        if self._sent_at is None:
            self.give_up()
        else:
            answered_at = self._clock_seconds()
            self._over = self._sent_at, answered_at
            self._note_answer(answered_at - self._sent_at)

    def give_up(self) -> None:
        """Record that there is no successful answer. If the turn is already over, this call changes nothing."""
        if self._over is None:
            # A request that was sent may have spent all this time on its way: it counts as sent now.
            now = -math.inf if self._sent_at is None else self._clock_seconds()
            self._over = now, now

    def counts_from(self, fastest_seconds: float) -> float | None:
        """Return the time from which the request counts: None if it is under way, -inf if no request was sent."""
        if (over := self._over) is None:
            return None
        sent_at, answered_at = over
        return max(sent_at, answered_at - fastest_seconds)


class _Fastest:
    """The fastest of the last answers. At full pace, these are the answers of the last 4 to 8 seconds."""

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
        """The fastest round trip, or 0 until enough are known: a first batch may wait for its connections."""
        with self._lock:
            return min(self._before, self._lately) if self._count > min(self._per_second, _BATCH) else 0.0


class Turns:
    """Lets requests leave at the pace of a slot's share. The messages of an invocation take turns.

    At most `per_second` requests arrive in any second. Between invocations, only the API's speed and its refusals are
    remembered. `clock_seconds` is monotonic.
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
        # First come, first served. Each message has at most one request in the queue, and its next request goes
        # to the end, so the messages take turns.
        self._queue = asyncio.Lock()
        self._queues: defaultdict[Hashable, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._train: list[Turn] = []
        self._train_leaves_at = float("-inf")
        self._most_slowed = min(MOST_SLOWED, per_second)
        self._slowed_by = 1.0
        self._slowed_at = float("-inf")

    @asynccontextmanager
    async def invocation(self) -> AsyncIterator[None]:
        """Begin an invocation. At its end, wait until the next invocation may begin, in any environment."""
        lead_seconds = min(LEAD_SECONDS, self._pace.gap_seconds)
        self._train, self._train_leaves_at = [], self._clock_seconds() + lead_seconds
        self._queues.clear()
        try:
            yield
        finally:
            while (ends_at := self._next_train_at() - lead_seconds) > (now := self._clock_seconds()):
                await self._sleep(ends_at - now)

    async def take(self, seconds_left: Callable[[], float], message: Hashable = None) -> Turn:
        """Wait for a turn. The messages take turns, however many requests each of them needs.

        Raises `NoTimeLeft` if the wait would be longer than `seconds_left()`.
        """
        async with self._queues[message], self._queue:
            while True:
                wait = max(0.0, self._next_at() - self._clock_seconds())
                if wait > seconds_left():
                    raise NoTimeLeft(
                        "NoTimeLeft", "the invocation ends before this call's turn, so the message is tried again"
                    )
                if not wait:
                    break
                await self._sleep(wait)
            if not self._train:
                self._train_leaves_at = self._clock_seconds()
            turn = Turn(self._clock_seconds, self._fastest.note)
            self._train.append(turn)
            return turn

    def slow_down(self) -> None:
        """Halve the rate, since other programs use the account's limit. The rate recovers within RECOVERY_SECONDS."""
        now = self._clock_seconds()
        # Refusals within a window count once.
        if now - self._slowed_at >= WINDOW_SECONDS:
            self._slowed_by = min(2 * self._slowness(), self._most_slowed)
            self._slowed_at = now

    def _slowness(self) -> float:
        recovered = min(1, (self._clock_seconds() - self._slowed_at) / RECOVERY_SECONDS)
        return self._slowed_by + recovered * (1 - self._slowed_by)

    def _next_at(self) -> float:
        """Return the earliest time for the next request."""
        if len(self._train) == self._pace.train:
            if (at := self._next_train_at()) > self._clock_seconds():
                return at
            self._train = []
        return self._train_leaves_at + self._slowness() * self._pace.length_seconds(len(self._train) + 1)

    def _next_train_at(self) -> float:
        """Return the earliest time for the next train.

        Every request also keeps its full distance to the end of its train, since late requests may arrive together.
        """
        fastest_seconds, slowness = self._fastest.seconds, self._slowness()
        arrivals = [turn.counts_from(fastest_seconds) for turn in self._train]
        known = sorted((at for at in arrivals if at is not None), reverse=True)
        if len(known) < len(arrivals):
            return self._clock_seconds() + _LOOK_AGAIN_SECONDS
        ends = [at + slowness * self._pace.length_seconds(last) for last, at in enumerate(known, 1)]
        return max(ends, default=-math.inf) + slowness * self._pace.gap_seconds
