"""The sweeper: the cost of checking thousands of rooms that live or are rejected."""

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
_POLL_SECONDS = 0.5  # looking more often would hold up the RTC API double, which runs in this process
_QUESTION = "GetRoomOnlineUsers"


def sweeps(deployment: Deployment) -> dict[str, Spent]:
    """Sweep without watched rooms, and with living rooms only."""
    with unscheduled(deployment):
        idle = _sweep(deployment, [], sweeps=_IDLE_SWEEPS)
        return {"nothing watched": idle, "all alive": _sweep(deployment, _watched(deployment, ROOMS))}


def sweep_rejected(deployment: Deployment) -> dict[str, Any]:
    """Sweep rounds in which the rooms of a deleted app come before the others, and see when those are asked about."""
    # The index goes by names, so all rooms of this app are asked about before the first of the others.
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
    """Keep the schedule from sweeping, too."""
    client, rule = deployment.client("events"), deployment.resource("SweepSchedule").rpartition("/")[2]
    client.disable_rule(Name=rule)
    yield
    client.enable_rule(Name=rule)


def _watched(deployment: Deployment, rooms: int) -> list[Task]:
    """Start tasks, each in its own room, and report their starts."""
    tasks = running_tasks(deployment, rooms)
    deployment.send([message(*task, "SegmentStarted") for task in tasks])
    settle(deployment)
    return tasks


def settle(deployment: Deployment) -> None:
    """Wait until every message is served."""
    if not deployment.settle(120, quiet_seconds=120):
        raise RuntimeError(f"{deployment.undone()} messages are left")


def _sweep(deployment: Deployment, tasks: Sequence[Task], *, sweeps: int = 1) -> Spent:
    sweeper = _sweeper(deployment)
    runs = []
    for _ in range(sweeps):
        let_rooms_wait(deployment, [])
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


def let_rooms_wait(deployment: Deployment, tasks: Sequence[Task]) -> None:
    """Let so much time pass that a room that was found gone may be found gone again."""
    deployment.let_a_minute_pass((app_id, room_id) for app_id, room_id, _ in tasks)


def _sweeper(deployment: Deployment) -> Deployment:
    """Return the deployment as seen from the sweeper: its log and its time are those that are measured."""
    sweeper = {"StopSegmentFunctionName": deployment.resource("SweepRoomsFunction")}
    return replace(deployment, outputs={**deployment.outputs, **sweeper})


def sweep_once(deployment: Deployment) -> None:
    """Sweep as the schedule does, and let the events that come of it be served."""
    began, sweeper = time.time(), _sweeper(deployment)
    sweeper.client("lambda").invoke(FunctionName=sweeper.function_name, InvocationType="Event", Payload=b"{}")
    while not function_seconds(sweeper, began)[1]:
        if time.time() > began + _SWEEP_SECONDS:
            raise TimeoutError("a sweep does not end")
        time.sleep(_POLL_SECONDS)
    settle(deployment)
