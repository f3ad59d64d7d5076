from collections.abc import Callable
from dataclasses import dataclass

import pytest

from segments.circuit import MOST_SILENCES, OPEN_SECONDS, Circuit
from segments.errors import CircuitOpen, Retryable


@dataclass
class Clock:
    now: float = 1_000.0

    def __call__(self) -> float:
        return self.now


def passes(step: Callable[[], None]) -> bool:
    try:
        step()
    except CircuitOpen:
        return False
    return True


def silent(clock: Clock, silences: int = MOST_SILENCES) -> Circuit:
    circuit = Circuit(clock)
    for _ in range(silences):
        assert passes(circuit.enter)
        circuit.note(answered=False)
    return circuit


def test_ten_silences_in_a_row_open_the_circuit() -> None:
    assert MOST_SILENCES == 10
    assert passes(silent(Clock(), 9).enter)
    assert not passes(silent(Clock(), 10).check)
    with pytest.raises(CircuitOpen) as raised:
        silent(Clock(), 10).enter()
    assert isinstance(raised.value, Retryable)
    assert str(raised.value) == "CircuitOpen: the API did not answer the last calls: try this call later"


def test_one_call_every_ten_seconds_tries_again() -> None:
    clock = Clock()
    circuit = silent(clock)
    let_in = []
    for second in range(1, 36):
        clock.now = 1_000.0 + second
        for _ in range(2):
            if passes(circuit.enter):
                let_in.append(second)
                circuit.note(answered=False)
    assert let_in == [10, 20, 30]


def test_the_ten_seconds_begin_with_the_tenth_silence() -> None:
    clock = Clock()
    circuit = silent(clock, MOST_SILENCES - 1)
    clock.now += OPEN_SECONDS - 1
    circuit.note(answered=False)
    clock.now += OPEN_SECONDS - 1
    assert not passes(circuit.enter)
    clock.now += 1
    assert passes(circuit.enter)


def test_only_one_call_tries_again_at_a_time() -> None:
    clock = Clock()
    circuit = silent(clock)
    clock.now += OPEN_SECONDS
    assert [passes(circuit.check) for _ in range(3)] == [True] * 3  # a check is not a trial
    assert [passes(circuit.enter) for _ in range(3)] == [True, False, False]
    assert not passes(circuit.check)


def test_the_answer_to_an_earlier_call_closes_the_circuit() -> None:
    circuit = silent(Clock())
    circuit.note(answered=True)
    assert passes(circuit.enter)


def test_a_trial_without_a_result_does_not_block_the_next_one() -> None:
    clock = Clock()
    circuit = silent(clock)
    for _ in range(3):
        clock.now += OPEN_SECONDS
        assert passes(circuit.enter)
