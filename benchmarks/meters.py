"""The cost of a load in function time, log bytes and table units."""

from __future__ import annotations

import gc
import re
import time
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

from benchmarks.deployments import Deployment
from benchmarks.table_units import counted

_BILLED = re.compile(r"Billed Duration: (\d+) ms")
_STEP_SECONDS = 0.1

Spent = dict[str, float]
"""Seconds, function_seconds and invocations. A close measurement adds log_bytes and the figures of `counted`."""


@contextmanager
def measured(deployment: Deployment, *, closely: bool) -> Iterator[Spent]:
    """Measure the cost of a deployment during the block. The result is complete at the end of the block.

    Parameters
    ----------
    closely
        Whether to count the calls of the table and the bytes of the log, too. The count slows the embedded AWS down.
    """
    spent: Spent = {}
    # The RTC API double runs in this process: garbage collection would delay requests, and give them later times.
    gc.collect()
    gc.disable()
    began = time.time()
    counting: AbstractContextManager[Spent] = counted(deployment) if closely else nullcontext({})
    try:
        with counting as units:
            yield spent
            spent["seconds"] = time.time() - began
    finally:
        gc.enable()
    spent["function_seconds"], spent["invocations"] = function_seconds(deployment, began)
    if closely:
        # CloudWatch Logs charges 26 bytes more for each line.
        spent["log_bytes"] = sum(len(message.encode()) + 26 for message in _log(deployment, began, ""))
    spent |= units


def function_seconds(deployment: Deployment, since: float) -> tuple[float, int]:
    """Return the sum of the billed durations in the function's REPORT lines, and the number of lines."""
    found = [_BILLED.search(message) for message in _log(deployment, since, '"REPORT RequestId"')]
    milliseconds = [int(match[1]) for match in found if match]
    return sum(milliseconds) / 1000, len(milliseconds)


def _log(deployment: Deployment, since: float, pattern: str) -> list[str]:
    answer = deployment.client("logs").filter_log_events(
        logGroupName=deployment.log_group, startTime=int(since * 1000), filterPattern=pattern
    )
    if len(answer["events"]) >= 10_000:
        raise RuntimeError("the log has more lines than CloudWatch Logs returns in one answer: measure a smaller load")
    return [event["message"] for event in answer["events"]]


def windows(times: Sequence[float]) -> list[int]:
    """Count the arrivals of the last second, every 0.1 seconds until 1 second after the last arrival."""
    ordered = sorted(times)
    steps = range(int((ordered[-1] - ordered[0] + 1) / _STEP_SECONDS) + 2)
    ends = [ordered[0] + step * _STEP_SECONDS for step in steps]
    return [bisect_right(ordered, end) - bisect_right(ordered, end - 1) for end in ends]
