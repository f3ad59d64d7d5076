"""The Lambda function behind the event queue: parse, serve, settle what failed, report."""

from __future__ import annotations

import asyncio
import os
import random
from typing import TYPE_CHECKING, Any

from segments.errors import FunctionFailed, InvalidMessage, StopError, Unanswered
from segments.events import Event
from segments.rules import Outcome
from segments.telemetry import logger, metrics
from segments.times import now_ms
from stop_segment.arrivals import Arrival, arrive, waves
from stop_segment.failures import End, Failure, end_of
from stop_segment.logs import log_failure, log_outcome, log_served, log_unanswered, log_untold
from stop_segment.notices import is_told
from stop_segment.stopper import Batch
from stop_segment.wiring import make_wiring
from stop_segment.workflows import failed, failed_before, served_well

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext

# What must still fit in when the last call has ended: its record, and the letters and back-offs of what failed.
SETTLING_SECONDS = 5.0

wiring = make_wiring(os.environ)
logger.append_keys(mode="observe" if wiring.settings.observes else "stop")
jitter = random.random


@logger.inject_lambda_context
@metrics.log_metrics(capture_cold_start_metric=True)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, list[dict[str, str]]]:
    """Serve a batch of messages.

    Returns
    -------
    dict
        ``{"batchItemFailures": [{"itemIdentifier": <message id>}, ...]}``: the messages that SQS is to keep. Every
        other one has ended in an outcome or on the dead-letter queue.
    """
    settings = wiring.settings
    call_seconds = settings.rtc_connect_timeout_seconds + settings.rtc_read_timeout_seconds

    def seconds_left() -> float:
        return context.get_remaining_time_in_millis() / 1000 - call_seconds - SETTLING_SECONDS

    arrivals = [arrive(record) for record in event["Records"]]
    kept = wiring.loop.run(_serve_in_turns(arrivals, wiring.stopper.batch(seconds_left)))
    return {"batchItemFailures": [{"itemIdentifier": message_id} for message_id in kept]}


async def _serve_in_turns(arrivals: list[Arrival], batch: Batch) -> list[str]:
    stops, queries = wiring.turns
    async with stops.invocation(), queries.invocation():
        return _settle(await _serve(arrivals, batch))


async def _serve(arrivals: list[Arrival], batch: Batch) -> list[Failure]:
    failures: list[Failure] = []
    for wave in waves(arrivals):
        errors = await asyncio.gather(*(_serve_message(arrival, batch) for arrival in wave))
        failures.extend(_failure(arrival, error) for arrival, error in zip(wave, errors, strict=True) if error)
    return failures


async def _serve_message(arrival: Arrival, batch: Batch) -> StopError | None:
    if arrival.is_given_up:
        return Unanswered(failed_before(arrival.message, arrival.task_token), has_letter=True)
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
        return FunctionFailed("FunctionFailed", f"the function failed: {type(error).__name__}")
    log_served(arrival, served)
    if served.failure is None and arrival.content.task_token is not None:
        return Unanswered(served_well(arrival.message.message_id, arrival.content, served.done))
    return served.failure


def _failure(arrival: Arrival, error: StopError) -> Failure:
    return Failure(
        message_id=arrival.message.message_id,
        receipt_handle=arrival.message.receipt_handle,
        body=arrival.message.body,
        receive_count=arrival.message.receive_count,
        event_time_ms=arrival.time_ms,
        first_sent_ms=arrival.first_sent_ms,
        error=error,
        group=arrival.app_id,
        event=arrival.content if isinstance(arrival.content, Event) else None,
        log_fields=arrival.log_fields,
        task_token=arrival.task_token,
    )


def _settle(failures: list[Failure]) -> list[str]:
    """Send dead letters and later copies, set the back-offs; give the ids of the messages that SQS must keep."""
    settings, queues, time_ms = wiring.settings, wiring.queues, now_ms()
    answered = _answer(
        [(failure, failure.error.answer) for failure in failures if isinstance(failure.error, Unanswered)]
    )
    failures = [failure for failure in failures if failure.message_id not in answered]
    ends = {
        failure.message_id: end_of(
            failure, time_ms, max_receive_count=settings.max_receive_count, give_up_after_ms=settings.give_up_after_ms
        )
        for failure in failures
    }
    letters = [(failure, end.value) for failure in failures if (end := ends[failure.message_id]).is_dead_letter]
    copies = [failure for failure in failures if ends[failure.message_id] is End.REQUEUED]
    sent = queues.send_dead_letters(letters, time_ms) | queues.send_copies(copies, time_ms, jitter)
    # After the letters: whoever is told of one finds it.
    _tell([(failure, kind) for failure, kind in letters if failure.message_id in sent and is_told(failure)], time_ms)
    _answer_letters(
        [(failure, kind) for failure, kind in letters if failure.message_id in sent and failure.task_token], time_ms
    )
    kept = [failure for failure in failures if failure.message_id not in sent]
    queues.postpone(kept, jitter)
    for failure in failures:
        log_failure(failure, ends[failure.message_id], sent=failure.message_id in sent)
    return [failure.message_id for failure in kept]


def _tell(letters: list[tuple[Failure, str]], time_ms: int) -> None:
    """Have workflows told of dead letters. A letter of which that fails lies on its queue all the same."""
    if letters and wiring.settings.failed_stop_queue_url:
        told = wiring.queues.send_notices(letters, time_ms)
        for failure, _ in letters:
            if failure.message_id not in told:
                log_untold(failure)


def _answer_letters(letters: list[tuple[Failure, str]], time_ms: int) -> None:
    """Have the workflows of dead letters answered. Another end would be one too many, so a copy asks for no stop."""
    answered = _answer([(failure, failed(failure, kind)) for failure, kind in letters])
    wiring.queues.send_given_up([letter for letter in letters if letter[0].message_id not in answered], time_ms)


def _answer(answers: list[tuple[Failure, str]]) -> set[str]:
    """Have workflows answered; give the ids of the messages of which nothing more is to be told."""
    if not wiring.settings.answer_queue_url:
        for failure, _ in answers:
            log_unanswered(failure, "the stack has no WorkflowArn")
        return {failure.message_id for failure, _ in answers}
    answered = wiring.queues.send_answers(answers)
    for failure, _ in answers:
        if failure.message_id not in answered:
            log_unanswered(failure, "the answer could not be handed over")
    return answered
