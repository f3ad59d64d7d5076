"""Faults in the deployed sandbox: `python -m tests.faults --help`."""

from __future__ import annotations

import re
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tests.faults.kinds import KINDS
from tests.faults.runs import Run, stage

MOST_SENTENCES = 10
WIDTH = 140


@click.command(epilog="Example: python -m tests.faults --seed 7 --kind 'API: late' --events 500")
@click.option("--seed", default=1, show_default=True, help="Seed of the messages and the faults.")
@click.option("--events", default=10_000, show_default=True, help="Number of events, over all kinds of faults.")
@click.option("--kind", "names", multiple=True, type=click.Choice([kind.name for kind in KINDS]), help="Only these.")
def main(seed: int, events: int, names: tuple[str, ...]) -> None:
    """Send events to the deployed sandbox while calls and processes fail, and check that the promises hold.

    Each event ends in one documented outcome, or on the dead-letter queue with its reason. No event is lost, none stops
    a session that started later, and the request limit holds. Exits with 1 if a promise is broken.
    """
    # So that the servers are stopped on SIGTERM, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    console = Console(width=max(WIDTH, Console().width))
    kinds = [kind for kind in KINDS if not names or kind.name in names]
    console.print(f"Starting an AWS and an RTC API on this machine, and deploying template.yaml: seed {seed} ...")
    runs = []
    with stage() as running:
        for kind in kinds:
            run = running.run([kind], -(-events // len(kinds)), seed)
            if not all(run.faults):
                run = replace(run, broken=[*run.broken, "a fault never happened, so this run proves nothing"])
            runs.append(run)
            console.print(f"  {run.name}: {len(run.evidence.sent)} events in {run.seconds:.0f} s", highlight=False)
            for sentence in run.broken[:MOST_SENTENCES]:
                console.print(f"    [red]{escape(sentence)}[/red]", soft_wrap=True, highlight=False)
    console.print(table(runs))
    broken = sum(len(run.broken) for run in runs)
    console.print(f"[red]{broken} times a promise was broken.[/red]" if broken else "Every promise was kept.")
    sys.exit(1 if broken else 0)


def table(runs: Sequence[Run]) -> Table:
    """Draw a table of the runs and the outcomes of their events."""
    drawn = Table(title="Faults and outcomes", title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    outcomes = sorted({outcome for run in runs for outcome in run.evidence.outcomes})
    for name in ("fault kind", "events", "faults", *outcomes, "dead letters", "broken promises", "highest window"):
        # One word per line, so that the table fits into WIDTH.
        drawn.add_column(re.sub("[ _]", "\n", name), justify="left" if name == "fault kind" else "right")
    for run in runs:
        seen = run.evidence
        ends = [seen.outcomes[outcome] for outcome in outcomes]
        highest = seen.rtc.busiest_second("StopSegment")
        numbers = [len(seen.sent), sum(run.faults), *ends, len(seen.letters), len(run.broken), highest]
        drawn.add_row(f"[red]{run.name}[/red]" if run.broken else run.name, *map(str, numbers))
    return drawn


if __name__ == "__main__":
    main()
