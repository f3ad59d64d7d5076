"""In an outage of 2 days, with any settings of the stack, no message is lost or given up without its reason.

The proof covers a message that is alone in its batch, and a queue that accepts every message.
"""

import random
from dataclasses import dataclass

from hypothesis import example, given, settings
from hypothesis import strategies as st

from segments.errors import NoAnswer
from stop_segment.arrivals import Arrival
from stop_segment.failures import End, Failure, back_off_seconds, delay_seconds, end_of
from tests.transformed import PARAMETERS, SOURCE

OUTAGE_SECONDS = 48 * 3_600
QUEUE = SOURCE["Resources"]["EventQueue"]["Properties"]
FUNCTION = SOURCE["Resources"]["StopSegmentFunction"]["Properties"]
LAMBDA_CHAIN_LIMIT = 16  # Lambda's guide, "Use Lambda recursive loop detection to prevent infinite loops"


@dataclass
class Message:
    """A message, or the copy that replaced it. Times are in seconds."""

    first_sent: float
    sent: float
    receives: int = 0
    copies: int = 0


@dataclass
class Result:
    """The end of a message, its age then, and the number of copies in its chain from queue to function to queue."""

    end: str
    age_seconds: float
    copies: int


def play(
    sent: float,
    give_up_after_minutes: float,
    max_receive_count: int,
    seed: int,
    slowest_seconds: float = FUNCTION["Timeout"],
    lost_back_offs: float = 0.1,
) -> Result:
    """Follow a message to its end. The outage begins at second 0, and each call fails within `slowest_seconds`."""
    dice = random.Random(seed)
    message, now = Message(sent, sent), sent
    while True:
        if now - message.sent > QUEUE["MessageRetentionPeriod"]:
            return Result("expired", now - message.first_sent, message.copies)
        message.receives += 1
        if message.receives > max_receive_count:
            return Result("moved by SQS, without a reason", now - message.first_sent, message.copies)
        now += dice.uniform(0, slowest_seconds)
        if now >= OUTAGE_SECONDS:
            return Result("stopped", now - message.first_sent, message.copies)
        arrival = Arrival("m", "h", "{}", int(1_000 * message.first_sent), message.receives)
        end = end_of(
            Failure(arrival, NoAnswer("Code", "Silence.")),
            int(1_000 * now),
            max_receive_count=max_receive_count,
            give_up_after_ms=int(60_000 * give_up_after_minutes),
        )
        if end is End.RETRIED:
            # If SQS does not answer, a back-off is not set, and the queue's visibility time-out applies.
            is_set = dice.random() >= lost_back_offs
            now += back_off_seconds(message.receives, dice.random()) if is_set else QUEUE["VisibilityTimeout"]
        elif end is End.REQUEUED:
            message = Message(message.first_sent, now, copies=message.copies + 1)
            now += delay_seconds(int(1_000 * (now - message.first_sent)), dice.random())
        else:
            return Result(end, now - message.first_sent, message.copies)


def allowed(name: str, whole: bool) -> st.SearchStrategy[float]:
    least, most = PARAMETERS[name]["MinValue"], PARAMETERS[name]["MaxValue"]
    return st.integers(least, most) if whole else st.floats(least, most)


@settings(max_examples=150, deadline=None)
@given(
    st.floats(0, OUTAGE_SECONDS),
    allowed("GiveUpAfterMinutes", whole=False),
    allowed("MaxReceiveCount", whole=True),
    st.integers(0, 2**32),
)
@example(0.0, 5_760.0, 1, 0)
@example(0.0, 5_760.0, 1_000, 0)
@example(0.0, 0.0, 1, 0)
def test_a_message_is_stopped_after_an_outage_or_given_up_with_its_reason(
    sent: float, give_up_after_minutes: float, max_receive_count: int, seed: int
) -> None:
    result = play(sent, give_up_after_minutes, max_receive_count, seed)
    assert result.end in ("stopped", End.EXHAUSTED)
    if result.end == End.EXHAUSTED:
        assert result.age_seconds >= 60 * give_up_after_minutes - 1
    if sent + 60 * give_up_after_minutes > OUTAGE_SECONDS + 60:
        assert result.end == "stopped"


def test_an_outage_needs_a_longer_chain_than_lambda_allows_by_default() -> None:
    copies = [play(0, 180, 6, seed, slowest_seconds=1, lost_back_offs=0).copies for seed in range(100)]
    assert LAMBDA_CHAIN_LIMIT <= min(copies) <= max(copies) < 500
    # So the template allows the chain, which ends.
    assert FUNCTION["RecursiveLoop"] == "Allow"
