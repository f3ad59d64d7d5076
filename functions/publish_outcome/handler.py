"""The Lambda function behind the segment table's stream: every stop becomes an event, at least once."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import boto3
from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response
from aws_lambda_powertools.utilities.batch.types import PartialItemFailureResponse
from aws_lambda_powertools.utilities.data_classes import DynamoDBStreamEvent
from aws_lambda_powertools.utilities.data_classes.dynamo_db_stream_event import DynamoDBRecord
from aws_lambda_powertools.utilities.typing import LambdaContext
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from publish_outcome.outcomes import segment_stopped

if TYPE_CHECKING:
    from mypy_boto3_events.type_defs import PutEventsRequestEntryTypeDef

_ENTRIES_A_CALL = 10

logger = Logger()
metrics = Metrics()
_events = boto3.session.Session().client(
    "events", config=Config(connect_timeout=2, read_timeout=5, retries={"mode": "standard", "total_max_attempts": 3})
)
_bus_name = os.environ["OUTCOME_EVENT_BUS_NAME"]


class NotPublished(Exception):
    """EventBridge did not take an event. The message has its reason."""


@logger.inject_lambda_context
@metrics.log_metrics
def handler(event: dict[str, Any], context: LambdaContext) -> PartialItemFailureResponse:
    """Publish the stops among a batch of changes.

    Returns
    -------
    dict
        ``{"batchItemFailures": [...]}``: the changes that the stream is to deliver again.
    """
    entries = {}
    for record in DynamoDBStreamEvent(event).records:
        if (entry := segment_stopped(*_images(record), _bus_name)) is not None:
            entries[_sequence_number(record)] = entry
    failures = _publish(entries)

    def report(record: DynamoDBRecord) -> None:
        if (reason := failures.get(_sequence_number(record))) is not None:
            raise NotPublished(reason)

    return process_partial_response(
        event, report, BatchProcessor(EventType.DynamoDBStreams, raise_on_entire_batch_failure=False), context
    )


def _images(record: DynamoDBRecord) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    change = record.dynamodb
    if change is None:
        return {}, {}
    return change.old_image or {}, change.new_image or {}


def _sequence_number(record: DynamoDBRecord) -> str:
    return str(record.dynamodb and record.dynamodb.sequence_number)


def _publish(entries: Mapping[str, PutEventsRequestEntryTypeDef]) -> dict[str, str]:
    """Put the events on the bus; give why each that was not taken was not, by sequence number."""
    failures: dict[str, str] = {}
    numbers = list(entries)
    for start in range(0, len(numbers), _ENTRIES_A_CALL):
        part = numbers[start : start + _ENTRIES_A_CALL]
        failures |= _put(part, [entries[number] for number in part])
    metrics.add_metric("OutcomesPublished", MetricUnit.Count, len(entries) - len(failures))
    if failures:
        metrics.add_metric("OutcomesNotPublished", MetricUnit.Count, len(failures))
        logger.warning("outcome events not published", reasons=sorted(set(failures.values())), count=len(failures))
    return failures


def _put(numbers: Sequence[str], entries: Sequence[PutEventsRequestEntryTypeDef]) -> dict[str, str]:
    try:
        answer = _events.put_events(Entries=entries)
    except ClientError as error:
        return dict.fromkeys(numbers, error.response["Error"]["Code"])
    except BotoCoreError as error:
        return dict.fromkeys(numbers, type(error).__name__)
    return {
        number: result.get("ErrorCode", "Unknown")
        for number, result in zip(numbers, answer["Entries"], strict=True)
        if "EventId" not in result
    }
