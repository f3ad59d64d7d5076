"""What people see of it: one log line a decision, and metrics."""

from __future__ import annotations

from typing import Any

from aws_lambda_powertools.metrics import MetricUnit

from segments.errors import CredentialsRefused, SetupRefused, StopError
from segments.events import Event, EventType
from segments.rules import Outcome
from segments.telemetry import logger, metrics
from stop_segment.arrivals import Arrival
from stop_segment.failures import End, Failure
from stop_segment.stopper import Served


def log_served(arrival: Arrival, served: Served) -> None:
    """Tell how each task of an event ended."""
    for done in served.done:
        log_outcome(arrival, done.task_id, done.outcome, done.request_id)
    for task_id, error in served.failed:
        logger.warning("task failed", task_id=task_id, **_error_fields(error), **arrival.log_fields)


def log_outcome(arrival: Arrival, task_id: str | None, outcome: Outcome, request_id: str | None = None) -> None:
    """Tell how a task ended; `task_id` is None where the outcome concerns a room or no task at all."""
    logger.info(outcome.value, outcome=outcome.value, task_id=task_id, request_id=request_id, **arrival.log_fields)
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
    for refusal in (CredentialsRefused, SetupRefused):
        if isinstance(failure.error, refusal):
            metrics.add_metric(refusal.__name__, MetricUnit.Count, 1)


def log_untold(failure: Failure) -> None:
    """Tell that workflows will not hear of a dead letter."""
    logger.warning("failed stop not told", **_error_fields(failure.error), **failure.log_fields)
    metrics.add_metric("FailuresNotTold", MetricUnit.Count, 1)


def log_unanswered(failure: Failure, reason: str) -> None:
    """Report that the workflow that waits for a message's end was not told of it."""
    logger.warning("workflow not answered", reason=reason, **failure.log_fields)
    metrics.add_metric("WorkflowNotAnswered", MetricUnit.Count, 1)


def _error_fields(error: StopError) -> dict[str, Any]:
    return {"error_code": error.code, "error_message": error.message, "request_id": error.request_id}


def _metric_name(end: str) -> str:
    return end.title().replace("_", "")
