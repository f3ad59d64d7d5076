"""The cost of sweeping thousands of rooms that exist, or that the API rejects."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

from benchmarks.deployments import Deployment, message
from benchmarks.load import Task, running_tasks
from benchmarks.meters import Spent, function_seconds, measured

ROOMS = 5_000
REJECTED, HEALTHY = 2_000, 200
_ROUNDS = 3
_IDLE_SWEEPS = 20
_SWEEP_SECONDS = 300.0  # the function's own time-out
_POLL_SECONDS = 0.5  # the RTC API double runs in this process: frequent polling would slow it down
_QUESTION = "GetRoomOnlineUsers"


def sweeps(deployment: Deployment) -> dict[str, Spent]:
    """Sweep once with existing rooms only, and several times without watched rooms."""
    with unscheduled(deployment):
        idle = _sweep(deployment, [], sweeps=_IDLE_SWEEPS)
        return {"nothing watched": idle, "all alive": _sweep(deployment, _watched(deployment, ROOMS))}


def sweep_rejected(deployment: Deployment) -> dict[str, Any]:
    """Sweep the rooms of a deleted app before healthy rooms, and return how often the healthy rooms are checked."""
    # The index is sorted by name, so all rooms of the deleted app are checked before the healthy rooms.
    rejected = [("0-deleted", f"room-{number}", "audio") for number in range(REJECTED)]
    deployment.send([message(*task, "SegmentStarted") for task in rejected])
    settle(deployment)
    with unscheduled(deployment):
        healthy = _watched(deployment, HEALTHY)
        found = _sweep(deployment, [*rejected, *healthy], sweeps=_ROUNDS)
    asked = {task[1]: list[float]() for task in healthy}
    for request in deployment.rtc.requests:
        if request.task[0] == healthy[0][0]:
            asked[request.task[1]].append(request.received_at)
    gaps = [later - earlier for times in asked.values() for earlier, later in pairwise(times)]
    return found | {
        "rejected": REJECTED,
        "healthy": HEALTHY,
        "asked_at_least": min(map(len, asked.values())),
        "longest_gap_seconds": max(gaps, default=0.0),
    }


@contextlib.contextmanager
def unscheduled(deployment: Deployment) -> Iterator[None]:
    """Disable the sweeper's schedule during the block."""
    client, rule = deployment.client("events"), deployment.resource("SweepSchedule").rpartition("/")[2]
    client.disable_rule(Name=rule)
    yield
    client.enable_rule(Name=rule)


def _watched(deployment: Deployment, rooms: int) -> list[Task]:
    """Start `rooms` tasks, each in a separate room, and report their starts."""
    tasks = running_tasks(deployment, rooms)
    deployment.send([message(*task, "SegmentStarted") for task in tasks])
    settle(deployment)
    return tasks


def settle(deployment: Deployment) -> None:
    """Wait until every message on the event queue is served."""
    if not deployment.settle(120, quiet_seconds=120):
        raise RuntimeError(
            f"{deployment.undone()} messages were not served in 120 s, so the cost is invalid: run the benchmark again"
        )


def _sweep(deployment: Deployment, tasks: Sequence[Task], *, sweeps: int = 1) -> Spent:
    sweeper = _sweeper(deployment)
    runs = []
    for _ in range(sweeps):
        deployment.let_a_minute_pass([])
        with measured(sweeper, closely=True) as spent:
            sweep_once(deployment)
        runs.append(spent)
    return {
        "rooms": len(tasks),
        "sweeps": sweeps,
        "longest_seconds": max(run["function_seconds"] for run in runs),
        "questions": sum(request.action == _QUESTION for request in deployment.rtc.requests),
        "busiest_second": deployment.rtc.busiest_second(_QUESTION),
        **{name: sum(run[name] for run in runs) for name in runs[0]},
    }


def _sweeper(deployment: Deployment) -> Deployment:
    """Return the deployment with the sweeper as the measured function."""
    sweeper = {"StopSegmentFunctionName": deployment.resource("SweepRoomsFunction")}
    return replace(deployment, outputs={**deployment.outputs, **sweeper})


def sweep_once(deployment: Deployment) -> None:
    """Sweep as the schedule does, and wait until the events of the sweep are served."""
    began, sweeper = time.time(), _sweeper(deployment)
    sweeper.client("lambda").invoke(FunctionName=sweeper.function_name, InvocationType="Event", Payload=b"{}")
    while not function_seconds(sweeper, began)[1]:
        if time.time() > began + _SWEEP_SECONDS:
            raise TimeoutError(
                f"a sweep did not end within {_SWEEP_SECONDS:.0f} s, so the cost is invalid: run the benchmark again"
            )
        time.sleep(_POLL_SECONDS)
    settle(deployment)
