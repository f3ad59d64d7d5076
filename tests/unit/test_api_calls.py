import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

import pytest

from segments.api_calls import Calls
from segments.circuit import MOST_SILENCES, OPEN_SECONDS, Circuit
from segments.errors import (
    CircuitOpen,
    ConnectionLost,
    CredentialsRefused,
    InvalidMessage,
    KeyRenewed,
    NoAnswer,
    NoTimeLeft,
    Rejected,
    Retryable,
    StopError,
    TooManyRequests,
)
from segments.pace import WINDOW_SECONDS, Turns
from tests.unit.test_pace import FOREVER, now, on_virtual_time

OK = "the answer"
ANSWER_SECONDS = 0.25


@dataclass
class Caller:
    """Calls on a virtual clock, and an API with configured answers: a class of error, or OK."""

    per_second: int = 10_000
    answers: list[type[StopError] | str] = field(default_factory=list)
    silent: bool = False
    has_key: bool = True
    attempts: list[float] = field(default_factory=list)
    arguments: list[tuple[object, ...]] = field(default_factory=list)
    measured: list[tuple[str, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.begin = now()
        self.turns = Turns(self.per_second, now)
        self.calls = Calls(
            self.turns,
            Circuit(now),
            self._in_thread,
            now,
            lambda name, value: self.measured.append((name, value)),
        )

    def api(self, *arguments: object) -> str:
        if not self.has_key:
            raise CredentialsRefused("SecretUnavailable", "the secret cannot be read")
        sending = cast("Callable[[], None]", arguments[-1])
        sending()
        self.arguments.append(arguments[:-1])
        answer = NoAnswer if self.silent else self.answers.pop(0) if self.answers else OK
        if isinstance(answer, str):
            return answer
        raise answer("Code", "It did not work.")

    async def _in_thread(self, function: Callable[..., str], *arguments: object) -> str:
        self.attempts.append(now() - self.begin)
        try:
            return function(*arguments)
        finally:
            await asyncio.sleep(ANSWER_SECONDS)  # the answer is noticed only after this time

    async def call(self, patience: float = FOREVER) -> str | type[BaseException]:
        """Make a call; return the answer, or the exception."""
        deadline = now() + patience
        try:
            answer: str = await self.calls.make(self.api, "task", 1, seconds_left=lambda: deadline - now())
        except Exception as error:  # noqa: BLE001 - whatever it is, the test compares it
            return type(error)
        return answer

    async def call_often(self, count: int) -> list[str | type[BaseException]]:
        return await asyncio.gather(*(self.call() for _ in range(count)))


@pytest.mark.parametrize(
    ("answers", "attempts", "end"),
    [
        ([OK], 1, OK),
        ([ConnectionLost, OK], 2, OK),
        ([KeyRenewed, OK], 2, OK),
        ([ConnectionLost, KeyRenewed, OK], 3, OK),
        ([KeyRenewed, ConnectionLost, OK], 3, OK),
        ([ConnectionLost, ConnectionLost], 2, ConnectionLost),
        ([KeyRenewed, KeyRenewed], 2, KeyRenewed),
        ([ConnectionLost, KeyRenewed, ConnectionLost], 3, ConnectionLost),
        ([KeyRenewed, ConnectionLost, KeyRenewed], 3, KeyRenewed),
        ([ConnectionLost, Rejected], 2, Rejected),
        ([KeyRenewed, CredentialsRefused], 2, CredentialsRefused),
        *(([kind], 1, kind) for kind in (Retryable, Rejected, CredentialsRefused, NoAnswer, TooManyRequests)),
        ([InvalidMessage], 1, InvalidMessage),
    ],
)
@on_virtual_time
async def test_a_lost_connection_and_a_renewed_key_are_each_tried_again_once(
    answers: list[type[StopError] | str], attempts: int, end: object
) -> None:
    caller = Caller(answers=list(answers))
    assert await caller.call() == end
    assert caller.attempts == [ANSWER_SECONDS * number for number in range(attempts)]
    assert caller.arguments == [("task", 1)] * attempts


@on_virtual_time
async def test_an_attempt_that_would_begin_too_late_is_not_made() -> None:
    caller = Caller(per_second=1, answers=[ConnectionLost, OK])
    assert await caller.call(patience=WINDOW_SECONDS / 2) is NoTimeLeft
    assert len(caller.attempts) == 1


class TestMeasuring:
    @on_virtual_time
    async def test_an_attempt_is_measured_with_its_wait_and_its_latency_in_milliseconds(self) -> None:
        caller = Caller(per_second=1)
        await caller.call_often(2)
        assert caller.measured == [
            ("TurnWait", 0),
            ("ApiLatency", pytest.approx(1000 * ANSWER_SECONDS)),
            ("TurnWait", pytest.approx(1000 * WINDOW_SECONDS)),
            ("ApiLatency", pytest.approx(1000 * ANSWER_SECONDS)),
        ]

    @pytest.mark.parametrize(
        ("answers", "names"),
        [
            ([Rejected], ["TurnWait", "ApiLatency"]),
            ([NoAnswer], ["TurnWait", "ApiLatency"]),
            ([TooManyRequests], ["TurnWait", "ApiThrottled", "ApiLatency"]),
            ([ConnectionLost, OK], ["TurnWait", "ApiLatency"] * 2),
        ],
    )
    @on_virtual_time
    async def test_a_failed_attempt_is_measured_too(
        self, answers: list[type[StopError] | str], names: list[str]
    ) -> None:
        caller = Caller(answers=list(answers))
        await caller.call()
        assert [name for name, _ in caller.measured] == names
        assert dict(caller.measured).get("ApiThrottled", 1) == 1


@pytest.mark.parametrize(("answer", "slower"), [(OK, 1.0), (Retryable, 1.0), (TooManyRequests, 2.0)])
@on_virtual_time
async def test_an_answer_of_too_many_requests_halves_the_rate(answer: type[StopError] | str, slower: float) -> None:
    caller = Caller(per_second=30, answers=[answer] * 10)
    for _ in range(2):
        async with caller.turns.invocation():
            await caller.call_often(10)
    first, second = (caller.attempts[start + 9] - caller.attempts[start] for start in (0, 10))
    assert second == pytest.approx(slower * first, rel=0.05)


class TestSilence:
    @on_virtual_time
    async def test_calls_are_not_made_if_the_api_becomes_silent_while_they_wait(self) -> None:
        caller = Caller(per_second=1, silent=True)
        ends = await caller.call_often(2 * MOST_SILENCES)
        assert ends == [NoAnswer] * MOST_SILENCES + [CircuitOpen] * MOST_SILENCES
        assert len(caller.attempts) == MOST_SILENCES
        assert len(caller.measured) == 2 * MOST_SILENCES
        await asyncio.sleep(OPEN_SECONDS)
        began = now()
        assert await caller.call_often(2) == [NoAnswer, CircuitOpen]
        assert now() - began == ANSWER_SECONDS  # while one call tries the API, the other fails at once

    @pytest.mark.parametrize("answer", [OK, Rejected, Retryable, TooManyRequests, ConnectionLost, CredentialsRefused])
    @on_virtual_time
    async def test_any_answer_ends_a_series_of_silences(self, answer: type[StopError] | str) -> None:
        silences: list[type[StopError] | str] = [NoAnswer] * (MOST_SILENCES - 1)
        caller = Caller(answers=[*silences, answer, *silences])
        for _ in range(2 * MOST_SILENCES - 1):
            await caller.call()
        assert await caller.call() == OK

    @on_virtual_time
    async def test_a_call_without_a_request_does_not_change_the_circuit(self) -> None:
        caller = Caller(silent=True)
        await caller.call_often(MOST_SILENCES - 1)
        caller.has_key = False
        measured = len(caller.measured)
        assert await caller.call() is CredentialsRefused
        assert [name for name, _ in caller.measured[measured:]] == ["TurnWait"]
        caller.has_key = True
        assert [await caller.call(), await caller.call()] == [NoAnswer, CircuitOpen]

    @on_virtual_time
    async def test_a_cancelled_call_does_not_change_the_circuit(self) -> None:
        caller = Caller(silent=True)
        await caller.call_often(MOST_SILENCES - 1)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(caller.call(), ANSWER_SECONDS / 2)
        assert [await caller.call(), await caller.call()] == [NoAnswer, CircuitOpen]

    @on_virtual_time
    async def test_a_call_without_time_left_does_not_open_the_circuit(self) -> None:
        caller = Caller()
        for _ in range(MOST_SILENCES):
            assert await caller.call(patience=-1) is NoTimeLeft
        assert not caller.measured
        assert await caller.call() == OK
