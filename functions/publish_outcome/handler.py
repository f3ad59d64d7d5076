"""The Lambda function behind the segment table's stream and the queue of what others are told: events and answers."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import botocore.session
from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from publish_outcome.answers import Answered, answer_all, answer_in
from publish_outcome.outcomes import Unpublishable, bytes_of, segment_stop_failed, segment_stopped
from segments.batches import PUT_EVENTS_BYTES_A_CALL, parts

if TYPE_CHECKING:
    from mypy_boto3_events.client import EventBridgeClient
    from mypy_boto3_events.type_defs import PutEventsRequestEntryTypeDef

_MOST_NAMED = 10  # records in a log line

logger = Logger()
metrics = Metrics()
_events = cast(
    "EventBridgeClient",
    botocore.session.get_session().create_client(
        "events",
        config=Config(connect_timeout=2, read_timeout=5, retries={"mode": "standard", "total_max_attempts": 3}),
    ),
)
_bus_name = os.environ["OUTCOME_EVENT_BUS_NAME"]


@logger.inject_lambda_context
@metrics.log_metrics
def handler(event: dict[str, Any], context: object) -> dict[str, list[dict[str, str]]]:  # noqa: ARG001 - Lambda passes it
    """Publish the stops among a batch of the table's changes, or a batch of failed stops and answers to workflows.

    Returns
    -------
    dict
        ``{"batchItemFailures": [...]}``: the changes, or the messages, that are to be delivered again.
    """
    entries: dict[str, PutEventsRequestEntryTypeDef] = {}
    answers: dict[str, Mapping[str, Any]] = {}
    passed_over: dict[str, str] = {}
    for record in event["Records"]:
        try:
            if told := answer_in(record):
                answers[record["messageId"]] = told
                continue
            identifier, entry = _read(record)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with one must not hold up the others behind it
            passed_over[_name(record)] = str(error) if isinstance(error, Unpublishable) else type(error).__name__
            continue
        if entry is not None:
            entries[identifier] = entry
    _report_passed_over(passed_over)
    failures = [*_publish(entries), *_answer(answers)]
    return {"batchItemFailures": [{"itemIdentifier": identifier} for identifier in failures]}


def _read(record: Mapping[str, Any]) -> tuple[str, PutEventsRequestEntryTypeDef | None]:
    """Make an event of a change of the table or of a notice; give what it is to be called where it fails, too."""
    if record["eventSource"] == "aws:sqs":
        return record["messageId"], segment_stop_failed(record["body"], _bus_name)
    change = record.get("dynamodb", {})
    entry = segment_stopped(change.get("OldImage", {}), change.get("NewImage", {}), _bus_name)
    return change.get("SequenceNumber", ""), entry


def _name(record: Mapping[str, Any]) -> str:
    """Name a record as its service does."""
    return str(record.get("eventID") or record.get("messageId"))


def _report_passed_over(reasons: Mapping[str, str]) -> None:
    """Say of which records no event will ever be made: delivered again, they would only hold up the others."""
    if reasons:
        metrics.add_metric("OutcomesPassedOver", MetricUnit.Count, len(reasons))
        records = list(reasons)[:_MOST_NAMED]
        logger.error(
            "outcome events passed over", reasons=sorted(set(reasons.values())), count=len(reasons), records=records
        )


def _publish(entries: Mapping[str, PutEventsRequestEntryTypeDef]) -> dict[str, str]:
    """Put the events on the bus; give why each that was not taken was not, by its record's identifier."""
    failures: dict[str, str] = {}
    identifiers = list(entries)
    for part in parts(
        identifiers, lambda identifier: bytes_of(entries[identifier]), most_bytes=PUT_EVENTS_BYTES_A_CALL
    ):
        failures |= _put(part, [entries[identifier] for identifier in part])
    metrics.add_metric("OutcomesPublished", MetricUnit.Count, len(entries) - len(failures))
    if failures:
        metrics.add_metric("OutcomesNotPublished", MetricUnit.Count, len(failures))
        logger.warning("outcome events not published", reasons=sorted(set(failures.values())), count=len(failures))
    return failures


def _put(identifiers: Sequence[str], entries: Sequence[PutEventsRequestEntryTypeDef]) -> dict[str, str]:
    try:
        answer = _events.put_events(Entries=entries)
    except ClientError as error:
        return dict.fromkeys(identifiers, error.response["Error"]["Code"])
    except BotoCoreError as error:
        return dict.fromkeys(identifiers, type(error).__name__)
    # An answer may be shorter than the request: what it does not name was not taken.
    results: list[Mapping[str, Any]] = [*answer.get("Entries", []), *({} for _ in identifiers)]
    return {
        identifier: result.get("ErrorCode", "Unknown")
        for identifier, result in zip(identifiers, results, strict=False)
        if "EventId" not in result
    }


def _answer(answers: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Answer workflows; give the ids of the answers that could not be given. The log names messages, never a token."""
    failures = []
    for identifier, answered in answer_all(answers).items():
        source = answers[identifier]["SourceMessageId"]
        match answered:
            case Answered.TAKEN:
                metrics.add_metric("WorkflowAnswered", MetricUnit.Count, 1)
            case Answered.GONE:
                metrics.add_metric("WorkflowGone", MetricUnit.Count, 1)
                logger.info("workflow waits no longer", source_message_id=source)
            case reason:
                metrics.add_metric("WorkflowNotAnswered", MetricUnit.Count, 1)
                logger.warning("workflow not answered", reason=reason, source_message_id=source)
                failures.append(identifier)
    return failures
