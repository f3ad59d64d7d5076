"""The Lambda function that the sweep schedule starts: sweep, then report."""

from __future__ import annotations

import asyncio
import functools
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from aws_lambda_powertools.metrics import MetricUnit

from segments.clients import make_clients
from segments.pace import Turns
from segments.telemetry import logger, metrics
from segments.times import now_ms
from sweep_rooms.events import send_room_gone
from sweep_rooms.sweeper import BETWEEN_SWEEPS_SECONDS, QUESTIONS_PER_SECOND, Sweep, Sweeper, read_settings

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext

SETTLING_SECONDS = 10.0  # reserved for the writes and messages after the last answer

settings = read_settings(os.environ)
table, api, sqs, in_thread, calls = make_clients(settings)
turns = Turns(QUESTIONS_PER_SECOND, time.monotonic)
send = functools.partial(send_room_gone, sqs, settings.event_queue_url)
sweeper = Sweeper(settings, table, api, calls(turns), in_thread, send, now_ms)
loop = asyncio.Runner()


@logger.inject_lambda_context
@metrics.log_metrics
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, int]:  # noqa: ARG001 - the schedule's
    """Sweep once, and return the numbers of the log line (none if another sweep is running)."""
    ends_at = time.monotonic() + settings.sweep_every_ms / 1000 - BETWEEN_SWEEPS_SECONDS

    def seconds_left() -> float:
        ours = context.get_remaining_time_in_millis() / 1000 - SETTLING_SECONDS
        return min(ours, ends_at - time.monotonic()) - settings.call_seconds

    sweep = loop.run(_sweep(seconds_left))
    if sweep is None:
        logger.info("another sweep is running")
        return {}
    counts: dict[str, Any] = {name: value for name, value in vars(sweep).items() if name.startswith("rooms_")}
    if sweep.refused and not sweep.rooms_swept:
        refused: dict[str, Any] = {"error_code": sweep.refused.code, "error_message": sweep.refused.message}
        logger.warning("the API does not say whether rooms exist", **refused, **counts)
        metrics.add_metric("SweepRefused", MetricUnit.Count, 1)
    logger.info("swept", **counts)
    metrics.add_metric("RoomsSwept", MetricUnit.Count, sweep.rooms_swept)
    metrics.add_metric("RoomsRejected", MetricUnit.Count, sweep.rooms_rejected)
    metrics.add_metric("RoomsUnanswered", MetricUnit.Count, sweep.rooms_unanswered)
    if sweep.round_seconds is not None:
        metrics.add_metric("RoundSeconds", MetricUnit.Seconds, sweep.round_seconds)
    return counts


async def _sweep(seconds_left: Callable[[], float]) -> Sweep | None:
    async with turns.invocation():
        return await sweeper.sweep(seconds_left)
