"""The Lambda function behind the segment table's stream and the queue of failed stops: each becomes an event."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import botocore.session
from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from publish_outcome.outcomes import segment_stop_failed, segment_stopped
from segments.batches import parts

if TYPE_CHECKING:
    from mypy_boto3_events.client import EventBridgeClient
    from mypy_boto3_events.type_defs import PutEventsRequestEntryTypeDef

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
    """Publish the stops among a batch of the table's changes, or a batch of failed stops.

    Returns
    -------
    dict
        ``{"batchItemFailures": [...]}``: the changes, or the messages, that are to be delivered again.
    """
    entries = {}
    for record in event["Records"]:
        if record["eventSource"] == "aws:sqs":
            entries[record["messageId"]] = segment_stop_failed(record["body"], _bus_name)
            continue
        change = record.get("dynamodb", {})
        entry = segment_stopped(_values(change.get("OldImage", {})), _values(change.get("NewImage", {})), _bus_name)
        if entry is not None:
            entries[change["SequenceNumber"]] = entry
    return {"batchItemFailures": [{"itemIdentifier": identifier} for identifier in _publish(entries)]}


def _values(image: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """Take each attribute's value out of its type; a number stays the text that DynamoDB makes of it."""
    return {name: value for name, typed in image.items() for value in typed.values()}


def _publish(entries: Mapping[str, PutEventsRequestEntryTypeDef]) -> dict[str, str]:
    """Put the events on the bus; give why each that was not taken was not, by its record's identifier."""
    failures: dict[str, str] = {}
    identifiers = list(entries)
    for part in parts(identifiers):
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
    return {
        identifier: result.get("ErrorCode", "Unknown")
        for identifier, result in zip(identifiers, answer["Entries"], strict=True)
        if "EventId" not in result
    }
