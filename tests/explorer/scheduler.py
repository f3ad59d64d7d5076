"""Walks every history of a world: each order of all actors' steps, and each fault, up to a bound.

A history is a list of choices. To walk all of them, the walk plays a world again and again. Each time it repeats the
last history up to the last choice with an alternative left, takes that alternative, and then always the first choice.
A state that was reached before with the same budget left, or more, is not walked again.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True)
class Budget:
    """The budget of a history.

    Parameters
    ----------
    preemptions
        How often an actor that could go on is held up while another actor goes on.
    faults
        The maximum number of crashes, failed calls, lost answers and repeated deliveries.
    """

    preemptions: int = 0
    faults: int = 0

    def affords(self, other: Budget) -> bool:
        return self.preemptions >= other.preemptions and self.faults >= other.faults

    def without(self, other: Budget) -> Budget:
        return Budget(self.preemptions - other.preemptions, self.faults - other.faults)


FREE, PREEMPTION, FAULT = Budget(), Budget(preemptions=1), Budget(faults=1)


@dataclass(frozen=True)
class Choice:
    """A possible next step, and its cost in the budget."""

    happen: Callable[[], None]
    cost: Budget = FREE


class Play(Protocol):
    """A world in play."""

    story: list[str]
    allowed: Counter[str]

    def choices(self) -> Sequence[Choice]:
        """Return the possible next steps, the free ones first; an empty list ends the history."""

    def state(self) -> Hashable:
        """Return everything that the rest of the history depends on."""

    def broken(self) -> Sequence[str]:
        """Return a sentence for each promise that the history has broken."""

    def end(self) -> None:
        """Release everything that the play holds."""


@dataclass(frozen=True)
class Violation:
    """A history that broke a promise."""

    broken: tuple[str, ...]
    story: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join([*self.broken, *(f"  {line}" for line in self.story)])


@dataclass
class Walk:
    """The results of a walk. If several histories break a promise in the same way, the walk keeps the shortest."""

    histories: int = 0
    violations: dict[tuple[str, ...], Violation] = field(default_factory=dict)
    allowed: Counter[str] = field(default_factory=Counter)
    _states: defaultdict[Hashable, list[Budget]] = field(default_factory=lambda: defaultdict(list))

    def forget_states(self) -> None:
        """Drop the states, because so many objects cannot be sent to another process."""
        self._states.clear()

    def is_known(self, state: Hashable, left: Budget) -> bool:
        budgets = self._states[state]
        if any(budget.affords(left) for budget in budgets):
            return True
        budgets.append(left)
        return False

    def note(self, violation: Violation) -> None:
        known = self.violations.get(violation.broken)
        if known is None or len(violation.story) < len(known.story):
            self.violations[violation.broken] = violation


def walk(begin: Callable[[], Play], budget: Budget, until: Callable[[Walk], bool] = lambda _: False) -> Walk:
    """Play a world in every way that the budget allows, or until `until` returns True."""
    found = Walk()
    path: list[int] | None = []
    while path is not None and not until(found):
        play = begin()
        try:
            path = _next(path, list(_play(play, path, budget, found)))
        finally:
            play.end()
            found.allowed.update(play.allowed)
    return found


def _play(play: Play, path: Sequence[int], left: Budget, found: Walk) -> Iterator[int]:
    """Play one history along the path, then with the first choices; yield the number of choices at each step."""
    picks = iter(path)
    while choices := [choice for choice in play.choices() if left.affords(choice.cost)]:
        choice = choices[0]
        if len(choices) > 1:
            pick = next(picks, None)
            if pick is None and found.is_known(play.state(), left):
                return
            yield len(choices)
            choice = choices[pick or 0]
        left = left.without(choice.cost)
        choice.happen()
        if broken := tuple(play.broken()):
            found.note(Violation(broken, tuple(play.story)))
            break
    found.histories += 1


def _next(path: Sequence[int], widths: Sequence[int]) -> list[int] | None:
    picks = [*path, *[0] * (len(widths) - len(path))]
    for number in reversed(range(len(picks))):
        if picks[number] + 1 < widths[number]:
            return [*picks[:number], picks[number] + 1]
    return None


class Loop(asyncio.SelectorEventLoop):
    """An event loop that can run until each of its tasks waits for an answer from outside."""

    def __init__(self) -> None:
        super().__init__()
        self._handed_over = 0

    def call_soon(self, *arguments: object, **options: object) -> asyncio.Handle:
        self._handed_over += 1
        return super().call_soon(*arguments, **options)  # type: ignore[arg-type]

    def settle(self) -> None:
        """Run until every task waits for an answer from outside the loop."""
        before = -1
        while self._handed_over != before:
            super().call_soon(self.stop)
            before = self._handed_over
            self.run_forever()
