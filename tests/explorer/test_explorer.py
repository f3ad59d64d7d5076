"""All histories of small worlds keep the promises, and the explorer finds each break of the code.

These tests walk the first histories of each world; `make explore` walks many more.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.explorer.breaks import BREAKS, Break
from tests.explorer.explore import ALL, explore
from tests.explorer.promises import CASES, DELAYED, REMEMBERED, UNRECORDED, UNSEEN, UNSENT
from tests.explorer.scheduler import FAULT, FREE, PREEMPTION, Budget, Walk
from tests.explorer.waiting import UNSURE, Waiting
from tests.explorer.worlds import World

MOST_HISTORIES = 18  # `make explore` walks hundreds of times as many
MOST_UNTIL_FOUND = 2_000
DOCS = Path(__file__).parents[2] / "docs"
DESIGN = (DOCS / "design.md").read_text()


def world_named(name: str) -> World | Waiting:
    (world,) = [world for world in ALL if world.name == name]
    return world


@pytest.mark.parametrize("budget", [PREEMPTION, FAULT], ids=["held up", "fault"])
@pytest.mark.parametrize("world", ALL, ids=lambda world: world.name)
def test_promises_hold_in_every_history(world: World | Waiting, budget: Budget) -> None:
    walk = explore(world, budget, lambda walk: walk.histories >= MOST_HISTORIES)
    assert walk.histories
    assert [str(violation) for violation in walk.violations.values()] == []


@pytest.mark.parametrize("broken", BREAKS, ids=lambda broken: broken.name)
def test_the_explorer_finds_each_planted_fault(broken: Break) -> None:
    def is_found(walk: Walk) -> bool:
        return any(broken.found in sentence for violation in walk.violations for sentence in violation)

    with broken.patched():
        walk = explore(
            world_named(broken.world),
            broken.budget,
            lambda walk: is_found(walk) or walk.histories >= MOST_UNTIL_FOUND,
        )
    assert is_found(walk), f"not found in {walk.histories} histories, but {list(walk.violations)}"


@pytest.mark.parametrize(
    ("case", "name", "budget"),
    [
        (UNSENT, "a session whose start is not reported", FREE),
        (DELAYED, "a session whose start is not reported", PREEMPTION),
        (UNRECORDED, "a session whose start is reported", FAULT),
        (UNSEEN, "two sessions and their slices", FREE),
        (REMEMBERED, "two sessions and their slices", FREE),
        (UNSURE, "a workflow waits: the API is down until the last attempt", FAULT),
    ],
)
def test_each_documented_exception_happens(case: str, name: str, budget: Budget) -> None:
    assert explore(world_named(name), budget, lambda walk: walk.allowed[case] > 0).allowed[case]


@pytest.mark.parametrize("case", CASES)
def test_design_page_lists_each_exception(case: str) -> None:
    assert f"\n| {case} |" in DESIGN


def test_workflows_page_names_its_exception() -> None:
    assert UNSURE in " ".join((DOCS / "workflows.md").read_text().split())


def test_two_walks_of_a_world_are_the_same() -> None:
    walks = [explore(world_named("two tasks"), PREEMPTION) for _ in range(2)]
    assert walks[0].histories == walks[1].histories > 100
