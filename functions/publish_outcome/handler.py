"""The Lambda function that publishes stops and dead letters on the outcome bus, and answers workflows."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit
from botocore.exceptions import BotoCoreError, ClientError

from publish_outcome.outcomes import Unpublishable, bytes_of, segment_stop_failed, segment_stopped
from publish_outcome.workflow_answers import OVER, answer_all, answer_in, code_of, make_client
from segments.batches import PUT_EVENTS_BYTES_A_CALL, parts

if TYPE_CHECKING:
    from mypy_boto3_events.client import EventBridgeClient
    from mypy_boto3_events.type_defs import PutEventsRequestEntryTypeDef

_MOST_NAMED = 10  # records in a log line

logger = Logger()
metrics = Metrics()
_events: EventBridgeClient = make_client("events")
_bus_name = os.environ["OUTCOME_EVENT_BUS_NAME"]


@logger.inject_lambda_context
@metrics.log_metrics
def handler(event: dict[str, Any], context: object) -> dict[str, list[dict[str, str]]]:  # noqa: ARG001 - Lambda passes it
    """Publish the stops in a batch of table changes, or process a batch of dead-letter notices and workflow answers.

    Returns the changes or messages that must be delivered again, as ``batchItemFailures``.
    """
    entries: dict[str, PutEventsRequestEntryTypeDef] = {}
    answers: dict[str, Mapping[str, Any]] = {}
    passed_over: dict[str, str] = {}
    for record in event["Records"]:
        try:
            if answer := answer_in(record):
                answers[record["messageId"]] = answer
                continue
            identifier, entry = _read(record)
        except Exception as error:  # noqa: BLE001 - a faulty record must not hold up the others behind it
            name = str(record.get("eventID") or record.get("messageId"))
            passed_over[name] = str(error) if isinstance(error, Unpublishable) else type(error).__name__
            continue
        if entry is not None:
            entries[identifier] = entry
    if passed_over:
        # These records can never become events. If they were delivered again, they would only delay other records.
        metrics.add_metric("OutcomesPassedOver", MetricUnit.Count, len(passed_over))
        reasons, records = sorted(set(passed_over.values())), list(passed_over)[:_MOST_NAMED]
        logger.error("outcome events passed over", reasons=reasons, count=len(passed_over), records=records)
    failures = [*_publish(entries), *_answer(answers)]
    return {"batchItemFailures": [{"itemIdentifier": identifier} for identifier in failures]}


def _read(record: Mapping[str, Any]) -> tuple[str, PutEventsRequestEntryTypeDef | None]:
    """Return the identifier of a table change or a notice, and the event to publish (None if there was no stop)."""
    if record["eventSource"] == "aws:sqs":
        return record["messageId"], segment_stop_failed(record["body"], _bus_name)
    change = record.get("dynamodb", {})
    entry = segment_stopped(change.get("OldImage", {}), change.get("NewImage", {}), _bus_name)
    return change.get("SequenceNumber", ""), entry


def _publish(entries: Mapping[str, PutEventsRequestEntryTypeDef]) -> dict[str, str]:
    """Put events on the bus, and return the reason for each rejected event, by the identifier of its record."""
    failures: dict[str, str] = {}
    for part in parts(list(entries), lambda one: bytes_of(entries[one]), most_bytes=PUT_EVENTS_BYTES_A_CALL):
        failures |= _put(part, [entries[identifier] for identifier in part])
    metrics.add_metric("OutcomesPublished", MetricUnit.Count, len(entries) - len(failures))
    if failures:
        metrics.add_metric("OutcomesNotPublished", MetricUnit.Count, len(failures))
        logger.warning("outcome events not published", reasons=sorted(set(failures.values())), count=len(failures))
    return failures


def _put(identifiers: Sequence[str], entries: Sequence[PutEventsRequestEntryTypeDef]) -> dict[str, str]:
    try:
        answer = _events.put_events(Entries=entries)
    except (ClientError, BotoCoreError) as error:
        return dict.fromkeys(identifiers, code_of(error))
    # The answer may have fewer entries than the request: the missing entries were not accepted.
    results: list[Mapping[str, Any]] = [*answer.get("Entries", []), *({} for _ in identifiers)]
    return {
        identifier: result.get("ErrorCode", "Unknown")
        for identifier, result in zip(identifiers, results, strict=False)
        if "EventId" not in result
    }


def _answer(answers: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Answer workflows, and return the ids of the answers to deliver again. The log names messages, but no tokens."""
    again = []
    for identifier, failure in answer_all(answers).items():
        source = answers[identifier]["SourceMessageId"]
        if failure is None:
            metrics.add_metric("WorkflowAnswered", MetricUnit.Count, 1)
        elif failure in OVER:
            metrics.add_metric("WorkflowGone", MetricUnit.Count, 1)
            logger.info("workflow no longer waits", source_message_id=source)
        else:
            metrics.add_metric("WorkflowNotAnswered", MetricUnit.Count, 1)
            logger.warning("workflow not answered", reason=failure, source_message_id=source)
            again.append(identifier)
    return again
