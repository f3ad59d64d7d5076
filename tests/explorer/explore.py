"""The real code, in every history of a world."""

from __future__ import annotations

from collections.abc import Callable
from unittest.mock import patch

from stop_segment import stopper
from tests.explorer.play import Played
from tests.explorer.promises import judge
from tests.explorer.scheduler import Budget, Loop, Walk, walk
from tests.explorer.worlds import World
from tests.unit.rtc_model import watched_decide


def explore(world: World, budget: Budget, until: Callable[[Walk], bool] = lambda _: False) -> Walk:
    """Walk every history of a world that the budget allows, or until something is found."""
    loop = Loop()
    try:
        with patch.object(stopper, "decide", watched_decide):
            return walk(lambda: Played(world, loop, judge), budget, until)
    finally:
        loop.close()
