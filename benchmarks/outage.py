"""An outage of the API that messages outlive as later copies, and its effect on fresh stops once the API is back."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from benchmarks.deployments import Deployment, message
from benchmarks.load import running, running_tasks, send_steadily
from sandbox.faults import SERVICE_UNAVAILABLE
from sandbox.logs import LogReader
from sandbox.metrics import percentile

PARAMETERS = {"MaxReceiveCount": "4"}
_BACKLOG = 600
_DOWN_SECONDS = 100
_FRESH = 200
_FRESH_A_SECOND = 5  # for as long as most of the backlog takes
_SECONDS = 300.0  # unfinished work is then reported as still running
_POLL_SECONDS = 1.0


def outage(deployment: Deployment) -> dict[str, Any]:
    """Let the API answer nothing but errors while stops are sent, then send fresh ones; time both until they stop."""
    log = LogReader(deployment.logs, deployment.log_group)
    backlog = running_tasks(deployment, _BACKLOG)
    deployment.rtc.fail(SERVICE_UNAVAILABLE)
    deployment.send([message(*task) for task in backlog])
    time.sleep(_DOWN_SECONDS)
    requeued = _requeued(log)
    back = time.time()
    deployment.rtc.heal()
    fresh = [("661e", f"fresh-{number}", "audio") for number in range(_FRESH)]
    for task in fresh:
        deployment.rtc.start_task(*task)
    sent = send_steadily(deployment, fresh, _FRESH_A_SECOND)
    while (left := running(deployment, [*backlog, *fresh])) and time.time() < back + _SECONDS:
        time.sleep(_POLL_SECONDS)
    stopped = {
        request.task: request.received_at
        for request in deployment.rtc.requests
        if request.action == "StopSegment" and request.http_status == 200
    }
    return {
        "down_seconds": _DOWN_SECONDS,
        "still_running": left,
        "dead_letters": deployment.dead_letters(),
        "backlog": {
            "messages": len(backlog),
            "requeued": requeued,
            **_times([stopped[task] - back for task in backlog if task in stopped]),
        },
        "fresh": {
            "messages": len(fresh),
            "requeued": _requeued(log) - requeued,
            **_times([stopped[task] - sent[task] for task in fresh if task in stopped]),
        },
    }


def _requeued(log: LogReader) -> int:
    """Count the events of which a later copy was sent."""
    return len({line["event_id"] for line in log.read() if line.get("outcome") == "requeued"})


def _times(seconds: Sequence[float]) -> dict[str, float]:
    return {name: percentile(seconds, share) for name, share in (("p50", 0.5), ("p99", 0.99), ("longest", 1.0))}
