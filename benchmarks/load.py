"""The loads: what a queue full of stops, duplicates or a storm does, and how long a message takes."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from benchmarks.deployments import Deployment, message
from benchmarks.meters import measured, percentile, windows

Task = tuple[str, str, str]
_COUNTED_STOPS = 100
_SECONDS = 120.0  # what is not done by then is told as left
_numbers = itertools.count()


def drain(deployment: Deployment, stops: int, *, table: bool) -> dict[str, Any]:
    """Let a full queue of distinct stops loose.

    Parameters
    ----------
    table
        Whether to count the table's units, in a smaller queue before, so as not to slow this one.
    """
    units = _stops(deployment, _COUNTED_STOPS, table=True)[1] if table else {}
    ends, costs = _stops(deployment, stops, table=False)
    times = [request.received_at for request in deployment.rtc.requests]
    return {
        **ends,
        **costs,
        **{name: value for name, value in units.items() if name not in costs},
        "stops_per_second": (stops - 1) / (max(times) - min(times)),
        "busiest_second": deployment.rtc.busiest_second(),
        "windows": windows(times),
    }


def _stops(deployment: Deployment, stops: int, *, table: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    tasks = _running_tasks(deployment, stops)
    return _let_loose(deployment, tasks, [message(*task) for task in tasks], _SECONDS, table=table)


def duplicates(deployment: Deployment, events: int) -> dict[str, Any]:
    """Let a queue loose where each of five events tells of the same stop."""
    tasks = _running_tasks(deployment, events // 5)
    bodies = [message(*task) for task in tasks for _ in range(5)]
    random.Random(0).shuffle(bodies)  # noqa: S311 # nosec B311 # the same order each time
    ends, costs = _let_loose(deployment, tasks, bodies, _SECONDS)
    return ends | costs


def storm(deployment: Deployment, rooms: int, events_a_room: int) -> dict[str, Any]:
    """Let moderation loose: many events for the one task of each room, the rooms side by side."""
    tasks = _running_tasks(deployment, rooms)
    bodies = [
        message(*task, "ModerationViolation", f"evt-{task[1]}-{number}")
        for number in range(events_a_room)
        for task in tasks
    ]
    ends, costs = _let_loose(deployment, tasks, bodies, _SECONDS)
    return ends | costs


def latency(deployment: Deployment, messages_per_second: int, seconds: float) -> dict[str, Any]:
    """Send messages at a steady rate, and see how long each takes from there to the API."""
    tasks = _running_tasks(deployment, round(messages_per_second * seconds))
    sent: dict[Task, float] = {}
    began = time.time() + 0.1

    def send(number: int, task: Task) -> None:
        time.sleep(max(0.0, began + number / messages_per_second - time.time()))
        sent[task] = time.time()
        deployment.sqs.send_message(QueueUrl=deployment.queue_url, MessageBody=message(*task))

    with ThreadPoolExecutor(16) as threads:
        list(threads.map(send, range(len(tasks)), tasks))
    emptied = deployment.settle(60)
    arrived: dict[Task, float] = {}
    for request in deployment.rtc.requests:
        arrived.setdefault(request.task, request.received_at)
    took = [1000 * (arrived[task] - sent[task]) for task in tasks if task in arrived]
    return {
        "messages_per_second": messages_per_second,
        "messages": len(tasks),
        "lost": len(tasks) - len(took),
        "emptied": emptied,
        **{f"p{percent}_ms": percentile(took, percent / 100) for percent in (50, 95, 99)},
    }


def _running_tasks(deployment: Deployment, count: int) -> list[Task]:
    deployment.rtc.forget()
    load = next(_numbers)
    tasks = [("661e", f"room-{load}-{number}", "audio") for number in range(count)]
    for task in tasks:
        deployment.rtc.start_task(*task)
    return tasks


def _let_loose(
    deployment: Deployment, tasks: Sequence[Task], bodies: Sequence[str], seconds: float, *, table: bool = True
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Give how the load ended, and what it cost."""
    with deployment.held_back():
        deployment.send(bodies)
        time.sleep(1.1)  # so that no request of an earlier load is within a second
    with measured(deployment, table=table) as cost:
        emptied = deployment.settle(seconds)
    requests = deployment.rtc.requests
    ends = {
        "messages": len(bodies),
        "stops": len(tasks),
        "api_requests": len(requests),
        "api_refusals": sum(1 for request in requests if request.http_status == 429),
        "still_running": sum(1 for task in tasks if deployment.rtc.is_running(*task)),
        "not_done": 0 if emptied else sum(deployment.waiting()),
        "dead_letters": deployment.dead_letters(),
    }
    thousands = len(bodies) / 1000
    costs: dict[str, Any] = {
        "seconds": cost.seconds,
        "processors_busy": cost.processors_busy,
        "double_late_ms": cost.double_late_ms,
        "api_requests_per_1000": len(requests) / thousands,
        "function_seconds_per_1000": cost.function_seconds / thousands,
        "invocations_per_1000": cost.invocations / thousands,
    }
    if table:
        costs |= {
            "write_units_per_1000": cost.write_units / thousands,
            "read_units_per_1000": cost.read_units / thousands,
            "table_calls_per_1000": {name: calls / thousands for name, calls in cost.table_calls.items()},
        }
    return ends, costs
