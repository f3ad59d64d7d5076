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
    """Passes the time at once instead of waiting."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1_000.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.now += timeout or 0
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop with a clock that moves only when everything waits, and by leaps that stand for a freeze."""

    def __init__(self) -> None:
        self._skipping = _SkippingSelector()
        super().__init__(self._skipping)

    def time(self) -> float:
        return self._skipping.now

    def freeze(self, seconds: float) -> None:
        self._skipping.now += seconds


def on_virtual_time(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run a test on its own loop, with a virtual clock."""

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
class Visitors:
    """Those that take turns, in order of arrival, and the time of each turn, or None for no time left."""

    turns: Turns
    order: list[int] = field(default_factory=list)
    given: dict[int, float] = field(default_factory=dict)
    refused: dict[int, float] = field(default_factory=dict)
    deadlines: dict[int, float] = field(default_factory=dict)

    async def visit(self, patience: float = FOREVER) -> None:
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


async def visit_all(turns: Turns, visits: list[tuple[float, float]]) -> Visitors:
    """Let visitors come after pauses, each with its patience, and wait until all are done."""
    visitors = Visitors(turns)
    visiting = []
    for pause, patience in visits:
        await asyncio.sleep(pause)
        visiting.append(asyncio.create_task(visitors.visit(patience)))
        await asyncio.sleep(0)
    await asyncio.gather(*visiting)
    return visitors


def most_in_a_second(times: list[float]) -> int:
    times = sorted(times)
    return max((sum(start <= time < start + 1 for time in times) for start in times), default=0)


PAUSES = st.sampled_from([0.0, 0.0, 0.001, 0.5, 1.0, WINDOW_SECONDS]) | st.floats(0, 3)
PATIENCE = st.just(FOREVER) | st.floats(-1, 5)
VISITS = st.lists(st.tuples(PAUSES, PATIENCE), max_size=40)
FREEZES = st.lists(st.tuples(st.floats(0, 20), st.floats(0, 1_000)), max_size=3)


class TestPaces:
    @pytest.mark.parametrize("per_second", [*range(1, 60), 75, 100, 150, 1_500])
    def test_no_division_into_trains_lets_a_second_hold_more_than_a_share(self, per_second: int) -> None:
        chosen = pace(per_second)
        # For each number of requests: how soon after the first one the gap behind the last one can be over.
        soonest = [0.0]
        for requests in range(1, per_second + 2):
            soonest.append(
                min(
                    soonest[requests - last] + chosen.length_seconds(last) + chosen.gap_seconds
                    for last in range(1, min(chosen.train, requests) + 1)
                )
            )
        assert soonest[per_second + 1] - chosen.gap_seconds >= 1.001
        # The second may begin within a train, too: earlier parts of the train do not count.
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
            pytest.param(100_000, 25, 0, WINDOW_SECONDS / 4_000, id="no limit to speak of"),
        ],
    )
    def test_the_fastest_pace_for_a_batch_is_taken(
        self, per_second: int, train: int, length_seconds: float, gap_seconds: float
    ) -> None:
        chosen = pace(per_second)
        assert chosen.train == train
        assert chosen.length_seconds(train) == pytest.approx(length_seconds)
        assert chosen.gap_seconds == pytest.approx(gap_seconds)


@given(st.integers(1, 12), VISITS, FREEZES, st.lists(st.floats(0, 20), max_size=10), st.just(1.0) | st.floats(0, 2))
@on_virtual_time
async def test_turns_keep_to_the_rate_the_order_and_the_deadlines_whatever_comes(
    per_second: int,
    visits: list[tuple[float, float]],
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
    visitors = await visit_all(turns, visits)
    assert most_in_a_second(list(visitors.given.values())) <= per_second
    assert visitors.order == sorted(visitors.order)
    assert all(time <= visitors.deadlines[number] for number, time in visitors.given.items())
    assert len(visitors.given) + len(visitors.refused) == len(visits)
    assert all(visits[number][1] < FOREVER for number in visitors.refused), "who waits for ever is served"


@pytest.mark.parametrize("per_second", [1, 2, 8, 30])
@on_virtual_time
async def test_a_crowd_leaves_in_trains(per_second: int) -> None:
    begin = now()
    visitors = await visit_all(Turns(per_second, now), [(0.0, FOREVER)] * (3 * per_second))
    expected, chosen = [], pace(per_second)
    for number in range(3 * per_second):
        train, place = divmod(number, chosen.train)
        period = chosen.length_seconds(chosen.train) + chosen.gap_seconds
        expected.append(train * period + chosen.length_seconds(place + 1))
    assert [time - begin for time in visitors.given.values()] == pytest.approx(expected)


@on_virtual_time
async def test_whoever_has_no_time_left_is_told_at_once_and_costs_nobody_a_turn() -> None:
    begin = now()
    visits = [(0.0, FOREVER), (0.0, WINDOW_SECONDS / 2), (0.0, 0.0), (0.0, -1.0), (0.0, FOREVER)]
    visitors = await visit_all(Turns(1, now), visits)
    assert visitors.given == pytest.approx({0: begin, 4: begin + WINDOW_SECONDS})
    assert visitors.refused == dict.fromkeys([1, 2, 3], begin)


async def turns_of(turns: Turns, messages: dict[str, int], most: int) -> list[str]:
    """Let each message ask for this many turns, one message after the other; return the owners of the first turns."""
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
async def test_turns_go_round_between_messages(messages: dict[str, int], order: str) -> None:
    turns = Turns(3, now)
    for _ in range(2):  # the next invocation begins the round again
        async with turns.invocation():
            assert await turns_of(turns, messages, 8) == order.split()


@on_virtual_time
async def test_an_invocation_without_time_gets_no_turn_though_one_is_free() -> None:
    turns = Turns(1, now)
    with pytest.raises(NoTimeLeft) as refused:
        await turns.take(lambda: -0.001)
    assert refused.value.code == "NoTimeLeft"
    assert refused.value.message == "no time for this call's turn is left, so the message is tried again"
    assert await turns.take(lambda: 0.0)


@on_virtual_time
async def test_whoever_is_cancelled_lets_the_next_one_in() -> None:
    visitors = Visitors(Turns(1, now))
    visiting = [asyncio.create_task(visitors.visit()) for _ in range(4)]
    await asyncio.sleep(0.1)
    visiting[1].cancel()  # it is next
    visiting[2].cancel()  # it waits behind
    await asyncio.gather(*visiting, return_exceptions=True)
    assert visitors.order == [0, 3]
    assert visitors.given[3] - visitors.given[0] == pytest.approx(WINDOW_SECONDS)


class TestAnInvocation:
    @staticmethod
    async def took(turns: Turns, requests: int, seconds: float) -> float:
        began = now()
        async with turns.invocation():
            await asyncio.gather(*(taken(turns, seconds) for _ in range(requests)))
        return now() - began

    @on_virtual_time
    async def test_ends_a_gap_after_its_last_request_but_for_the_next_one_s_lead(self) -> None:
        turns = Turns(30, now)
        for _ in range(3):
            await self.took(turns, 10, 0.02)
        length = LEAD_SECONDS + pace(30).length_seconds(10)
        assert await self.took(turns, 10, 0.02) == pytest.approx(length - LEAD_SECONDS + GAP_SECONDS)
        assert await self.took(turns, 1, 0.02) == pytest.approx(GAP_SECONDS)
        assert await self.took(turns, 1, 0.3) == pytest.approx(0.28 + GAP_SECONDS)

    @on_virtual_time
    async def test_without_a_request_ends_at_once(self) -> None:
        turns = Turns(30, now)
        assert await self.took(turns, 0, 0.0) == 0
        began = now()
        async with turns.invocation():
            (await turns.take(lambda: FOREVER)).give_up()
        assert now() - began == pytest.approx(LEAD_SECONDS)

    @on_virtual_time
    async def test_that_fails_waits_all_the_same(self) -> None:
        turns = Turns(30, now)
        began = now()

        async def fail() -> None:
            async with turns.invocation():
                await taken(turns)
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await fail()
        assert now() - began == pytest.approx(GAP_SECONDS)

    @on_virtual_time
    async def test_is_the_same_whatever_came_before(self) -> None:
        """Another environment may have served the previous invocation, and may serve the next."""
        turns = Turns(30, now)
        lasted = [await self.took(turns, requests, 0.02) for requests in (10, 10, 10, 1, 30, 10, 10)]
        assert lasted[-1] == lasted[-2] == lasted[2]


class TestSlowingDown:
    @pytest.mark.parametrize(
        ("refusals", "slower"),
        [([], 1), ([0.0], 2), ([0.0, 0.0, 0.5], 2), ([0.0, 1.1], 3.8), ([0.0, 1.1, 2.2, 3.3], MOST_SLOWED)],
    )
    @on_virtual_time
    async def test_each_burst_of_refusals_halves_the_rate(self, refusals: list[float], slower: float) -> None:
        turns = Turns(30, now)
        for after in refusals:
            asyncio.get_running_loop().call_later(after, turns.slow_down)
        await asyncio.sleep(refusals[-1] if refusals else 0)
        began = now()
        async with turns.invocation():
            for _ in range(10):
                (await turns.take(lambda: FOREVER)).give_up()
        length = now() - began - LEAD_SECONDS
        assert length / pace(30).length_seconds(10) == pytest.approx(slower, rel=0.1)

    @on_virtual_time
    async def test_an_invocation_ends_later(self) -> None:
        turns = Turns(30, now)
        turns.slow_down()
        began = now()
        async with turns.invocation():
            await taken(turns)
        assert now() - began == pytest.approx(2 * GAP_SECONDS, rel=0.05)

    @pytest.mark.parametrize("per_second", [1, 2, 3, 8, 30])
    @on_virtual_time
    async def test_a_slow_rate_is_one_turn_a_second_at_least(self, per_second: int) -> None:
        turns = Turns(per_second, now)
        for after in range(0, 10, 2):
            asyncio.get_running_loop().call_later(after, turns.slow_down)
        await asyncio.sleep(8)
        visitors = await visit_all(turns, [(0.0, FOREVER)] * 2)
        first, second = visitors.given.values()
        assert second - first <= WINDOW_SECONDS + 0.001

    @on_virtual_time
    async def test_the_rate_recovers(self) -> None:
        turns = Turns(30, now)
        turns.slow_down()
        await asyncio.sleep(RECOVERY_SECONDS)
        visitors = await visit_all(turns, [(0.0, FOREVER)] * 10)
        times = list(visitors.given.values())
        assert times[-1] - times[0] == pytest.approx(pace(30).length_seconds(10))


async def taken(turns: Turns, seconds: float = 0.0) -> Turn:
    """Take a turn, send its request, and end it after so long."""
    turn = await turns.take(lambda: FOREVER)
    turn.send()
    await asyncio.sleep(seconds)
    turn.end()
    return turn


class TestFromWhenATurnCounts:
    """One turn per second: the next one shows when the first has ceased to count."""

    @staticmethod
    async def waited(first: Callable[[Turns], Coroutine[Any, Any, object]]) -> float:
        turns = Turns(1, now)
        for _ in range(2):  # so that a fastest answer is known: 0.2 s
            await taken(turns, 0.2)
        await asyncio.sleep(10)
        began = now()
        await first(turns)
        await turns.take(lambda: FOREVER)
        return now() - began

    @on_virtual_time
    async def test_from_its_sending_if_the_answer_is_as_fast_as_any(self) -> None:
        async def first(turns: Turns) -> None:
            turn = await turns.take(lambda: FOREVER)
            await asyncio.sleep(0.5)  # a busy machine sends it late
            turn.send()
            await asyncio.sleep(0.2)
            turn.end()

        assert await self.waited(first) == pytest.approx(0.5 + WINDOW_SECONDS)

    @on_virtual_time
    async def test_from_when_it_must_have_arrived_if_the_answer_is_slower(self) -> None:
        assert await self.waited(lambda turns: taken(turns, 0.9)) == pytest.approx(0.7 + WINDOW_SECONDS)

    @on_virtual_time
    async def test_from_its_end_if_no_answer_comes(self) -> None:
        async def first(turns: Turns) -> None:
            turn = await turns.take(lambda: FOREVER)
            turn.send()
            await asyncio.sleep(7)
            turn.give_up()

        assert await self.waited(first) == pytest.approx(7 + WINDOW_SECONDS)

    @on_virtual_time
    async def test_as_long_as_it_is_under_way(self) -> None:
        async def first(turns: Turns) -> None:
            turn = await turns.take(lambda: FOREVER)
            turn.send()
            asyncio.get_running_loop().call_later(3, turn.end)

        # A waiting invocation checks from time to time.
        assert await self.waited(first) == pytest.approx(2.8 + WINDOW_SECONDS, abs=0.03)

    @on_virtual_time
    async def test_from_its_end_while_no_fastest_answer_is_known(self) -> None:
        began = now()
        turns = Turns(1, now)
        await taken(turns, 0.2)
        await turns.take(lambda: FOREVER)
        assert now() - began == pytest.approx(0.2 + WINDOW_SECONDS)

    @pytest.mark.parametrize(
        ("per_second", "slower_ones", "lost_seconds"), [(1, 6, 0.4), (1, 7, 0.0), (2, 13, 0.4), (2, 15, 0.0)]
    )
    @on_virtual_time
    async def test_one_fast_answer_of_long_ago_slows_nothing_down(
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


class TestSpending:
    def test_the_request_s_answer_is_returned_and_its_time_noted(self) -> None:
        clock, noted = iter([1.0, 3.5]), list[float]()
        turn = Turn(lambda: next(clock), noted.append)

        def request(what: str, sending: Callable[[], None]) -> str:
            sending()
            return what

        assert turn.spend(request, "ok") == "ok"
        turn.give_up()
        assert noted == [2.5]
        assert turn.counts_from(fastest_seconds=2.0) == 1.5

    @pytest.mark.parametrize("sends", [True, False])
    def test_a_request_without_an_answer_is_not_taken_for_a_fast_one(self, sends: bool) -> None:
        clock, noted = iter([1.0, 3.5] if sends else [3.5]), list[float]()
        turn = Turn(lambda: next(clock), noted.append)

        def request(sending: Callable[[], None]) -> None:
            if sends:
                sending()
            raise ConnectionError

        with pytest.raises(ConnectionError):
            turn.spend(request)
        assert noted == []
        assert turn.counts_from(fastest_seconds=2.0) == (3.5 if sends else -math.inf)

    def test_an_answer_to_a_request_that_was_never_sent_says_nothing_of_the_api(self) -> None:
        noted = list[float]()
        turn = Turn(lambda: 3.5, noted.append)
        assert turn.spend(lambda sending: "from a cache") == "from a cache"  # noqa: ARG005 - it does not send
        assert noted == []
        assert turn.counts_from(fastest_seconds=2.0) == -math.inf


@dataclass(frozen=True)
class Journey:
    """The delays of a request: before it is sent, on its way, and of its answer; and whether there is one."""

    before: float
    there: float
    back: float
    answered: bool


@dataclass(frozen=True)
class Invocation:
    """A batch of messages for one of the environments that are free, some time after the one before in its slot."""

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
    """The API counts arrivals. Every third request loses nothing on its way, so it is the fastest.

    Otherwise the bound would be off by the loss of the fastest.
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
