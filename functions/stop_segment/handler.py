"""The Lambda function behind the event queue: parse, serve, settle failures, report.

The time of an invocation::

    calls begin    the last call and its record    settling            end
    |-----------------------|----------------------------|-------------|
                     seconds_left() is 0     unserved messages are tried again
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import random
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from segments.batches import at_once
from segments.clients import SQS_CALL_SECONDS, make_clients
from segments.errors import FunctionFailed, NoTimeLeft, StopError, Unanswered
from segments.pace import Turns
from segments.stop_rules import Outcome
from segments.telemetry import logger, measure, metrics
from segments.times import now_ms
from stop_segment.arrivals import Arrival, arrive, waves
from stop_segment.failures import End, Failure, end_of
from stop_segment.logs import log_failure, log_outcome, log_served, log_unanswered, log_unpublished
from stop_segment.queues import Queues
from stop_segment.settings import read_settings
from stop_segment.stopper import Batch, Stopper
from stop_segment.workflow_answers import failed, failed_before, is_published, served_well

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext

settings = read_settings(os.environ)
table, api, sqs, in_thread, calls = make_clients(settings)
stops = Turns(settings.requests_per_second, time.monotonic)
queries = Turns(settings.queries_per_second, time.monotonic)
stopper = Stopper(settings, table, api, calls(stops), calls(queries), in_thread, now_ms, measure)
queues = Queues(
    sqs,
    settings.event_queue_url,
    settings.dead_letter_queue_url,
    settings.failed_stop_queue_url,
    settings.answer_queue_url,
)
loop = asyncio.Runner()
# Steps one after the other, each with several calls at once: answers to workflows; dead letters and copies; notices and
# back-offs; copies for the answers that could not be sent.
SETTLING_CALLS = 4 if settings.answer_queue_url else 2
SETTLING_SECONDS = SETTLING_CALLS * SQS_CALL_SECONDS + 1.0  # the rest is for log lines and metrics
RECORD_SECONDS = 2.0  # if writing a record takes longer, its message is tried again

logger.append_keys(mode="observe" if settings.observes else "stop")
jitter = random.random


@logger.inject_lambda_context
@metrics.log_metrics(capture_cold_start_metric=True)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, list[dict[str, str]]]:
    """Serve a batch of messages, and return the messages that SQS must keep, as ``batchItemFailures``.

    Every other message has an outcome, a dead letter, or a copy in its place.
    """

    def until_settling() -> float:
        return context.get_remaining_time_in_millis() / 1000 - SETTLING_SECONDS

    def seconds_left() -> float:
        return until_settling() - RECORD_SECONDS - settings.call_seconds

    arrivals = [arrive(record) for record in event["Records"]]
    kept = loop.run(_serve(arrivals, stopper.batch(seconds_left), until_settling))
    return {"batchItemFailures": [{"itemIdentifier": message_id} for message_id in kept]}


async def _serve(arrivals: list[Arrival], batch: Batch, until_settling: Callable[[], float]) -> list[str]:
    failures: list[Failure] = []
    async with stops.invocation(), queries.invocation():
        for wave in waves(arrivals):
            errors = await asyncio.gather(*(_serve_in_time(arrival, batch, until_settling) for arrival in wave))
            failures.extend(Failure(arrival, error) for arrival, error in zip(wave, errors, strict=True) if error)
        return _settle(failures)


async def _serve_in_time(arrival: Arrival, batch: Batch, until_settling: Callable[[], float]) -> StopError | None:
    """Serve a message until the batch's failures must be settled, and return the error, if any."""
    try:
        async with asyncio.timeout(until_settling()):
            return await _serve_message(arrival, batch)
    except StopError as error:
        return error
    except TimeoutError:
        return NoTimeLeft("NoTimeLeft", "the invocation ends before the message is served, so it is tried again")
    except Exception as error:  # noqa: BLE001 - a fault of ours must not lose the message: it is tried again
        _on_the_side(logger.exception, "unexpected error", **arrival.log_fields)
        return FunctionFailed("FunctionFailed", f"the function failed on the message: {type(error).__name__}")


async def _serve_message(arrival: Arrival, batch: Batch) -> StopError | None:
    if arrival.is_given_up:
        return Unanswered(failed_before(arrival), has_letter=True)
    if isinstance(arrival.content, StopError):
        return arrival.content
    if arrival.content is None:
        _on_the_side(log_outcome, arrival, None, Outcome.IGNORED)
        return None
    served = await batch.serve(arrival.content)
    _on_the_side(log_served, arrival, served)
    if served.failure is None and arrival.content.task_token is not None:
        return Unanswered(served_well(arrival.message_id, arrival.content, served.done))
    return served.failure


def _settle(failures: list[Failure]) -> list[str]:
    """Send dead letters and copies, and set back-offs. Returns the ids of the messages that SQS must keep."""
    time_ms = now_ms()
    answered = _answer([(one, one.error.answer) for one in failures if isinstance(one.error, Unanswered)])
    failures = [failure for failure in failures if failure.message_id not in answered]
    limits = {"max_receive_count": settings.max_receive_count, "give_up_after_ms": settings.give_up_after_ms}
    ends = {failure.message_id: end_of(failure, time_ms, **limits) for failure in failures}
    letters = [(failure, end.value) for failure in failures if (end := ends[failure.message_id]).is_dead_letter]
    copies = [failure for failure in failures if ends[failure.message_id] is End.REQUEUED]
    sent = set().union(
        *_together((queues.send_dead_letters, letters, time_ms), (queues.send_copies, copies, time_ms, jitter))
    )
    # After the letters, so that a notified workflow finds its dead letter on the queue.
    sent_letters = [letter for letter in letters if letter[0].message_id in sent]
    reported = [letter for letter in sent_letters if is_published(letter[0])]
    waited_for = [letter for letter in sent_letters if letter[0].arrival.task_token]
    kept = [failure for failure in failures if failure.message_id not in sent]
    _together((_publish, reported, time_ms), (_answer_letters, waited_for, time_ms), (queues.postpone, kept, jitter))
    for failure in failures:
        _on_the_side(log_failure, failure, ends[failure.message_id], sent=failure.message_id in sent)
    return [failure.message_id for failure in kept]


def _publish(letters: list[tuple[Failure, str]], time_ms: int) -> None:
    """Report dead letters to the publishing function. If a report fails, its letter stays on the dead-letter queue."""
    if settings.failed_stop_queue_url:
        accepted = queues.send_notices(letters, time_ms)
        for failure, _ in letters:
            if failure.message_id not in accepted:
                log_unpublished(failure)


def _answer_letters(letters: list[tuple[Failure, str]], time_ms: int) -> None:
    """Answer the workflows of dead letters. For a failed answer, send a marked copy that only repeats the answer."""
    answered = _answer([(failure, failed(failure, kind)) for failure, kind in letters])
    queues.send_given_up([letter for letter in letters if letter[0].message_id not in answered], time_ms)


def _answer(answers: list[tuple[Failure, str]]) -> set[str]:
    """Answer workflows, and return the ids of the messages that need no further answer."""
    if not settings.answer_queue_url:
        for failure, _ in answers:
            _on_the_side(log_unanswered, failure, "the stack has no WorkflowArn")
        return {failure.message_id for failure, _ in answers}
    answered: set[str] = _on_the_side(queues.send_answers, answers) or set()
    for failure, _ in answers:
        if failure.message_id not in answered:
            _on_the_side(log_unanswered, failure, "the answer could not be sent")
    return answered


def _together(*steps: tuple[Any, ...]) -> list[set[str]]:
    """Run steps (a function and its arguments) at the same time, but skip steps with an empty first argument."""
    return [done or set() for done in at_once([functools.partial(_on_the_side, *step) for step in steps if step[1]])]


def _on_the_side(step: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Run a step that must not change any message's result. If the step raises, log the error and return None."""
    try:
        return step(*arguments, **options)
    except Exception:  # noqa: BLE001 - letters that were sent count, and so do the other messages' results
        with contextlib.suppress(Exception):
            logger.exception("unexpected error", step=getattr(step, "__name__", None))
        return None
