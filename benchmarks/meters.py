"""The cost of a load: requests per second, function time, table units, and processor time of the machine."""

from __future__ import annotations

import asyncio
import gc
import json
import math
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.deployments import Deployment
from benchmarks.table_units import TableUnits
from sandbox.rtc_double import RtcDouble

_BILLED = re.compile(r"Billed Duration: (\d+) ms")
_BEAT_SECONDS = 0.005


@dataclass
class Cost:
    """The cost of a load, filled in when the block of `measured` ends: the last three only with a close look."""

    seconds: float = 0.0
    function_seconds: float = 0.0
    invocations: int = 0
    processors_busy: float | None = None
    double_late_ms: float = 0.0
    write_units: float | None = None
    read_units: float | None = None
    log_bytes: int | None = None


@contextmanager
def measured(deployment: Deployment, *, closely: bool) -> Iterator[Cost]:
    """Measure what the deployment spends during the block.

    Parameters
    ----------
    closely
        Whether the table's calls and the log are counted too, which takes some of the embedded AWS's time.
    """
    cost = Cost()
    # The RTC API double runs in this process: a collection would let requests wait, and count them as arrived later.
    gc.collect()
    gc.disable()
    began, busy, clock = time.time(), _processor_seconds(), time.monotonic()
    late = _Lateness(deployment.rtc)
    units = TableUnits(deployment) if closely else None
    try:
        with deployment.recorded() if closely else nullcontext():
            yield cost
    finally:
        cost.double_late_ms = late.stop()
        gc.enable()
    cost.seconds = time.monotonic() - clock
    cost.processors_busy = _busy_share(busy, _processor_seconds())
    cost.function_seconds, cost.invocations = function_seconds(deployment, began)
    if units:
        _, cost.write_units, cost.read_units = units.spent()
        cost.log_bytes = log_bytes(deployment, began)


class _Lateness:
    """How late the double's event loop is at worst: by so much it may have counted requests as arrived later."""

    def __init__(self, rtc: RtcDouble) -> None:
        self._worst = 0.0
        self._beating = asyncio.run_coroutine_threadsafe(self._beat(), rtc._loop)

    async def _beat(self) -> None:
        while True:
            began = time.monotonic()
            await asyncio.sleep(_BEAT_SECONDS)
            self._worst = max(self._worst, time.monotonic() - began - _BEAT_SECONDS)

    def stop(self) -> float:
        """Stop watching and return the result, in ms."""
        self._beating.cancel()
        return 1000 * self._worst


def function_seconds(deployment: Deployment, since: float) -> tuple[float, int]:
    """Sum the billed durations in the function's REPORT lines, and count these."""
    found = [_BILLED.search(message) for message in _log(deployment, since, '"REPORT RequestId"')]
    milliseconds = [int(match[1]) for match in found if match]
    return sum(milliseconds) / 1000, len(milliseconds)


def log_bytes(deployment: Deployment, since: float) -> int:
    """Count the function's log as CloudWatch Logs charges it: 26 bytes more for each line."""
    return sum(len(message.encode()) + 26 for message in _log(deployment, since, ""))


def log_lines(deployment: Deployment, since: float, pattern: str) -> list[dict[str, Any]]:
    """Give the lines in JSON that the function has logged since then, among them all that have the pattern."""
    lines = [line for message in _log(deployment, since, pattern) for line in message.splitlines()]
    return [json.loads(line) for line in lines if line.startswith("{")]


def _log(deployment: Deployment, since: float, pattern: str) -> list[str]:
    answer = deployment.logs.filter_log_events(
        logGroupName=deployment.log_group, startTime=int(since * 1000), filterPattern=pattern
    )
    if len(answer["events"]) >= 10_000:
        raise RuntimeError("the lines do not fit into one answer")
    return [event["message"] for event in answer["events"]]


def windows(times: Sequence[float], step_seconds: float = 0.1) -> list[tuple[float, int]]:
    """Count the arrivals in the second before each step, from the first arrival until a second after the last."""
    ordered = sorted(times)
    if not ordered:
        return []
    counts = []
    first = last = 0
    for step in range(math.ceil((ordered[-1] - ordered[0] + 1) / step_seconds) + 1):
        now = ordered[0] + step * step_seconds
        while last < len(ordered) and ordered[last] <= now:
            last += 1
        while first < last and ordered[first] <= now - 1:
            first += 1
        counts.append((round(step * step_seconds, 3), last - first))
    return counts


def _processor_seconds() -> tuple[float, float] | None:
    """Return what all processors together have spent on work and in all; None if the system does not report it."""
    try:
        fields = [int(value) for value in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    except OSError:
        return None
    idle = fields[3] + fields[4]
    return sum(fields) - idle, sum(fields)


def _busy_share(before: tuple[float, float] | None, after: tuple[float, float] | None) -> float | None:
    if before is None or after is None or after[1] == before[1]:
        return None
    return (after[0] - before[0]) / (after[1] - before[1])
