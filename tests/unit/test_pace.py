import asyncio
import contextlib
import functools
import math
import selectors
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, ParamSpec, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segments.errors import NoTimeLeft
from segments.pace import (
    GAP_SECONDS,
    LEAD_SECONDS,
    MOST_SLOWED,
    RECOVERY_SECONDS,
    WINDOW_SECONDS,
    Turn,
    Turns,
    pace,
)
from tests.examples import examples

P = ParamSpec("P")
FOREVER = 1e9
SHARES = [1, 2, 3, 7, 8, 12, 15, 20, 30, 31, 75]


class _SkippingSelector(selectors.SelectSelector):
    """A selector that does not wait: it moves its clock forward by the time-out."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1_000.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.now += timeout or 0
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop with a virtual clock. The clock moves when every task waits, and jumps when the process freezes."""

    def __init__(self) -> None:
        self._skipping = _SkippingSelector()
        super().__init__(self._skipping)

    def time(self) -> float:
        return self._skipping.now

    def freeze(self, seconds: float) -> None:
        self._skipping.now += seconds


def on_virtual_time(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run a test on a dedicated loop with a virtual clock."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            runner.run(test(*args, **kwargs))

    return run


def now() -> float:
    return asyncio.get_running_loop().time()


def freeze_later(after: float, seconds: float) -> None:
    loop = cast("VirtualLoop", asyncio.get_running_loop())
    loop.call_later(after, loop.freeze, seconds)


@dataclass
class Callers:
    """Callers that take turns, numbered in the order of arrival, and the times of their turns and refusals."""

    turns: Turns
    order: list[int] = field(default_factory=list)
    given: dict[int, float] = field(default_factory=dict)
    refused: dict[int, float] = field(default_factory=dict)
    deadlines: dict[int, float] = field(default_factory=dict)

    async def call(self, patience: float = FOREVER) -> None:
        number = len(self.deadlines)
        self.deadlines[number] = now() + patience
        try:
            turn = await self.turns.take(lambda: self.deadlines[number] - now())
            turn.send()
            turn.end()
        except NoTimeLeft:
            self.refused[number] = now()
        else:
            self.order.append(number)
            self.given[number] = now()


async def call_all(turns: Turns, calls: list[tuple[float, float]]) -> Callers:
    """Start callers after pauses, each with the seconds that it can wait, and return when all are done."""
    callers = Callers(turns)
    calling = []
    for pause, patience in calls:
        await asyncio.sleep(pause)
        calling.append(asyncio.create_task(callers.call(patience)))
        await asyncio.sleep(0)
    await asyncio.gather(*calling)
    return callers


def most_in_a_second(times: list[float]) -> int:
    times = sorted(times)
    return max((sum(start <= time < start + 1 for time in times) for start in times), default=0)


PAUSES = st.sampled_from([0.0, 0.0, 0.001, 0.5, 1.0, WINDOW_SECONDS]) | st.floats(0, 3)
PATIENCE = st.just(FOREVER) | st.floats(-1, 5)
CALLS = st.lists(st.tuples(PAUSES, PATIENCE), max_size=40)
FREEZES = st.lists(st.tuples(st.floats(0, 20), st.floats(0, 1_000)), max_size=3)


class TestPaces:
    @pytest.mark.parametrize("per_second", [*range(1, 60), 75, 100, 150, 1_500])
    def test_no_second_exceeds_the_share_however_trains_are_filled(self, per_second: int) -> None:
        chosen = pace(per_second)
        # For each number of requests, the shortest time from the first request to the end of the gap after the last.
        soonest = [0.0]
        for requests in range(1, per_second + 2):
            soonest.append(
                min(
                    soonest[requests - last] + chosen.length_seconds(last) + chosen.gap_seconds
                    for last in range(1, min(chosen.train, requests) + 1)
                )
            )
        assert soonest[per_second + 1] - chosen.gap_seconds >= 1.001
        # The second may begin within a train: then the requests before it in the train do not count.
        for whole in range(2, chosen.train + 1):
            for before in range(1, min(whole, per_second) + 1):
                rest = chosen.length_seconds(whole) - chosen.length_seconds(before) + chosen.gap_seconds
                counted = whole - before + 1
                if counted <= per_second:
                    assert rest + soonest[per_second + 1 - counted] - chosen.gap_seconds >= 1.001

    @pytest.mark.parametrize(
        ("per_second", "train", "length_seconds", "gap_seconds"),
        [
            pytest.param(1, 1, 0, WINDOW_SECONDS, id="one"),
            pytest.param(4, 4, 3 / 4 * WINDOW_SECONDS, WINDOW_SECONDS / 4, id="the questions of one of ten slots"),
            pytest.param(8, 2, WINDOW_SECONDS / 4 - GAP_SECONDS, GAP_SECONDS, id="the questions of one of five slots"),
            pytest.param(15, 5, WINDOW_SECONDS / 3 - GAP_SECONDS, GAP_SECONDS, id="ten slots"),
            pytest.param(30, 10, WINDOW_SECONDS / 3 - GAP_SECONDS, GAP_SECONDS, id="five slots"),
            pytest.param(75, 15, 0, WINDOW_SECONDS / 5, id="two slots"),
            pytest.param(100_000, 25, 0, WINDOW_SECONDS / 4_000, id="practically no limit"),
        ],
    )
    def test_the_fastest_pace_for_a_batch_is_chosen(
        self, per_second: int, train: int, length_seconds: float, gap_seconds: float
    ) -> None:
        chosen = pace(per_second)
        assert chosen.train == train
        assert chosen.length_seconds(train) == pytest.approx(length_seconds)
        assert chosen.gap_seconds == pytest.approx(gap_seconds)


@given(st.integers(1, 12), CALLS, FREEZES, st.lists(st.floats(0, 20), max_size=10), st.just(1.0) | st.floats(0, 2))
@on_virtual_time
async def test_turns_keep_the_rate_the_order_and_the_deadlines(
    per_second: int,
    calls: list[tuple[float, float]],
    freezes: list[tuple[float, float]],
    refusals: list[float],
    slept: float,
) -> None:
    async def sleep(seconds: float) -> None:
        await asyncio.sleep(max(0.01, seconds * slept))  # it may end too early or too late

    turns = Turns(per_second, now, sleep)
    for after, seconds in freezes:
        freeze_later(after, seconds)
    for after in refusals:
        asyncio.get_running_loop().call_later(after, turns.slow_down)
    callers = await call_all(turns, calls)
    assert most_in_a_second(list(callers.given.values())) <= per_second
    assert callers.order == sorted(callers.order)
    assert all(time <= callers.deadlines[number] for number, time in callers.given.items())
    assert len(callers.given) + len(callers.refused) == len(calls)
    assert all(calls[number][1] < FOREVER for number in callers.refused), "a caller without a deadline was refused"


@pytest.mark.parametrize("per_second", [1, 2, 8, 30])
@on_virtual_time
async def test_a_crowd_leaves_in_trains(per_second: int) -> None:
    begin = now()
    callers = await call_all(Turns(per_second, now), [(0.0, FOREVER)] * (3 * per_second))
    expected, chosen = [], pace(per_second)
    for number in range(3 * per_second):
        train, place = divmod(number, chosen.train)
        period = chosen.length_seconds(chosen.train) + chosen.gap_seconds
        expected.append(train * period + chosen.length_seconds(place + 1))
    assert [time - begin for time in callers.given.values()] == pytest.approx(expected)


@on_virtual_time
async def test_a_caller_without_time_for_its_turn_is_refused_at_once_and_delays_no_other() -> None:
    begin = now()
    calls = [(0.0, -0.001), (0.0, 0.0), (0.0, WINDOW_SECONDS / 2), (0.0, 0.0), (0.0, FOREVER)]
    turns = Turns(1, now)
    callers = await call_all(turns, calls)
    assert callers.given == pytest.approx({1: begin, 4: begin + WINDOW_SECONDS})
    assert callers.refused == dict.fromkeys([0, 2, 3], begin)
    with pytest.raises(NoTimeLeft, match=r"^NoTimeLeft: the invocation ends before this call's turn, so the message"):
        await turns.take(lambda: -1)


async def turns_of(turns: Turns, messages: dict[str, int], most: int) -> list[str]:
    """Let each message ask for a number of turns. Return the messages that got the first turns, in order."""
    order: list[str] = []

    async def take(message: str) -> None:
        with contextlib.suppress(NoTimeLeft):
            (await turns.take(lambda: FOREVER if len(order) < most else -1.0, message)).give_up()
            order.append(message)

    await asyncio.gather(*(take(message) for message, count in messages.items() for _ in range(count)))
    return order


@pytest.mark.parametrize(
    ("messages", "order"),
    [
        ({"huge": 100, "one": 1, "two": 1}, "huge one two huge huge huge huge huge"),
        ({"huge": 100, "vast": 100, "one": 1}, "huge vast one huge vast huge vast huge"),
        ({"one": 1, "huge": 5, "pair": 2}, "one huge pair huge pair huge huge huge"),
    ],
)
@on_virtual_time
async def test_messages_take_turns(messages: dict[str, int], order: str) -> None:
    turns = Turns(3, now)
    for _ in range(2):  # the next invocation begins again
        async with turns.invocation():
            assert await turns_of(turns, messages, 8) == order.split()


@on_virtual_time
async def test_a_cancelled_caller_does_not_block_the_next_one() -> None:
    callers = Callers(Turns(1, now))
    calling = [asyncio.create_task(callers.call()) for _ in range(4)]
    await asyncio.sleep(0.1)
    calling[1].cancel()  # it is next
    calling[2].cancel()  # it waits behind
    await asyncio.gather(*calling, return_exceptions=True)
    assert callers.order == [0, 3]
    assert callers.given[3] - callers.given[0] == pytest.approx(WINDOW_SECONDS)


class TestInvocation:
    @staticmethod
    async def took(turns: Turns, requests: int, seconds: float) -> float:
        began = now()
        async with turns.invocation():
            await asyncio.gather(*(taken(turns, seconds) for _ in range(requests)))
        return now() - began

    @on_virtual_time
    async def test_an_invocation_ends_one_gap_minus_the_lead_after_its_last_request(self) -> None:
        turns = Turns(30, now)
        for _ in range(3):
            await self.took(turns, 10, 0.02)
        length = LEAD_SECONDS + pace(30).length_seconds(10)
        assert await self.took(turns, 10, 0.02) == pytest.approx(length - LEAD_SECONDS + GAP_SECONDS)
        assert await self.took(turns, 1, 0.02) == pytest.approx(GAP_SECONDS)
        assert await self.took(turns, 1, 0.3) == pytest.approx(0.28 + GAP_SECONDS)

    @on_virtual_time
    async def test_an_invocation_without_a_request_does_not_wait(self) -> None:
        turns = Turns(30, now)
        assert await self.took(turns, 0, 0.0) == 0
        began = now()
        async with turns.invocation():
            (await turns.take(lambda: FOREVER)).give_up()
        assert now() - began == pytest.approx(LEAD_SECONDS)

    @on_virtual_time
    async def test_an_invocation_that_fails_waits_for_the_gap_too(self) -> None:
        turns, began = Turns(30, now), now()

        async def fail() -> None:
            async with turns.invocation():
                await taken(turns)
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await fail()
        assert now() - began == pytest.approx(GAP_SECONDS)


class TestSlowingDown:
    @pytest.mark.parametrize(
        ("refusals", "began", "slower"),
        [
            ([0.0], 0.0, 2),
            ([0.0], RECOVERY_SECONDS, 1),
            ([0.0], 2 * RECOVERY_SECONDS, 1),
            ([0.0, 0.0, 0.5], 0.5, 2),
            ([0.0, 1.1], 1.1, 3.8),
            ([0.0, 1.1, 2.2, 3.3], 3.3, MOST_SLOWED),
        ],
    )
    @on_virtual_time
    async def test_each_burst_of_refusals_halves_the_rate_which_recovers(
        self, refusals: list[float], began: float, slower: float
    ) -> None:
        turns = Turns(30, now)
        for after in refusals:
            asyncio.get_running_loop().call_later(after, turns.slow_down)
        await asyncio.sleep(began)
        begin = now()
        async with turns.invocation():
            for _ in range(10):
                (await turns.take(lambda: FOREVER)).give_up()
        length = now() - begin - LEAD_SECONDS
        assert length / pace(30).length_seconds(10) == pytest.approx(slower, rel=0.1)

    @on_virtual_time
    async def test_slowing_down_doubles_the_gap_too(self) -> None:
        turns = Turns(30, now)
        turns.slow_down()
        began = now()
        async with turns.invocation():
            await taken(turns)
        assert now() - began == pytest.approx(2 * GAP_SECONDS, rel=0.05)

    @pytest.mark.parametrize("per_second", [1, 2, 3, 8, 30])
    @on_virtual_time
    async def test_the_slowest_rate_is_one_turn_per_second(self, per_second: int) -> None:
        turns = Turns(per_second, now)
        for after in range(0, 10, 2):
            asyncio.get_running_loop().call_later(after, turns.slow_down)
        await asyncio.sleep(8)
        callers = await call_all(turns, [(0.0, FOREVER)] * 2)
        first, second = callers.given.values()
        assert second - first <= WINDOW_SECONDS + 0.001


async def taken(turns: Turns, seconds: float = 0.0) -> Turn:
    """Take a turn and send its request, whose answer comes after `seconds`."""
    turn = await turns.take(lambda: FOREVER)
    turn.send()
    await asyncio.sleep(seconds)
    turn.end()
    return turn


class TestCounting:
    """The next turn shows the time from which the requests before it count."""

    @pytest.mark.parametrize(
        ("earlier_answers", "before", "round_trip", "is_answered", "counts_from"),
        [
            pytest.param(2, 0.5, 0.2, True, 0.5, id="its late sending, if its answer is as fast as the fastest"),
            pytest.param(2, 0.0, 3.0, True, 2.8, id="its latest arrival, if its answer is slower"),
            pytest.param(2, 0.0, 7.0, False, 7.0, id="its end, if it has no answer"),
            pytest.param(0, 0.0, 0.2, True, 0.2, id="its end, if no fastest answer is known"),
        ],
    )
    @on_virtual_time
    async def test_the_time_from_which_a_request_counts(
        self, earlier_answers: int, before: float, round_trip: float, is_answered: bool, counts_from: float
    ) -> None:
        turns = Turns(1, now)
        for _ in range(earlier_answers):
            await taken(turns, 0.2)
        await asyncio.sleep(10)
        began = now()
        turn = await turns.take(lambda: FOREVER)
        loop = asyncio.get_running_loop()
        loop.call_later(before, turn.send)
        loop.call_later(before + round_trip, turn.end if is_answered else turn.give_up)
        await turns.take(lambda: FOREVER)
        # While the request is under way, the next one checks from time to time.
        assert now() - began == pytest.approx(counts_from + WINDOW_SECONDS, abs=0.03)

    @on_virtual_time
    async def test_requests_that_are_sent_together_delay_the_next_train_by_their_own_train_and_the_gap(self) -> None:
        turns = Turns(30, now)
        train = [await turns.take(lambda: FOREVER) for _ in range(10)]
        for turn in train:
            turn.send()
            turn.end()
        together = now()
        await turns.take(lambda: FOREVER)
        assert now() - together == pytest.approx(pace(30).length_seconds(10) + GAP_SECONDS)

    @pytest.mark.parametrize(
        ("per_second", "slower_ones", "lost_seconds"), [(1, 6, 0.4), (1, 7, 0.0), (2, 13, 0.4), (2, 15, 0.0)]
    )
    @on_virtual_time
    async def test_an_old_fast_answer_is_forgotten(
        self, per_second: int, slower_ones: int, lost_seconds: float
    ) -> None:
        turns = Turns(per_second, now)
        for seconds in [0.1] + [0.5] * slower_ones:
            await taken(turns, seconds)
        await asyncio.sleep(10)
        began = now()
        for _ in range(per_second):
            await taken(turns, 0.5)
        await turns.take(lambda: FOREVER)
        assert now() - began == pytest.approx(lost_seconds + WINDOW_SECONDS)


@pytest.mark.parametrize(
    ("sends", "answers", "round_trips", "counts_from"),
    [
        pytest.param(True, True, [2.5], 1.5, id="an answer"),
        pytest.param(True, False, [], 3.5, id="no answer"),
        pytest.param(False, False, [], -math.inf, id="an error before sending"),
        pytest.param(False, True, [], -math.inf, id="a result without a request"),
    ],
)
def test_only_the_answer_to_a_sent_request_shows_the_api_s_speed(
    sends: bool, answers: bool, round_trips: list[float], counts_from: float
) -> None:
    clock, noted = iter([1.0, 3.5]), list[float]()
    turn = Turn(lambda: next(clock), noted.append)

    def request(answer: str, sending: Callable[[], None]) -> str:
        if sends:
            sending()
        if not answers:
            raise ConnectionError
        return answer

    with contextlib.nullcontext() if answers else pytest.raises(ConnectionError):
        assert turn.spend(request, "ok") == "ok"
    turn.give_up()  # it is over already, so this changes nothing
    assert noted == round_trips
    assert turn.counts_from(fastest_seconds=2.0) == counts_from


@dataclass(frozen=True)
class Journey:
    """The delays of a request: before it is sent, on its way, and until its answer, if there is an answer."""

    before: float
    there: float
    back: float
    answered: bool


@dataclass(frozen=True)
class Invocation:
    """A batch for one of the free environments, `pause` after the end of the previous batch in its slot."""

    environment: int
    pause: float
    journeys: list[tuple[float, Journey]]


LOSSES = st.sampled_from([0.0, 0.0, 0.01, 0.3, 0.9, 3.0])
JOURNEYS = st.builds(Journey, before=LOSSES, there=LOSSES, back=LOSSES, answered=st.booleans())
FAST = Journey(0.0, 0.0, 0.0, answered=True)
INVOCATIONS = st.builds(
    Invocation,
    environment=st.integers(0, 5),
    pause=st.sampled_from([0.0, 0.0, 0.0, 0.001, 0.3]),
    journeys=(st.sampled_from([10, 10, 10, 9, 1]) | st.integers(1, 25)).flatmap(
        lambda size: st.lists(
            st.tuples(st.sampled_from([0.0, 0.0, 0.0, 0.02, 0.3]), st.just(FAST) | JOURNEYS),
            min_size=size,
            max_size=size,
        )
    ),
)


class TestArrivals:
    """The API counts arrivals.

    Every third request has no delay, because the bound holds only if the fastest known answer had none.
    """

    @settings(max_examples=examples(40, by_night=100))
    @given(
        st.sampled_from(SHARES),
        st.integers(0, 3),
        st.sampled_from([0.0, 0.02, 0.5]),
        st.sampled_from([0.0, 0.2, 2.5]),
        st.lists(st.lists(INVOCATIONS, min_size=1, max_size=7), min_size=1, max_size=2),
    )
    @on_virtual_time
    async def test_no_second_has_more_arrivals_than_allowed(
        self, per_second: int, more_environments: int, way: float, work: float, slots: list[list[Invocation]]
    ) -> None:
        arrivals: list[list[float]] = [[] for _ in slots]

        async def request(turns: Turns, journey: Journey, arrived: list[float]) -> None:
            turn = await turns.take(lambda: FOREVER)
            await asyncio.sleep(journey.before)
            turn.send()
            await asyncio.sleep(way + journey.there)
            arrived.append(now())
            if journey.answered:
                await asyncio.sleep(work + journey.back)
                turn.end()
            else:
                await asyncio.sleep(journey.back)  # a failure may be faster than any answer
                turn.give_up()

        async def invoke(turns: Turns, invocation: Invocation, arrived: list[float]) -> None:
            async with turns.invocation():
                under_way = []
                for number, (pause, journey) in enumerate(invocation.journeys):
                    await asyncio.sleep(pause)
                    fares = journey if number % 3 else FAST
                    under_way.append(asyncio.create_task(request(turns, fares, arrived)))
                await asyncio.gather(*under_way)

        free = [Turns(per_second, now) for _ in range(len(slots) + more_environments)]

        async def serve(invocations: list[Invocation], arrived: list[float]) -> None:
            for invocation in invocations:
                await asyncio.sleep(invocation.pause)
                turns = free.pop(invocation.environment % len(free))
                await invoke(turns, invocation, arrived)
                free.append(turns)

        await asyncio.gather(*map(serve, slots, arrivals))
        assert [len(arrived) for arrived in arrivals] == [sum(len(i.journeys) for i in slot) for slot in slots]
        for arrived in arrivals:
            assert most_in_a_second(arrived) <= per_second
