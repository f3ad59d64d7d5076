import asyncio
import selectors
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stop_segment.errors import NoTimeLeft
from stop_segment.turns import RECOVERY_SECONDS, WINDOW_SECONDS, Turn, Turns

FOREVER = 1e9


class _SkippingSelector(selectors.SelectSelector):
    """Passes the time at once where a loop would wait for it."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1_000.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.now += timeout or 0
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock moves only when everything waits, and by leaps that stand for a freeze."""

    def __init__(self) -> None:
        self._skipping = _SkippingSelector()
        super().__init__(self._skipping)

    def time(self) -> float:
        return self._skipping.now

    def freeze(self, seconds: float) -> None:
        self._skipping.now += seconds


def run(main: Callable[[VirtualLoop], Coroutine[Any, Any, None]]) -> None:
    loop = VirtualLoop()
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(main(loop))


@dataclass
class Visitors:
    """Who takes turns, in order of arrival, and what became of each: when the turn came, or None for no time left."""

    loop: VirtualLoop
    turns: Turns
    order: list[int] = field(default_factory=list)
    given: dict[int, float] = field(default_factory=dict)
    refused: dict[int, float] = field(default_factory=dict)
    deadlines: dict[int, float] = field(default_factory=dict)

    async def visit(self, patience: float = FOREVER) -> None:
        number = len(self.deadlines)
        self.deadlines[number] = self.loop.time() + patience
        try:
            turn = await self.turns.take(lambda: self.deadlines[number] - self.loop.time())
            turn.send()
            turn.end()
        except NoTimeLeft:
            self.refused[number] = self.loop.time()
        else:
            self.order.append(number)
            self.given[number] = self.loop.time()

    def most_in_a_second(self) -> int:
        times = sorted(self.given.values())
        return max((sum(start <= time < start + 1 for time in times) for start in times), default=0)


async def visit_all(loop: VirtualLoop, turns: Turns, visits: list[tuple[float, float]]) -> Visitors:
    """Let visitors come after pauses, each with its patience, and wait until all are done."""
    visitors = Visitors(loop, turns)
    visiting = []
    for pause, patience in visits:
        await asyncio.sleep(pause)
        visiting.append(asyncio.create_task(visitors.visit(patience)))
        await asyncio.sleep(0)
    await asyncio.gather(*visiting)
    return visitors


PAUSES = st.sampled_from([0.0, 0.0, 0.001, 0.5, 1.0, WINDOW_SECONDS]) | st.floats(0, 3)
PATIENCE = st.just(FOREVER) | st.floats(-1, 5)
VISITS = st.lists(st.tuples(PAUSES, PATIENCE), max_size=40)
FREEZES = st.lists(st.tuples(st.floats(0, 20), st.floats(0, 1_000)), max_size=3)


class TestAnyArrivals:
    @given(st.integers(1, 12), VISITS, FREEZES)
    def test_no_second_has_more_turns_than_allowed(
        self, per_second: int, visits: list[tuple[float, float]], freezes: list[tuple[float, float]]
    ) -> None:
        async def main(loop: VirtualLoop) -> None:
            for after, seconds in freezes:
                loop.call_later(after, loop.freeze, seconds)
            visitors = await visit_all(loop, Turns(per_second, loop.time), visits)
            assert visitors.most_in_a_second() <= per_second
            assert len(visitors.given) + len(visitors.refused) == len(visits)

        run(main)

    @given(st.integers(1, 5), VISITS, FREEZES)
    def test_first_come_first_served(
        self, per_second: int, visits: list[tuple[float, float]], freezes: list[tuple[float, float]]
    ) -> None:
        async def main(loop: VirtualLoop) -> None:
            for after, seconds in freezes:
                loop.call_later(after, loop.freeze, seconds)
            visitors = await visit_all(loop, Turns(per_second, loop.time), visits)
            assert visitors.order == sorted(visitors.order)

        run(main)

    @given(st.integers(1, 5), VISITS, FREEZES)
    def test_a_turn_never_comes_after_its_deadline(
        self, per_second: int, visits: list[tuple[float, float]], freezes: list[tuple[float, float]]
    ) -> None:
        async def main(loop: VirtualLoop) -> None:
            for after, seconds in freezes:
                loop.call_later(after, loop.freeze, seconds)
            visitors = await visit_all(loop, Turns(per_second, loop.time), visits)
            assert all(time <= visitors.deadlines[number] for number, time in visitors.given.items())
            # Who waits for ever is served.
            assert all(visits[number][1] < FOREVER for number in visitors.refused)

        run(main)

    @given(st.integers(1, 5), st.lists(PAUSES, max_size=30), st.floats(0, 2))
    def test_a_sleep_that_ends_too_early_or_too_late_does_no_harm(
        self, per_second: int, pauses: list[float], factor: float
    ) -> None:
        async def main(loop: VirtualLoop) -> None:
            async def sleep(seconds: float) -> None:
                await asyncio.sleep(max(0.01, seconds * factor))

            visitors = await visit_all(loop, Turns(per_second, loop.time, sleep), [(p, FOREVER) for p in pauses])
            assert visitors.most_in_a_second() <= per_second
            assert visitors.order == list(range(len(pauses)))

        run(main)


@pytest.mark.parametrize("per_second", [1, 2, 30])
def test_a_crowd_is_served_as_fast_as_is_allowed(per_second: int) -> None:
    async def main(loop: VirtualLoop) -> None:
        begin = loop.time()
        visitors = await visit_all(loop, Turns(per_second, loop.time), [(0.0, FOREVER)] * (3 * per_second))
        waits = [time - begin for time in visitors.given.values()]
        assert waits == pytest.approx([number // per_second * WINDOW_SECONDS for number in range(3 * per_second)])

    run(main)


def test_whoever_has_no_time_left_is_told_at_once() -> None:
    async def main(loop: VirtualLoop) -> None:
        begin = loop.time()
        visits = [(0.0, FOREVER), (0.0, WINDOW_SECONDS / 2), (0.0, 0.0), (0.0, -1.0)]
        visitors = await visit_all(loop, Turns(1, loop.time), visits)
        assert visitors.given == {0: begin}
        assert visitors.refused == dict.fromkeys([1, 2, 3], begin)

    run(main)


def test_an_invocation_without_time_gets_no_turn_though_one_is_free() -> None:
    async def main(loop: VirtualLoop) -> None:
        visitors = await visit_all(loop, Turns(1, loop.time), [(0.0, -0.001)])
        assert not visitors.given

    run(main)


def test_whoever_gives_up_costs_nobody_a_turn() -> None:
    async def main(loop: VirtualLoop) -> None:
        begin = loop.time()
        visitors = await visit_all(loop, Turns(1, loop.time), [(0.0, FOREVER), (0.0, 0.5), (0.0, FOREVER)])
        assert visitors.given == pytest.approx({0: begin, 2: begin + WINDOW_SECONDS})

    run(main)


def test_a_deadline_that_passed_in_a_freeze_is_noticed_after_it() -> None:
    async def main(loop: VirtualLoop) -> None:
        loop.call_later(0.5, loop.freeze, 900)
        visitors = await visit_all(loop, Turns(1, loop.time), [(0.0, FOREVER), (0.0, 10.0), (0.0, 1_000.0)])
        assert list(visitors.given) == [0, 2]

    run(main)


def test_whoever_is_cancelled_lets_the_next_one_in() -> None:
    async def main(loop: VirtualLoop) -> None:
        visitors = Visitors(loop, Turns(1, loop.time))
        visiting = [asyncio.create_task(visitors.visit()) for _ in range(4)]
        await asyncio.sleep(0.1)
        visiting[1].cancel()  # it is next
        visiting[2].cancel()  # it waits behind
        await asyncio.gather(*visiting, return_exceptions=True)
        assert visitors.order == [0, 3]
        assert visitors.given[3] - visitors.given[0] == pytest.approx(WINDOW_SECONDS)

    run(main)


def test_turns_outlive_an_invocation() -> None:
    loop = VirtualLoop()
    turns = Turns(2, loop.time)
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        first = runner.run(visit_all(loop, turns, [(0.0, FOREVER)] * 3))
        second = runner.run(visit_all(loop, turns, [(0.0, FOREVER)] * 3))
    times = [*first.given.values(), *second.given.values()]
    assert [time - times[0] for time in times] == pytest.approx([i // 2 * WINDOW_SECONDS for i in range(6)])


class TestSlowingDown:
    @given(st.integers(1, 12), VISITS, st.lists(st.floats(0, 20), max_size=10))
    def test_no_second_has_more_turns_than_allowed(
        self, per_second: int, visits: list[tuple[float, float]], refusals: list[float]
    ) -> None:
        async def main(loop: VirtualLoop) -> None:
            turns = Turns(per_second, loop.time)
            for after in refusals:
                loop.call_later(after, turns.slow_down)
            visitors = await visit_all(loop, turns, visits)
            assert visitors.most_in_a_second() <= per_second
            assert visitors.order == sorted(visitors.order)
            assert all(visits[number][1] < FOREVER for number in visitors.refused)

        run(main)

    @pytest.mark.parametrize(
        ("refusals", "turns_at_once"), [([], 16), ([0.0], 8), ([0.0, 0.0, 0.5], 8), ([0.0, 1.1], 4)]
    )
    def test_each_burst_of_refusals_halves_the_rate(self, refusals: list[float], turns_at_once: int) -> None:
        async def main(loop: VirtualLoop) -> None:
            turns = Turns(16, loop.time)
            for after in refusals:
                loop.call_later(after, turns.slow_down)
            await asyncio.sleep(refusals[-1] if refusals else 0)
            visitors = await visit_all(loop, turns, [(0.0, 0.0)] * 20)
            assert len(visitors.given) == turns_at_once

        run(main)

    def test_a_slow_rate_is_one_turn_at_least(self) -> None:
        async def main(loop: VirtualLoop) -> None:
            turns = Turns(1, loop.time)
            turns.slow_down()
            visitors = await visit_all(loop, turns, [(0.0, FOREVER)] * 2)
            assert len(visitors.given) == 2

        run(main)

    def test_the_rate_recovers(self) -> None:
        async def main(loop: VirtualLoop) -> None:
            turns = Turns(16, loop.time)
            turns.slow_down()
            await asyncio.sleep(RECOVERY_SECONDS)
            visitors = await visit_all(loop, turns, [(0.0, 0.0)] * 20)
            assert len(visitors.given) == 16

        run(main)


async def taken(turns: Turns, seconds: float = 0.0) -> Turn:
    """Take a turn, send its request, and end it after so long."""
    turn = await turns.take(lambda: FOREVER)
    turn.send()
    await asyncio.sleep(seconds)
    turn.end()
    return turn


class TestFromWhenATurnCounts:
    """One turn a second: the second one tells when the first has ceased to count."""

    @staticmethod
    def waited(first: Callable[[Turns], Coroutine[Any, Any, object]]) -> float:
        waits = []

        async def main(loop: VirtualLoop) -> None:
            turns = Turns(1, loop.time)
            for _ in range(2):  # so that a fastest answer is known: 0.2 s
                await taken(turns, 0.2)
            await asyncio.sleep(10)
            began = loop.time()
            await first(turns)
            await turns.take(lambda: FOREVER)
            waits.append(loop.time() - began)

        run(main)
        return waits[0]

    def test_from_its_sending_if_the_answer_is_as_fast_as_any(self) -> None:
        async def first(turns: Turns) -> None:
            turn = await turns.take(lambda: FOREVER)
            await asyncio.sleep(0.5)  # a busy machine sends it late
            turn.send()
            await asyncio.sleep(0.2)
            turn.end()

        assert self.waited(first) == pytest.approx(0.5 + WINDOW_SECONDS)

    def test_from_when_it_must_have_arrived_if_the_answer_is_slower(self) -> None:
        assert self.waited(lambda turns: taken(turns, 0.9)) == pytest.approx(0.7 + WINDOW_SECONDS)

    def test_from_its_end_if_no_answer_comes(self) -> None:
        async def first(turns: Turns) -> None:
            turn = await turns.take(lambda: FOREVER)
            turn.send()
            await asyncio.sleep(7)
            turn.give_up()

        assert self.waited(first) == pytest.approx(7 + WINDOW_SECONDS)

    def test_as_long_as_it_is_under_way(self) -> None:
        async def first(turns: Turns) -> None:
            turn = await turns.take(lambda: FOREVER)
            turn.send()
            asyncio.get_running_loop().call_later(3, turn.end)

        # Whoever waits looks every now and then.
        assert self.waited(first) == pytest.approx(2.8 + WINDOW_SECONDS, abs=0.03)

    def test_from_its_end_while_no_fastest_answer_is_known(self) -> None:
        async def main(loop: VirtualLoop) -> None:
            began = loop.time()
            turns = Turns(1, loop.time)
            await taken(turns, 0.2)
            await turns.take(lambda: FOREVER)
            assert loop.time() - began == pytest.approx(0.2 + WINDOW_SECONDS)

        run(main)

    def test_one_fast_answer_of_long_ago_slows_nothing_down(self) -> None:
        async def main(loop: VirtualLoop) -> None:
            turns = Turns(1, loop.time)
            for seconds in [0.1] + [0.5] * 8:
                await taken(turns, seconds)
            await asyncio.sleep(10)
            began = loop.time()
            await taken(turns, 0.5)
            await turns.take(lambda: FOREVER)
            assert loop.time() - began == pytest.approx(WINDOW_SECONDS)

        run(main)


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
        assert turn.counts_until(0.0, fastest_seconds=2.0) == 1.5 + WINDOW_SECONDS

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
        assert turn.counts_until(0.0, fastest_seconds=2.0) == 3.5 + WINDOW_SECONDS

    def test_an_answer_to_a_request_that_was_never_sent_says_nothing_of_the_api(self) -> None:
        noted = list[float]()
        turn = Turn(lambda: 3.5, noted.append)
        assert turn.spend(lambda sending: "from a cache") == "from a cache"  # noqa: ARG005 - it does not send
        assert noted == []
        assert turn.counts_until(0.0, fastest_seconds=2.0) == 3.5 + WINDOW_SECONDS

    def test_whoever_looks_while_a_request_fails_sees_it_count_from_its_failure(self) -> None:
        class FailsWhileLookedAt(Turn):
            """Fails at the moment at which the time of sending is looked at, as another thread may let it."""

            looked_at = False

            def __getattribute__(self, name: str) -> Any:
                value = super().__getattribute__(name)
                if name == "_sent_at" and self.looked_at:
                    self.looked_at = False
                    self.give_up()
                return value

        clock = iter([100.0, 106.0])
        turn = FailsWhileLookedAt(lambda: next(clock), lambda _: None)
        turn.send()
        turn.looked_at = True
        assert turn.counts_until(105.99, fastest_seconds=2.0) > 105.99
        assert turn.counts_until(106.0, fastest_seconds=2.0) == 106.0 + WINDOW_SECONDS


@dataclass(frozen=True)
class Journey:
    """How a request fares: what it loses before it is sent, on its way, and as an answer; and whether there is one."""

    before: float
    there: float
    back: float
    answered: bool


LOSSES = st.sampled_from([0.0, 0.01, 0.3, 0.9, 3.0])
JOURNEYS = st.builds(Journey, before=LOSSES, there=LOSSES, back=LOSSES, answered=st.booleans())
FAST = Journey(0.0, 0.0, 0.0, answered=True)


class TestArrivals:
    """What the API counts is when requests arrive.

    Every third loses nothing on its way, so that it is the fastest. Where none did, the bound would be off by what the
    fastest lost.
    """

    @settings(max_examples=200)
    @given(
        st.integers(1, 4),
        st.sampled_from([0.0, 0.02, 0.5]),
        st.sampled_from([0.0, 0.2, 2.5]),
        st.lists(st.tuples(st.sampled_from([0.0, 0.0, 0.0, 0.3]), JOURNEYS), min_size=5, max_size=30),
    )
    def test_no_second_has_more_arrivals_than_allowed(
        self, per_second: int, way: float, work: float, requests: list[tuple[float, Journey]]
    ) -> None:
        arrivals: list[float] = []

        async def request(loop: VirtualLoop, turns: Turns, journey: Journey) -> None:
            turn = await turns.take(lambda: FOREVER)
            await asyncio.sleep(journey.before)
            turn.send()
            await asyncio.sleep(way + journey.there)
            arrivals.append(loop.time())
            if journey.answered:
                await asyncio.sleep(work + journey.back)
                turn.end()
            else:
                await asyncio.sleep(journey.back)  # a failure may be faster than any answer
                turn.give_up()

        async def main(loop: VirtualLoop) -> None:
            turns = Turns(per_second, loop.time)
            under_way = []
            for number, (pause, journey) in enumerate(requests):
                await asyncio.sleep(pause)
                under_way.append(asyncio.create_task(request(loop, turns, journey if number % 3 else FAST)))
            await asyncio.gather(*under_way)

        run(main)
        arrivals.sort()
        assert len(arrivals) == len(requests)
        assert all(later - earlier >= 1 for earlier, later in zip(arrivals, arrivals[per_second:], strict=False))
