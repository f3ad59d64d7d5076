"""The Lambda function behind the event queue: parse, serve, settle what failed, report."""

from __future__ import annotations

import asyncio
import os
import random
from typing import TYPE_CHECKING, Any

from stop_segment.arrivals import Arrival, arrive, waves
from stop_segment.errors import InvalidMessage, Retryable, StopError
from stop_segment.failures import Failure, dead_letter_kind
from stop_segment.report import RETRIED, log_failure, log_outcome, log_served, logger, metrics, tracer
from stop_segment.rules import Outcome
from stop_segment.service import make_service, now_ms
from stop_segment.stopper import Batch

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext

# What must still fit in when the last call has ended: its record, and the letters and back-offs of what failed.
SETTLING_SECONDS = 5.0

service = make_service(os.environ)
jitter = random.SystemRandom().random  # environments restored from one snapshot would share a generator's state


@logger.inject_lambda_context
@metrics.log_metrics(capture_cold_start_metric=True)
@tracer.capture_lambda_handler(capture_response=False)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, list[dict[str, str]]]:
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

    arrivals = [arrive(record) for record in event["Records"]]
    kept = service.loop.run(_serve_in_turns(arrivals, service.stopper.batch(seconds_left)))
    return {"batchItemFailures": [{"itemIdentifier": message_id} for message_id in kept]}


async def _serve_in_turns(arrivals: list[Arrival], batch: Batch) -> list[str]:
    stops, queries = service.turns
    async with stops.invocation(), queries.invocation():
        return _settle(await _serve(arrivals, batch))


async def _serve(arrivals: list[Arrival], batch: Batch) -> list[Failure]:
    failures: list[Failure] = []
    for wave in waves(arrivals):
        errors = await asyncio.gather(*(_serve_message(arrival, batch) for arrival in wave))
        failures.extend(_failure(arrival, error) for arrival, error in zip(wave, errors, strict=True) if error)
    return failures


async def _serve_message(arrival: Arrival, batch: Batch) -> StopError | None:
    if isinstance(arrival.content, InvalidMessage):
        return arrival.content
    if arrival.content is None:
        log_outcome(arrival, None, Outcome.IGNORED)
        return None
    try:
        served = await batch.serve(arrival.content)
    except StopError as error:
        return error
    except Exception as error:  # noqa: BLE001 - a fault of ours must not lose the message: it is tried again
        logger.exception("unexpected error", **arrival.log_fields)
        return Retryable("FunctionFailed", f"the function failed: {type(error).__name__}")
    log_served(arrival, served)
    return served.failure


def _failure(arrival: Arrival, error: StopError) -> Failure:
    return Failure(
        message_id=arrival.message.message_id,
        receipt_handle=arrival.message.receipt_handle,
        body=arrival.message.body,
        receive_count=arrival.message.receive_count,
        event_time_ms=arrival.time_ms,
        error=error,
        log_fields=arrival.log_fields,
    )


def _settle(failures: list[Failure]) -> list[str]:
    """Send the dead letters and set the back-offs; give the ids of the messages that SQS must keep."""
    kinds = {
        failure.message_id: kind
        for failure in failures
        if (kind := dead_letter_kind(failure, service.settings.max_receive_count))
    }
    letters = [(failure, kinds[failure.message_id]) for failure in failures if failure.message_id in kinds]
    sent = service.queues.send_dead_letters(letters, now_ms())
    kept = [failure for failure in failures if failure.message_id not in sent]
    service.queues.postpone(kept, jitter)
    for failure in failures:
        end = kinds[failure.message_id] if failure.message_id in sent else RETRIED
        log_failure(failure, end, unsent=failure.message_id in kinds and failure.message_id not in sent)
    return [failure.message_id for failure in kept]
