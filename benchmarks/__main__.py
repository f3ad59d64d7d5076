"""`python -m benchmarks` measures, prints the tables, draws the charts, and keeps a summary in results.json."""

from __future__ import annotations

import json
import os
import platform
import subprocess  # nosec B404 # asks git for the commit
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from benchmarks import functions, load, rooms, sweeps
from benchmarks.charts import draw_drain
from benchmarks.deployments import BOTH, Deployment, build_peer, product
from benchmarks.environments import environments
from benchmarks.report import print_report
from sandbox.program import run
from sandbox.stack import ROOT

RESULTS = Path(__file__).with_name("results.json")
CHART = ROOT / "docs" / "bench-drain.svg"
ANSWER_AFTER_SECONDS = 0.2
# The peer is slower, so it gets fewer messages. Only rates and shares are compared.
STOPS = {"product": 5_000, "peer": 400}
EVENTS = {"product": 5_000, "peer": 500}
START_UPS = 7
LATE_STOPS = (1_000, 4_000)
ENDS = (1, 10, 100, 10_000)
PERMANENT_TASKS = 20_000
MOST_MESSAGES = {"product": 100_000, "peer": 10_000}

Load = Callable[[Deployment], Any]
console = Console(width=max(100, Console().width))

LOADS: dict[str, Load] = {
    # This load is the first, because the messages and records of later loads slow the embedded AWS down.
    "drain": lambda deployment: load.drain(deployment, STOPS[deployment.name]),
    "spending": load.spending,
    "duplicates": lambda deployment: load.duplicates(deployment, EVENTS[deployment.name]),
    "storm": lambda deployment: load.storm(deployment, rooms=50, events_a_room=100),
    "latency": lambda deployment: load.latency(deployment, messages_per_second=50, seconds=4),
}
# Loads that are too heavy for the peer.
OUR_LOADS: dict[str, Load] = {
    "room_ends": lambda deployment: rooms.room_ends(deployment, ENDS, PERMANENT_TASKS),
    "sessions": rooms.sessions,
    "late": lambda deployment: [load.late(deployment, stops) for stops in LATE_STOPS],
    "sweep": sweeps.sweeps,
    "sweep_rejected": sweeps.sweep_rejected,
}
# The functions without SQS, one after the other, because simultaneous starts slow each other down.
ALONE: dict[str, Callable[[], Any]] = {
    "environments": environments,
    "slices": functions.slices,
    "in_process": lambda: functions.in_process(MOST_MESSAGES),
    "start_up": lambda: functions.start_up(START_UPS),
}
NAMES = (*LOADS, *OUR_LOADS, *ALONE)


@click.command()
@click.argument("measurements", nargs=-1, type=click.Choice(NAMES))
def main(measurements: tuple[str, ...]) -> None:
    """Measure the product beside its peer, with all measurements or only the named MEASUREMENTS."""
    sys.exit(run(lambda: _measure_all(measurements)))


def _measure_all(measurements: Sequence[str]) -> int:
    wanted = [name for name in NAMES if name in (measurements or NAMES)]
    machine, commit, results = _machine(), _commit(), dict[str, Any]()
    if not OUR_LOADS.keys() >= set(wanted):
        build_peer()
    for found in _measure(wanted):
        results |= found
        _keep({"machine": machine, **found}, commit)
    if "drain" in results:
        draw_drain(results["drain"], CHART)
    console.print("\n{cpu}, {cores} cores, Python {python}, {system}".format(**machine))
    print_report(results, console)
    return 0


def _measure(names: Sequence[str]) -> Iterator[dict[str, Any]]:
    yield _loads([name for name in names if name in LOADS])
    for name in names:
        if name in OUR_LOADS:
            with product(ANSWER_AFTER_SECONDS) as deployment:
                _say(f"{name}, product")
                found = OUR_LOADS[name](deployment)
            yield {name: {"answer_after_seconds": ANSWER_AFTER_SECONDS, "product": found}}
        elif name in ALONE:
            _say(name)
            yield {name: ALONE[name]()}


def _loads(names: Sequence[str]) -> dict[str, Any]:
    """Apply all loads to one deployment of the product, and to one deployment of the peer."""
    results: dict[str, Any] = {name: {"answer_after_seconds": ANSWER_AFTER_SECONDS} for name in names}
    if results:
        for deploy in BOTH:
            with deploy(ANSWER_AFTER_SECONDS) as deployment:
                for name, result in results.items():
                    _say(f"{name}, {deployment.name}")
                    result[deployment.name] = LOADS[name](deployment)
    return results


def _keep(found: dict[str, Any], commit: str) -> None:
    """Add new results to results.json, one result per line, without the windows that only a chart needs."""
    results = {**json.loads(RESULTS.read_text()), **_short(found)}
    results["commits"] |= dict.fromkeys(found.keys() - {"machine"}, commit)
    lines = (f"{json.dumps(name)}: {json.dumps(result)}" for name, result in results.items())
    RESULTS.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def _short(value: Any) -> Any:
    match value:
        case dict():
            return {name: _short(part) for name, part in value.items() if name != "windows"}
        case list():
            return [_short(part) for part in value]
        case float():
            return float(f"{value:.4g}")
    return value


def _commit() -> str:
    found = subprocess.check_output(["git", "describe", "--always", "--dirty"], cwd=ROOT, text=True)  # noqa: S607 # nosec B603 B607 # our own command
    return found.strip()


def _say(what: str) -> None:
    console.print(f"{time.strftime('%H:%M:%S')}  {what}")


def _machine() -> dict[str, Any]:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        model = platform.processor() or platform.machine()
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "load_before": os.getloadavg()[0],
    }


if __name__ == "__main__":
    main()
