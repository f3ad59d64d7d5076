"""The Lambda function behind the event queue: parse, serve, settle what failed, report."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import boto3
from aws_lambda_powertools import Logger, Metrics, Tracer
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response
from aws_lambda_powertools.utilities.batch.types import PartialItemFailureResponse
from aws_lambda_powertools.utilities.data_classes import SQSEvent
from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord
from aws_lambda_powertools.utilities.parameters import SecretsProvider
from aws_lambda_powertools.utilities.typing import LambdaContext
from botocore.config import Config

from stop_segment import events
from stop_segment.credentials import Credentials
from stop_segment.errors import InvalidMessage, Retryable, StopError
from stop_segment.failures import Failure, Queues, dead_letter_kind
from stop_segment.records import SegmentTable
from stop_segment.rtc import RtcApi
from stop_segment.rules import Outcome
from stop_segment.settings import Settings, read_settings
from stop_segment.stopper import Batch, Served, Stopper
from stop_segment.turns import Turns

THREADS = 64
# What must still fit in when the last call has ended: its record, and the letters and back-offs of what failed.
SETTLING_SECONDS = 5.0

logger = Logger()
metrics = Metrics()
tracer = Tracer(patch_modules=["botocore"])


@dataclass(frozen=True)
class Service:
    """What a function environment makes once."""

    settings: Settings
    stopper: Stopper
    queues: Queues
    loop: asyncio.Runner


@dataclass(frozen=True)
class Arrival:
    """A message and what it says: an event, None for a callback that does not concern us, or why it says nothing."""

    record: SQSRecord
    content: events.Event | InvalidMessage | None

    @property
    def log_fields(self) -> dict[str, Any]:
        """What every log line about the message holds."""
        fields: dict[str, Any] = {"message_id": self.record.message_id, "receive_count": self.receive_count}
        if isinstance(self.content, events.Event):
            event = self.content
            fields |= {
                "event_type": event.type.value,
                "event_id": event.event_id,
                "event_time": event.time_ms,
                "app_id": event.room.app_id,
                "room_id": event.room.room_id,
            }
        return fields

    @property
    def sent_ms(self) -> int:
        """When SQS took the message, Unix ms."""
        return int(self.record.attributes.sent_timestamp)

    @property
    def receive_count(self) -> int:
        """How often the message has been received, from 1."""
        return int(self.record.attributes.approximate_receive_count)


def make_service(environment: Mapping[str, str]) -> Service:
    """Make the clients.

    Raises
    ------
    SettingsError
        A setting is missing or makes no sense.
    """
    settings = read_settings(environment)
    config = Config(
        connect_timeout=2,
        read_timeout=5,
        retries={"mode": "standard", "total_max_attempts": 3},
        max_pool_connections=THREADS,
    )
    session = boto3.session.Session()
    secrets = SecretsProvider(boto3_client=session.client("secretsmanager", config=config))
    credentials = Credentials(secrets, settings.rtc_credentials_secret_arn, time.monotonic)
    threads = ThreadPoolExecutor(THREADS)

    async def in_thread(function: Callable[..., Any], *arguments: object) -> Any:
        return await asyncio.get_running_loop().run_in_executor(threads, function, *arguments)

    stopper = Stopper(
        settings,
        SegmentTable(
            session.client("dynamodb", config=config), settings.segment_table_name, settings.record_retention_seconds
        ),
        RtcApi(settings, credentials, connections=THREADS),
        stop_turns=Turns(settings.requests_per_second, time.monotonic),
        query_turns=Turns(settings.queries_per_second, time.monotonic),
        in_thread=in_thread,
        now_ms=_now_ms,
    )
    queues = Queues(session.client("sqs", config=config), settings.event_queue_url, settings.dead_letter_queue_url)
    return Service(settings, stopper, queues, asyncio.Runner())


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


service = make_service(os.environ)


@logger.inject_lambda_context
@metrics.log_metrics(capture_cold_start_metric=True)
@tracer.capture_lambda_handler(capture_response=False)
def handler(event: dict[str, Any], context: LambdaContext) -> PartialItemFailureResponse:
    """Serve a batch of messages.

    Returns
    -------
    dict
        ``{"batchItemFailures": [{"itemIdentifier": <message id>}, ...]}``: the messages that SQS is to keep. Every
        other one has ended in an outcome or on the dead-letter queue.
    """
    settings = service.settings
    call_seconds = settings.rtc_connect_timeout_seconds + settings.rtc_read_timeout_seconds

    def seconds_left() -> float:
        return context.get_remaining_time_in_millis() / 1000 - call_seconds - SETTLING_SECONDS

    arrivals = [_arrive(record) for record in SQSEvent(event).records]
    failures = service.loop.run(_serve(arrivals, service.stopper.batch(seconds_left)))
    kept = _settle(failures)

    def report(record: SQSRecord) -> None:
        if record.message_id in kept:
            raise kept[record.message_id]

    return process_partial_response(
        event, report, BatchProcessor(EventType.SQS, raise_on_entire_batch_failure=False), context
    )


def _arrive(record: SQSRecord) -> Arrival:
    attribute = record.message_attributes["EventTime"]
    content: events.Event | InvalidMessage | None
    try:
        content = events.parse_event(
            record.body, int(record.attributes.sent_timestamp), attribute.string_value if attribute else None
        )
    except InvalidMessage as error:
        content = error
    return Arrival(record, content)


async def _serve(arrivals: list[Arrival], batch: Batch) -> list[Failure]:
    failures: list[Failure] = []
    for wave in _waves(arrivals):
        errors = await asyncio.gather(*(_serve_message(arrival, batch) for arrival in wave))
        failures.extend(_failure(arrival, error) for arrival, error in zip(wave, errors, strict=True) if error)
    return failures


def _waves(arrivals: list[Arrival]) -> tuple[list[Arrival], list[Arrival]]:
    """Put what makes tasks known before what stops them, and of the stops the newest first: it answers the older."""
    notes: list[Arrival] = []
    stops: list[tuple[int, Arrival]] = []
    for arrival in arrivals:
        if isinstance(arrival.content, events.Event) and arrival.content.is_stop:
            stops.append((arrival.content.time_ms, arrival))
        else:
            notes.append(arrival)
    return notes, [arrival for _, arrival in sorted(stops, key=lambda stop: -stop[0])]


async def _serve_message(arrival: Arrival, batch: Batch) -> StopError | None:
    if isinstance(arrival.content, InvalidMessage):
        return arrival.content
    if arrival.content is None:
        _log_outcome(arrival, None, Outcome.IGNORED, None)
        return None
    try:
        served = await batch.serve(arrival.content)
    except StopError as error:
        return error
    except Exception as error:
        # A fault of ours must not lose the message: it is tried again, and kept with its reason.
        logger.exception("unexpected error", **arrival.log_fields)
        return Retryable("InternalError", f"the function failed: {type(error).__name__}")
    _log_served(arrival, served)
    return served.failure


def _failure(arrival: Arrival, error: StopError) -> Failure:
    return Failure(
        message_id=arrival.record.message_id,
        receipt_handle=arrival.record.receipt_handle,
        body=arrival.record.body,
        receive_count=arrival.receive_count,
        event_time_ms=arrival.content.time_ms if isinstance(arrival.content, events.Event) else arrival.sent_ms,
        error=error,
    )


def _settle(failures: list[Failure]) -> dict[str, StopError]:
    """Send the dead letters and set the back-offs; give what SQS must keep, by message id."""
    kinds = {
        failure.message_id: kind
        for failure in failures
        if (kind := dead_letter_kind(failure, service.settings.max_receive_count))
    }
    letters = [(failure, kinds[failure.message_id]) for failure in failures if failure.message_id in kinds]
    sent = service.queues.send_dead_letters(letters, _now_ms())
    kept = [failure for failure in failures if failure.message_id not in sent]
    service.queues.postpone(kept, random.random)
    for failure in failures:
        end = kinds[failure.message_id] if failure.message_id in sent else "retried"
        _log_failure(failure, end, unsent=failure.message_id in kinds and failure.message_id not in sent)
    return {failure.message_id: failure.error for failure in kept}


def _log_served(arrival: Arrival, served: Served) -> None:
    for done in served.done:
        _log_outcome(arrival, done.task_id, done.outcome, done.request_id)
    for task_id, error in served.failed:
        logger.warning(
            "task failed",
            task_id=task_id,
            error_code=error.code,
            error_message=error.message,
            request_id=error.request_id,
            **arrival.log_fields,
        )


def _log_outcome(arrival: Arrival, task_id: str | None, outcome: Outcome, request_id: str | None) -> None:
    # A room that ends without a known task usually means that nobody sends SegmentStarted.
    log = logger.warning if outcome is Outcome.NO_TASKS else logger.info
    log(outcome.value, outcome=outcome.value, task_id=task_id, request_id=request_id, **arrival.log_fields)
    metrics.add_metric(_metric_name(outcome.value), MetricUnit.Count, 1)


def _log_failure(failure: Failure, end: str, *, unsent: bool) -> None:
    logger.warning(
        "dead letter not sent" if unsent else end,
        outcome=end,
        message_id=failure.message_id,
        receive_count=failure.receive_count,
        event_time=failure.event_time_ms,
        error_code=failure.error.code,
        error_message=failure.error.message,
        request_id=failure.error.request_id,
    )
    metrics.add_metric(_metric_name(end), MetricUnit.Count, 1)


def _metric_name(end: str) -> str:
    return end.title().replace("_", "")
