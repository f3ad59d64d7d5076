"""The stack, broken on purpose: `python -m tests.faults --help`."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tests.faults.kinds import KINDS
from tests.faults.runs import Run, stage

MOST_SENTENCES = 10


@click.command(epilog="Example: python -m tests.faults --seed 7 --kind 'API: late' --events 500")
@click.option("--seed", default=1, show_default=True, help="What is sent, and what fails.")
@click.option("--events", default=10_000, show_default=True, help="How many events to send, over all kinds of faults.")
@click.option(
    "--kind", "names", multiple=True, type=click.Choice([kind.name for kind in KINDS]), help="Only this; repeatable."
)
def main(seed: int, events: int, names: tuple[str, ...]) -> None:
    """Let everything fail that can, in the deployed sandbox and under load, and see whether the promises hold.

    Each event ends in one documented outcome or on the dead-letter queue with its reason, nothing is lost, no session
    is stopped by an event older than its start, and the request limit holds. Exits with 1 where one does not.
    """
    # So that the servers are stopped then, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    console = Console()
    kinds = [kind for kind in KINDS if not names or kind.name in names]
    console.print(f"Starting an AWS and an RTC API on this machine, and deploying template.yaml: seed {seed} ...")
    runs = []
    with stage() as running:
        for kind in kinds:
            runs.append(run := running.run([kind], -(-events // len(kinds)), seed))
            console.print(f"  {run.name}: {run.events} events in {run.seconds:.0f} s", highlight=False)
            for sentence in run.broken[:MOST_SENTENCES]:
                console.print(f"    [red]{escape(sentence)}[/red]", soft_wrap=True, highlight=False)
    console.print(table(runs))
    broken = sum(len(run.broken) for run in runs)
    console.print(f"[red]{broken} times a promise was broken.[/red]" if broken else "Every promise was kept.")
    sys.exit(1 if broken else 0)


def table(runs: Sequence[Run]) -> Table:
    """Draw what became of the runs' events."""
    drawn = Table(title="Broken on purpose", title_justify="left", show_footer=True)
    sums = [sum(numbers) for numbers in zip(*(_numbers(run) for run in runs), strict=True)]
    drawn.add_column("fault kind", footer="all")
    drawn.add_column("outcomes", footer="")
    for name, total in zip(("events", "faults", "dead letters", "lost", "wrong stops"), sums, strict=True):
        drawn.add_column(name, footer=str(total), justify="right")
    highest = max(run.verdict.highest_window for run in runs)
    drawn.add_column("highest window", footer=str(highest), justify="right")
    for run in runs:
        outcomes = ", ".join(f"{count} {outcome}" for outcome, count in run.verdict.outcomes.most_common())
        name = f"[red]{run.name}[/red]" if run.broken else run.name
        drawn.add_row(name, outcomes, *map(str, _numbers(run)), str(run.verdict.highest_window))
    return drawn


def _numbers(run: Run) -> tuple[int, ...]:
    verdict = run.verdict
    return run.events, sum(run.faults), verdict.dead_letters, len(verdict.lost), len(verdict.wrong_stops)


if __name__ == "__main__":
    main()
