"""Writes one log line for each decision, and counts metrics."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

from aws_lambda_powertools.metrics import MetricUnit

from segments.errors import CircuitOpen, CredentialsRefused, NoTimeLeft, SetupRefused, StopError
from segments.events import EventType
from segments.stop_rules import Outcome
from segments.telemetry import logger, metrics
from stop_segment.arrivals import Arrival
from stop_segment.failures import End, Failure
from stop_segment.stopper import Served

MOST_LINES = 100  # tasks of a message, with a line each
_MOST_NAMED = 10  # tasks named in a line about several tasks


def log_served(arrival: Arrival, served: Served) -> None:
    """Log the results of an event's tasks: one line per task up to MOST_LINES, then one line per outcome."""
    for done in served.done[:MOST_LINES]:
        log_outcome(arrival, done.task_id, done.outcome, done.request_id)
    for outcome, tasks in Counter(done.outcome for done in served.done[MOST_LINES:]).items():
        logger.info(outcome.value, outcome=outcome.value, tasks=tasks, **arrival.log_fields)
        _count(arrival, outcome, tasks)
    lines = max(0, MOST_LINES - len(served.done))
    others: defaultdict[str, list[tuple[str, StopError]]] = defaultdict(list)
    for task_id, error in served.failed:
        # A call that was not made is only counted.
        if lines and not isinstance(error, (NoTimeLeft, CircuitOpen)):
            logger.warning("task failed", task_id=task_id, **_error_fields(error), **arrival.log_fields)
            lines -= 1
        else:
            others[error.code].append((task_id, error))
    for same in others.values():
        task_ids = [task_id for task_id, _ in same[:_MOST_NAMED]]
        fields = _error_fields(same[0][1]) | arrival.log_fields
        logger.warning("tasks failed", tasks=len(same), task_ids=task_ids, **fields)


def log_outcome(arrival: Arrival, task_id: str | None, outcome: Outcome, request_id: str | None = None) -> None:
    """Log the result of a task. `task_id` is None if the outcome concerns a room or no task at all."""
    logger.info(outcome.value, outcome=outcome.value, task_id=task_id, request_id=request_id, **arrival.log_fields)
    _count(arrival, outcome, 1)


def _count(arrival: Arrival, outcome: Outcome, tasks: int) -> None:
    metrics.add_metric(_metric_name(outcome.value), MetricUnit.Count, tasks)
    if outcome is Outcome.STOPPED and arrival.event and arrival.event.type is EventType.ROOM_GONE:
        metrics.add_metric("Orphans", MetricUnit.Count, tasks)


def log_failure(failure: Failure, end: End, *, sent: bool) -> None:
    """Log what happens to a failed message. If its dead letter or copy was not `sent`, the message is tried again."""
    unsent = not sent and end is not End.RETRIED
    message = f"{'dead letter' if end.is_dead_letter else 'copy'} not sent" if unsent else end.value
    outcome = End.RETRIED if unsent else end
    logger.warning(message, outcome=outcome.value, **_error_fields(failure.error), **failure.arrival.log_fields)
    metrics.add_metric(_metric_name(outcome.value), MetricUnit.Count, 1)
    if outcome.is_dead_letter:
        metrics.add_metric("DeadLettered", MetricUnit.Count, 1)
    for refusal in (CredentialsRefused, SetupRefused):
        if isinstance(failure.error, refusal):
            metrics.add_metric(refusal.__name__, MetricUnit.Count, 1)


def log_unpublished(failure: Failure) -> None:
    """Log that a dead letter will not be published."""
    logger.warning("failed stop not published", **_error_fields(failure.error), **failure.arrival.log_fields)
    metrics.add_metric("FailuresNotTold", MetricUnit.Count, 1)


def log_unanswered(failure: Failure, reason: str) -> None:
    """Log that a workflow was not answered, and why."""
    logger.warning("workflow not answered", reason=reason, **failure.arrival.log_fields)
    metrics.add_metric("WorkflowNotAnswered", MetricUnit.Count, 1)


def _error_fields(error: StopError) -> dict[str, Any]:
    return {"error_code": error.code, "error_message": error.message, "request_id": error.request_id}


def _metric_name(end: str) -> str:
    return end.title().replace("_", "")
