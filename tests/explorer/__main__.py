"""Walk every history of the small worlds: `python -m tests.explorer --help`."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed

import click

from tests.explorer.explore import ALL, explore
from tests.explorer.scheduler import Budget, Walk
from tests.explorer.waiting import Waiting
from tests.explorer.worlds import World


@click.command(epilog="Example: python -m tests.explorer --world 'two tasks' --preemptions 3 --faults 0 --most 100000")
@click.option("--preemptions", default=2, show_default=True, help="Maximum number of preemptions in a history.")
@click.option("--faults", default=1, show_default=True, help="Maximum number of faults in a history.")
@click.option("--world", "names", multiple=True, type=click.Choice([world.name for world in ALL]), help="Only these.")
@click.option("--processes", default=os.cpu_count(), show_default="one per processor", help="Number of parallel walks.")
@click.option("--most", default=3_000, show_default=True, help="Maximum number of histories of each world and budget.")
def main(preemptions: int, faults: int, names: tuple[str, ...], processes: int, most: int) -> None:
    """Walk the histories of small worlds, from those with the fewest preemptions and faults to those with the most.

    If histories break a promise, prints the shortest one of each kind and exits with 1.
    """
    began = time.monotonic()
    worlds = [world for world in ALL if not names or world.name in names]
    histories = cut = 0
    is_broken = False
    with ProcessPoolExecutor(processes) as executor:
        walks = {
            executor.submit(_walk, world, budget, most): (world, budget)
            for budget in _up_to(Budget(preemptions, faults))
            for world in worlds
        }
        for done in as_completed(walks):
            world, budget = walks[done]
            walk = done.result()
            histories += walk.histories
            cut += walk.histories >= most
            is_broken |= bool(walk.violations)
            _print(world, budget, walk, is_cut=walk.histories >= most)
    click.echo(
        f"{histories:,} histories in {time.monotonic() - began:.0f} s; {cut} of {len(walks)} walks were cut short"
    )
    sys.exit(is_broken)


def _up_to(budget: Budget) -> Iterator[Budget]:
    for faults in range(budget.faults + 1):
        for preemptions in range(budget.preemptions + 1):
            yield Budget(preemptions, faults)


def _walk(world: World | Waiting, budget: Budget, most: int) -> Walk:
    walk = explore(world, budget, lambda walk: walk.histories >= most)
    walk.forget_states()
    return walk


def _print(world: World | Waiting, budget: Budget, walk: Walk, *, is_cut: bool) -> None:
    spent = f"{budget.preemptions} preemptions, {budget.faults} faults"
    click.echo(f"{world.name}, {spent}: {walk.histories:,} histories{', cut short' if is_cut else ''}")
    for case, times in sorted(walk.allowed.items()):
        click.echo(f"  {times:,} times a documented exception: {case}")
    for violation in walk.violations.values():
        click.echo(violation)


if __name__ == "__main__":
    main()
