"""The loads of a comparison: a queue full of stops, duplicates or a storm, and the latency of single messages."""

from __future__ import annotations

import itertools
import random
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

from benchmarks.deployments import STALE_AFTER_SECONDS, Deployment, message
from benchmarks.meters import measured, windows

Task = tuple[str, str, str]
Found = dict[str, Any]
COUNTED_STOPS = 100
_SINGLES_A_SECOND = 10
_SECONDS = 120.0  # after this time, unfinished work is reported as left
_LATE_MS = 2_000 * STALE_AFTER_SECONDS
_SLOWEST_PER_SECOND = 20
_numbers = itertools.count()


def drain(deployment: Deployment, stops: int) -> Found:
    """Release a full queue of distinct stop events, and measure the rate of the stops."""
    tasks = running_tasks(deployment, stops)
    found = _let_loose(deployment, tasks, [message(*task) for task in tasks], closely=False)
    times = [request.received_at for request in deployment.rtc.requests]
    return found | {
        "stops_per_second": (stops - 1) / (max(times) - min(times)),
        "busiest_second": deployment.rtc.busiest_second(),
        "windows": windows(times),
    }


def spending(deployment: Deployment) -> Found:
    """Count what AWS charges for batched stops, single stops and duplicates, far below the request limit."""
    tasks = running_tasks(deployment, COUNTED_STOPS)
    event_time = datetime.now(UTC).isoformat(timespec="milliseconds")
    bodies = [message(*task, event_time=event_time) for task in tasks]
    stops = _let_loose(deployment, tasks, bodies)
    deployment.rtc.forget()
    again = _let_loose(deployment, tasks, bodies)
    if again["api_requests"]:
        raise RuntimeError(
            f"the {deployment.name} sent {again['api_requests']} API requests for duplicates instead of 0: "
            "correct its check for duplicates"
        )
    singles = running_tasks(deployment, COUNTED_STOPS)
    with measured(deployment, closely=True) as spent:
        send_steadily(deployment, singles, _SINGLES_A_SECOND)
        deployment.settle(_SECONDS)
    return {"stops": stops, "stops, one at a time": _per_1000(spent, len(singles)), "duplicates": again}


def duplicates(deployment: Deployment, events: int) -> Found:
    """Release a queue in which five stop events name each task."""
    tasks = running_tasks(deployment, events // 5)
    bodies = [message(*task) for task in tasks for _ in range(5)]
    random.Random(0).shuffle(bodies)  # noqa: S311 # nosec B311 # the same order each time
    return _let_loose(deployment, tasks, bodies)


def storm(deployment: Deployment, rooms: int, events_a_room: int) -> Found:
    """Release many moderation events for the only task of each room, in an order that interleaves the rooms."""
    tasks = running_tasks(deployment, rooms)
    numbered = itertools.product(range(events_a_room), tasks)
    bodies = [message(*task, "ModerationViolation", f"evt-{task[1]}-{number}") for number, task in numbered]
    return _let_loose(deployment, tasks, bodies)


def late(deployment: Deployment, stops: int) -> Found:
    """Release a full queue of late stop events, each of which needs a GetSegmentTask before its StopSegment."""
    time_ms = round(1000 * time.time()) - _LATE_MS
    tasks = running_tasks(deployment, stops, start_time_ms=time_ms - _LATE_MS)
    event_time = datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(timespec="milliseconds")
    bodies = [message(*task, event_time=event_time) for task in tasks]
    found = _let_loose(deployment, tasks, bodies, seconds=stops / _SLOWEST_PER_SECOND, closely=False)
    times = [request.received_at for request in deployment.rtc.requests]
    return found | {
        "busiest_second": deployment.rtc.busiest_second("GetSegmentTask"),
        "drained_seconds": max(times) - min(times),
    }


def latency(deployment: Deployment, messages_per_second: int, seconds: float) -> Found:
    """Send messages at a steady rate, and measure the time from each message to its API request."""
    tasks = running_tasks(deployment, round(messages_per_second * seconds))
    sent = send_steadily(deployment, tasks, messages_per_second)
    deployment.settle(60)
    arrived = {request.task: request.received_at for request in reversed(deployment.rtc.requests)}
    took = [1000 * (arrived[task] - sent[task]) for task in tasks if task in arrived]
    percentiles = statistics.quantiles(took, n=100, method="inclusive")
    return {
        "messages_per_second": messages_per_second,
        "lost": len(tasks) - len(took),
        **{f"p{percent}_ms": percentiles[percent - 1] for percent in (50, 95, 99)},
    }


def send_steadily(deployment: Deployment, tasks: Sequence[Task], messages_per_second: int) -> dict[Task, float]:
    """Send a message for each task at a steady rate, and return the Unix time in seconds of each message."""
    sent: dict[Task, float] = {}
    began = time.time() + 0.1

    def send(number: int, task: Task) -> None:
        time.sleep(max(0.0, began + number / messages_per_second - time.time()))
        sent[task] = time.time()
        deployment.client("sqs").send_message(QueueUrl=deployment.outputs["EventQueueUrl"], MessageBody=message(*task))

    with ThreadPoolExecutor(16) as threads:
        list(threads.map(send, range(len(tasks)), tasks))
    return sent


def running(deployment: Deployment, tasks: Sequence[Task]) -> int:
    """Count the tasks that still run."""
    return sum(deployment.rtc.is_running(*task) for task in tasks)


def running_tasks(deployment: Deployment, count: int, start_time_ms: int | None = None) -> list[Task]:
    """Start `count` tasks, each in a separate room, and reset the counts of the RTC API double."""
    deployment.rtc.forget()
    load = next(_numbers)
    tasks = [("661e", f"room-{load}-{number}", "audio") for number in range(count)]
    for task in tasks:
        deployment.rtc.start_task(*task, start_time_ms=start_time_ms)
    return tasks


def _let_loose(
    deployment: Deployment,
    tasks: Sequence[Task],
    bodies: Sequence[str],
    *,
    seconds: float = _SECONDS,
    closely: bool = True,
) -> Found:
    """Release a queue of messages, and return the result and the cost of the load."""
    with deployment.held_back():
        deployment.send(bodies)
        time.sleep(1.1)  # so that no second contains requests of two loads
    with measured(deployment, closely=closely) as spent:
        emptied = deployment.settle(seconds)
    requests = deployment.rtc.requests
    refusals = sum(request.http_status == 429 for request in requests)
    return {
        "messages": len(bodies),
        "stops": len(tasks),
        "api_requests": len(requests),
        "lost": running(deployment, tasks) + refusals + len(deployment.dead_letters()),
        "not_done": 0 if emptied else deployment.undone(),
        "seconds": spent["seconds"],
        **_per_1000(spent | {"api_requests": len(requests)}, len(bodies)),
    }


def _per_1000(spent: dict[str, float], messages: int) -> dict[str, float]:
    return {f"{name}_per_1000": 1000 * value / messages for name, value in spent.items() if name != "seconds"}
