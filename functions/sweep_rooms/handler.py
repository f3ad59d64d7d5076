"""The Lambda function behind the schedule: sweep, report."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from aws_lambda_powertools.metrics import MetricUnit

from segments.telemetry import logger, metrics
from sweep_rooms.sweeper import BETWEEN_SWEEPS_SECONDS, Sweep
from sweep_rooms.wiring import make_wiring

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext

SETTLING_SECONDS = 10.0  # for the writes and messages after the last answer

wiring = make_wiring(os.environ)


@logger.inject_lambda_context
@metrics.log_metrics
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, int]:  # noqa: ARG001 - the schedule's
    """Sweep once, and return the numbers of the log line; none if another sweep is running."""
    ends_at = time.monotonic() + wiring.settings.sweep_every_ms / 1000 - BETWEEN_SWEEPS_SECONDS

    def seconds_left() -> float:
        ours = context.get_remaining_time_in_millis() / 1000 - SETTLING_SECONDS
        return min(ours, ends_at - time.monotonic()) - wiring.settings.call_seconds

    sweep = wiring.loop.run(_sweep(seconds_left))
    if sweep is None:
        logger.info("another sweep is running")
        return {}
    counts: dict[str, Any] = {
        "rooms_swept": sweep.rooms_swept,
        "rooms_gone": sweep.rooms_gone,
        "rooms_rejected": sweep.rooms_rejected,
        "rooms_unanswered": sweep.rooms_unanswered,
    }
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
    async with wiring.turns.invocation():
        return await wiring.sweeper.sweep(seconds_left)
