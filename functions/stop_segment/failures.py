"""What becomes of a message that failed: a dead letter with its reason, or a later attempt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from segments.errors import FunctionFailed, InvalidMessage, Rejected, StopError, Unanswered
from segments.events import Event

BACK_OFF_BASE_SECONDS = 5
BACK_OFF_CAP_SECONDS = 120
_LONGEST_DELAY_SECONDS = 900  # of a message, as SQS has it


@dataclass(frozen=True)
class Failure:
    """A message that failed.

    Parameters
    ----------
    event_time_ms
        Its event time T, or when it was sent where it says none that can be read.
    first_sent_ms
        When it was sent, or the first message that it is a copy of.
    group
        Its AppId, where it names one: SQS serves the quiet ones first while one floods the queue.
    event
        What it says, where that can be read.
    log_fields
        What a log line about it holds.
    task_token
        The task token of the workflow that waits for its end, if any.
    """

    message_id: str
    receipt_handle: str
    body: str
    receive_count: int
    event_time_ms: int
    first_sent_ms: int
    error: StopError
    group: str | None = None
    event: Event | None = None
    log_fields: Mapping[str, Any] = field(default_factory=dict)
    task_token: str | None = field(default=None, repr=False)


class End(StrEnum):
    """What becomes of a message that failed: a dead letter by its ErrorKind, a later copy, or its next receive."""

    INVALID_MESSAGE = "invalid_message"
    REJECTED = "rejected"
    EXHAUSTED = "exhausted"
    REQUEUED = "requeued"
    RETRIED = "retried"

    @property
    def is_dead_letter(self) -> bool:
        """Whether it goes to the dead-letter queue."""
        return self not in (End.REQUEUED, End.RETRIED)


def end_of(failure: Failure, now_ms: int, *, max_receive_count: int, give_up_after_ms: int) -> End:
    """Say what is to become of a message.

    An outage is nobody's fault: its messages are tried until they are `give_up_after_ms` old, from copies where SQS
    would not deliver the message once more. Dead letters are for what people must fix.
    """
    if isinstance(failure.error, InvalidMessage):
        return End.INVALID_MESSAGE
    if isinstance(failure.error, Rejected):
        return End.REJECTED
    if isinstance(failure.error, Unanswered) and failure.error.has_letter:
        return End.RETRIED  # until SQS moves it: its letter lies on the queue already
    if failure.receive_count < max_receive_count:
        return End.RETRIED
    may_pass = not isinstance(failure.error, FunctionFailed)
    return End.REQUEUED if may_pass and now_ms - failure.first_sent_ms < give_up_after_ms else End.EXHAUSTED


def back_off_seconds(receive_count: int, jitter: float) -> int:
    """Say when a message is tried again: exponential back-off with full jitter.

    Parameters
    ----------
    receive_count
        How often it has been received, from 1.
    jitter
        A random number from 0 to 1.
    """
    # The exponent is bounded before the power is: a receive count has no bound.
    ceiling = min(BACK_OFF_CAP_SECONDS, BACK_OFF_BASE_SECONDS * (1 << min(receive_count - 1, 16)))
    return round(jitter * ceiling)


def delay_seconds(age_ms: int, jitter: float) -> int:
    """Say how long a copy waits: up to as long as its message has been tried already, so that storms spread out.

    Parameters
    ----------
    age_ms
        How long ago the message was first sent.
    jitter
        A random number from 0 to 1.
    """
    return round(jitter * min(_LONGEST_DELAY_SECONDS, max(BACK_OFF_BASE_SECONDS, age_ms / 1000)))
