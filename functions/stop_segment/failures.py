"""Decides how a failed message ends: as a dead letter with its reason, or with a later attempt."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from segments.errors import FunctionFailed, InvalidMessage, Rejected, StopError, Unanswered
from stop_segment.arrivals import Arrival

BACK_OFF_BASE_SECONDS = 5
BACK_OFF_CAP_SECONDS = 120
_LONGEST_DELAY_SECONDS = 900  # of a message in SQS


@dataclass(frozen=True)
class Failure:
    """A failed message, and its error."""

    arrival: Arrival
    error: StopError

    @property
    def message_id(self) -> str:
        """The message's id, by which the invocation distinguishes its failures."""
        return self.arrival.message_id


class End(StrEnum):
    """The end of a failed message: a dead letter (named by its ErrorKind), a later copy, or the next receive."""

    INVALID_MESSAGE = "invalid_message"
    REJECTED = "rejected"
    EXHAUSTED = "exhausted"
    REQUEUED = "requeued"
    RETRIED = "retried"

    @property
    def is_dead_letter(self) -> bool:
        """Whether the message goes to the dead-letter queue."""
        return self not in (End.REQUEUED, End.RETRIED)


def end_of(failure: Failure, now_ms: int, *, max_receive_count: int, give_up_after_ms: int) -> End:
    """Decide what happens to a failed message.

    If the cause can pass, the message is tried until it is `give_up_after_ms` old. After the last receive, a copy
    replaces the message. Dead letters are for causes that people must fix.
    """
    arrival, error = failure.arrival, failure.error
    if isinstance(error, InvalidMessage):
        return End.INVALID_MESSAGE
    if isinstance(error, Rejected):
        return End.REJECTED
    if isinstance(error, Unanswered) and error.has_letter:
        return End.RETRIED  # until SQS moves the message, whose dead letter is already on the queue
    if arrival.receive_count < max_receive_count:
        return End.RETRIED
    may_pass = not isinstance(error, FunctionFailed)
    return End.REQUEUED if may_pass and now_ms - arrival.first_sent_ms < give_up_after_ms else End.EXHAUSTED


def back_off_seconds(receive_count: int, jitter: float) -> int:
    """Return the delay of the next try: exponential back-off with full `jitter` (a random number from 0 to 1)."""
    # The exponent is bounded first, since receive counts are not.
    ceiling = min(BACK_OFF_CAP_SECONDS, BACK_OFF_BASE_SECONDS * (1 << min(receive_count - 1, 16)))
    return round(jitter * ceiling)


def delay_seconds(age_ms: int, jitter: float) -> int:
    """Return the delay of a copy: at most the age of its message, so that many copies do not arrive at once.

    `jitter` is a random number from 0 to 1.
    """
    return round(jitter * min(_LONGEST_DELAY_SECONDS, max(BACK_OFF_BASE_SECONDS, age_ms / 1000)))
