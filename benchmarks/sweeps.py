"""The sweeper: the cost of checking thousands of rooms that live, are gone, or are rejected."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

from benchmarks.deployments import Deployment, message
from benchmarks.load import Task, running, running_tasks
from benchmarks.meters import Cost, function_seconds, log_lines, measured
from sandbox.stack import let_a_minute_pass, resource

ROOMS = 5_000
GONE = 0.05
REJECTED, HEALTHY = 2_000, 200
_ROUNDS = 3
_IDLE_SWEEPS = 20
_MOST_SWEEPS = 5
_SWEEP_SECONDS = 300.0  # the function's own time-out
_POLL_SECONDS = 0.5  # looking more often would hold up the RTC API double, which runs in this process
_QUESTION = "GetRoomOnlineUsers"
_SPENT = ("function_seconds", "invocations", "write_units", "read_units", "log_bytes")


def sweeps(deployment: Deployment) -> dict[str, dict[str, Any]]:
    """Sweep without watched rooms, and with living rooms only."""
    watching = sweeper(deployment)
    with unscheduled(deployment):
        idle = sweep(watching, [], sweeps=_IDLE_SWEEPS)
        return {"nothing watched": idle, "all alive": sweep(watching, _watched(deployment, ROOMS))}


def sweep_gone(deployment: Deployment) -> dict[str, dict[str, Any]]:
    """Sweep with some rooms gone unreported, until their tasks are stopped."""
    watching = sweeper(deployment)
    with unscheduled(deployment):
        tasks = _watched(deployment, ROOMS)
        gone = tasks[:: round(1 / GONE)]
        for app_id, room_id, _ in gone:
            deployment.rtc.close_room(app_id, room_id)
        return {f"{100 * GONE:.0f} % gone": sweep(watching, tasks, gone)}


def sweep_rejected(deployment: Deployment) -> dict[str, Any]:
    """Sweep rounds in which the rooms of a deleted app come before the others, and see when those are asked about."""
    # The index goes by names, so all rooms of this app are asked about before the first of the others.
    rejected = [("0-deleted", f"room-{number}", "audio") for number in range(REJECTED)]
    deployment.send([message(*task, "SegmentStarted") for task in rejected])
    settle(deployment)
    with unscheduled(deployment):
        healthy = _watched(deployment, HEALTHY)
        found = sweep(sweeper(deployment), [*rejected, *healthy], sweeps=_ROUNDS)
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


def sweeper(deployment: Deployment) -> Deployment:
    """Give the deployment as seen from the sweeper: its log and its time are those that are measured."""
    return replace(deployment, function_name=resource(deployment.aws, "SweepRoomsFunction"))


@contextlib.contextmanager
def unscheduled(deployment: Deployment) -> Iterator[None]:
    """Keep the schedule from sweeping, too."""
    client, rule = deployment.aws.client("events"), resource(deployment.aws, "SweepSchedule").rpartition("/")[2]
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
        raise RuntimeError(f"{sum(deployment.waiting())} messages are left")


def sweep(sweeper: Deployment, tasks: Sequence[Task], gone: Sequence[Task] = (), *, sweeps: int = 1) -> dict[str, Any]:
    """Sweep so often, and then until the tasks of the rooms that are gone are stopped."""
    began, runs = time.time(), list[Cost]()
    while len(runs) < sweeps or (running(sweeper, gone) and len(runs) < _MOST_SWEEPS):
        let_rooms_wait(sweeper, gone)
        with measured(sweeper, closely=True) as cost:
            sweep_once(sweeper)
        runs.append(cost)
    requests = sweeper.rtc.requests
    return {
        "rooms": len(tasks),
        "gone": len(gone),
        "sweeps": len(runs),
        "longest_seconds": max(run.function_seconds for run in runs),
        "questions": sum(1 for request in requests if request.action == _QUESTION),
        "busiest_second": sweeper.rtc.busiest_second(_QUESTION),
        "messages": sum(line["message"] == "room gone" for line in log_lines(sweeper, began, '"room gone"')),
        "stops": sum(1 for request in requests if request.action == "StopSegment"),
        "still_running": running(sweeper, gone),
        **{name: sum(getattr(run, name) for run in runs) for name in _SPENT},
        "double_late_ms": max(run.double_late_ms for run in runs),
    }


def let_rooms_wait(deployment: Deployment, tasks: Sequence[Task]) -> None:
    """Let so much time pass that a room that was found gone may be found gone again."""
    rooms = [(app_id, room_id) for app_id, room_id, _ in tasks]
    let_a_minute_pass(deployment.aws.client("dynamodb"), deployment.table_name, rooms)


def sweep_once(sweeper: Deployment) -> None:
    """Sweep as the schedule does, and let the events that come of it be served."""
    began = time.time()
    sweeper.aws.client("lambda").invoke(FunctionName=sweeper.function_name, InvocationType="Event", Payload=b"{}")
    while not function_seconds(sweeper, began)[1]:
        if time.time() > began + _SWEEP_SECONDS:
            raise TimeoutError("a sweep does not end")
        time.sleep(_POLL_SECONDS)
    settle(sweeper)
