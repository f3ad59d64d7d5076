"""The sweeper: what it takes to look at thousands of rooms, whether they live, are gone, or have told of their end."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from benchmarks.deployments import Deployment, message
from benchmarks.load import Task, running, running_tasks
from benchmarks.meters import Cost, function_seconds, log_lines, measured
from sandbox.stack import let_a_minute_pass, resource

ROOMS = 5_000
GONE = 0.05
_TOLD_ROOMS = 500
_IDLE_SWEEPS = 20
_MOST_SWEEPS = 5
_SWEEP_SECONDS = 300.0  # the function's own time-out
_POLL_SECONDS = 0.5  # looking more often would hold up the RTC API double, which runs in this process
_QUESTION = "GetRoomOnlineUsers"
_SPENT = ("function_seconds", "invocations", "write_units", "read_units", "log_bytes")


def sweeps(deployment: Deployment) -> dict[str, dict[str, Any]]:
    """Sweep where nothing is watched, where rooms have told of their end, and where all rooms live."""
    sweeper = _sweeper(deployment)
    with _unscheduled(deployment):
        idle = _sweep(sweeper, [], sweeps=_IDLE_SWEEPS)
        told = _watched(deployment, _TOLD_ROOMS)
        deployment.send([message(*task) for task in told])
        _settle(deployment)
        deployment.rtc.forget()
        ended = _sweep(sweeper, told)
        return {"nothing watched": idle, "ends told": ended, "all alive": _sweep(sweeper, _watched(deployment, ROOMS))}


def sweep_gone(deployment: Deployment) -> dict[str, dict[str, Any]]:
    """Sweep where some rooms are gone, of which nobody told, until their tasks are stopped."""
    sweeper = _sweeper(deployment)
    with _unscheduled(deployment):
        tasks = _watched(deployment, ROOMS)
        gone = tasks[:: round(1 / GONE)]
        for app_id, room_id, _ in gone:
            deployment.rtc.close_room(app_id, room_id)
        return {f"{100 * GONE:.0f} % gone": _sweep(sweeper, tasks, gone)}


def _sweeper(deployment: Deployment) -> Deployment:
    """Give the deployment as seen from the sweeper: its log and its time are those that are measured."""
    return replace(deployment, function_name=resource(deployment.aws, "SweepRoomsFunction"))


@contextlib.contextmanager
def _unscheduled(deployment: Deployment) -> Iterator[None]:
    """Keep the schedule from sweeping, too."""
    client, rule = deployment.aws.client("events"), resource(deployment.aws, "SweepSchedule").rpartition("/")[2]
    client.disable_rule(Name=rule)
    yield
    client.enable_rule(Name=rule)


def _watched(deployment: Deployment, rooms: int) -> list[Task]:
    """Let tasks run, each in a room of its own, and tell of their starts."""
    tasks = running_tasks(deployment, rooms)
    deployment.send([message(*task, "SegmentStarted") for task in tasks])
    _settle(deployment)
    return tasks


def _settle(deployment: Deployment) -> None:
    if not deployment.settle(120, quiet_seconds=120):
        raise RuntimeError(f"{sum(deployment.waiting())} messages are left")


def _sweep(sweeper: Deployment, tasks: Sequence[Task], gone: Sequence[Task] = (), *, sweeps: int = 1) -> dict[str, Any]:
    """Sweep so often, and then until the tasks of the rooms that are gone are stopped."""
    began, runs = time.time(), list[Cost]()
    while len(runs) < sweeps or (running(sweeper, gone) and len(runs) < _MOST_SWEEPS):
        _let_a_minute_pass(sweeper, gone if runs else tasks)
        with measured(sweeper, closely=True) as cost:
            _invoke(sweeper)
            _settle(sweeper)
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


def _let_a_minute_pass(deployment: Deployment, tasks: Sequence[Task]) -> None:
    """Let so much time pass that the rooms are to be looked at."""
    client = deployment.aws.client("dynamodb")

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda task: let_a_minute_pass(client, deployment.table_name, task[0], task[1]), tasks))


def _invoke(sweeper: Deployment) -> None:
    """Sweep once, as the schedule does."""
    began = time.time()
    sweeper.aws.client("lambda").invoke(FunctionName=sweeper.function_name, InvocationType="Event", Payload=b"{}")
    while not function_seconds(sweeper, began)[1]:
        if time.time() > began + _SWEEP_SECONDS:
            raise TimeoutError("a sweep does not end")
        time.sleep(_POLL_SECONDS)
