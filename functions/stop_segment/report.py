"""What people see of it: one log line a decision, and metrics."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from aws_lambda_powertools import Logger, Metrics, Tracer
from aws_lambda_powertools.metrics import MetricUnit

from stop_segment.arrivals import Arrival
from stop_segment.errors import CredentialsRefused, StopError
from stop_segment.events import Event, EventType
from stop_segment.failures import End, Failure
from stop_segment.rules import Outcome
from stop_segment.stopper import Served

logger = Logger()
metrics = Metrics()
tracer = Tracer(patch_modules=["botocore"])


def log_served(arrival: Arrival, served: Served) -> None:
    """Tell how each task of an event ended."""
    for done in served.done:
        log_outcome(arrival, done.task_id, done.outcome, done.request_id)
    for task_id, error in served.failed:
        logger.warning("task failed", task_id=task_id, **_error_fields(error), **arrival.log_fields)


def log_outcome(arrival: Arrival, task_id: str | None, outcome: Outcome, request_id: str | None = None) -> None:
    """Tell how a task ended; `task_id` is None where the outcome concerns a room or no task at all."""
    # A room that ends without a known task usually means that nobody sends SegmentStarted.
    log = logger.warning if outcome is Outcome.NO_TASKS else logger.info
    log(outcome.value, outcome=outcome.value, task_id=task_id, request_id=request_id, **arrival.log_fields)
    metrics.add_metric(_metric_name(outcome.value), MetricUnit.Count, 1)
    if (
        outcome is Outcome.STOPPED
        and isinstance(arrival.content, Event)
        and arrival.content.type is EventType.ROOM_GONE
    ):
        metrics.add_metric("Orphans", MetricUnit.Count, 1)


def log_failure(failure: Failure, end: End, *, sent: bool) -> None:
    """Tell what became of a message that failed.

    Parameters
    ----------
    sent
        Whether its dead letter or its copy was sent. One that could not be sent is tried again.
    """
    unsent = not sent and end is not End.RETRIED
    message = f"{'dead letter' if end.is_dead_letter else 'copy'} not sent" if unsent else end.value
    outcome = End.RETRIED if unsent else end
    logger.warning(message, outcome=outcome.value, **_error_fields(failure.error), **failure.log_fields)
    metrics.add_metric(_metric_name(outcome.value), MetricUnit.Count, 1)
    if outcome.is_dead_letter:
        metrics.add_metric("DeadLettered", MetricUnit.Count, 1)
    if isinstance(failure.error, CredentialsRefused):
        metrics.add_metric("CredentialsRefused", MetricUnit.Count, 1)


def log_untold(failure: Failure) -> None:
    """Tell that workflows will not hear of a dead letter."""
    logger.warning("failed stop not told", **_error_fields(failure.error), **failure.log_fields)
    metrics.add_metric("FailuresNotTold", MetricUnit.Count, 1)


def measure(name: str, value: float) -> None:
    """Emit a measured metric: a count for ApiThrottled, else ms."""
    metrics.add_metric(name, MetricUnit.Count if name == "ApiThrottled" else MetricUnit.Milliseconds, value)


@contextlib.contextmanager
def traced(action: str, ids: Mapping[str, str]) -> Iterator[None]:
    """Make what happens inside a subsegment of the trace, to be found by its ids. It must not raise."""
    with tracer.provider.in_subsegment(f"## {action}") as subsegment:
        if subsegment is not None:
            for name, value in ids.items():
                subsegment.put_annotation(name, value)
        yield


def _error_fields(error: StopError) -> dict[str, Any]:
    return {"error_code": error.code, "error_message": error.message, "request_id": error.request_id}


def _metric_name(end: str) -> str:
    return end.title().replace("_", "")
