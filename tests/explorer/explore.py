"""Runs the real code in every history of a world."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from unittest.mock import patch

from stop_segment import stopper
from tests.explorer.play import Played
from tests.explorer.promises import judge
from tests.explorer.scheduler import Budget, Loop, Walk, walk
from tests.explorer.waiting import WAITING, Waited, Waiting, function_environment
from tests.explorer.worlds import WORLDS, World
from tests.unit.rtc_model import watched_decide

ALL: tuple[World | Waiting, ...] = (*WORLDS, *WAITING)


def explore(world: World | Waiting, budget: Budget, until: Callable[[Walk], bool] = lambda _: False) -> Walk:
    """Walk every history of a world that the budget allows, or until `until` returns True."""
    if isinstance(world, Waiting):
        with function_environment() as module:
            return walk(lambda: Waited(world, module), budget, until)
    with closing(Loop()) as loop, patch.object(stopper, "decide", watched_decide):
        return walk(lambda: Played(world, loop, judge), budget, until)
