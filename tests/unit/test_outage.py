"""An outage of 2 days, with any settings of the stack: no message is lost, and none is given up without its reason.

It stops at one message that the function gets by itself, and at a queue that accepts every message.
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
TURNS_OF_LAMBDA = 16  # Lambda's guide, "Use Lambda recursive loop detection to prevent infinite loops"


@dataclass
class Message:
    """A message, or the copy that took its place; times in seconds."""

    first_sent: float
    sent: float
    receives: int = 0
    turns: int = 0


@dataclass
class Life:
    """How a message ended, how old it was, and how long its chain of queue, function, queue was."""

    end: str
    age_seconds: float
    turns: int


def live(
    sent: float,
    give_up_after_minutes: float,
    max_receive_count: int,
    seed: int,
    slowest_seconds: float = FUNCTION["Timeout"],
    lost_back_offs: float = 0.1,
) -> Life:
    """Let a message live: the API fails for the outage, which began at second 0, within `slowest_seconds` each time."""
    dice = random.Random(seed)
    message, now = Message(sent, sent), sent
    while True:
        if now - message.sent > QUEUE["MessageRetentionPeriod"]:
            return Life("expired", now - message.first_sent, message.turns)
        message.receives += 1
        if message.receives > max_receive_count:
            return Life("moved by SQS, without a reason", now - message.first_sent, message.turns)
        now += dice.uniform(0, slowest_seconds)
        if now >= OUTAGE_SECONDS:
            return Life("stopped", now - message.first_sent, message.turns)
        arrival = Arrival("m", "h", "{}", int(1_000 * message.first_sent), message.receives)
        end = end_of(
            Failure(arrival, NoAnswer("Code", "Silence.")),
            int(1_000 * now),
            max_receive_count=max_receive_count,
            give_up_after_ms=int(60_000 * give_up_after_minutes),
        )
        if end is End.RETRIED:
            # Some back-offs are not set, for example since SQS did not answer: then the queue's own applies.
            is_set = dice.random() >= lost_back_offs
            now += back_off_seconds(message.receives, dice.random()) if is_set else QUEUE["VisibilityTimeout"]
        elif end is End.REQUEUED:
            message = Message(message.first_sent, now, turns=message.turns + 1)
            now += delay_seconds(int(1_000 * (now - message.first_sent)), dice.random())
        else:
            return Life(end, now - message.first_sent, message.turns)


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
def test_a_message_of_an_outage_is_stopped_after_it_or_given_up_with_its_reason(
    sent: float, give_up_after_minutes: float, max_receive_count: int, seed: int
) -> None:
    life = live(sent, give_up_after_minutes, max_receive_count, seed)
    assert life.end in ("stopped", End.EXHAUSTED)
    if life.end == End.EXHAUSTED:
        assert life.age_seconds >= 60 * give_up_after_minutes - 1
    if sent + 60 * give_up_after_minutes > OUTAGE_SECONDS + 60:
        assert life.end == "stopped"


def test_the_chain_of_an_outage_is_longer_than_lambda_bears_by_default() -> None:
    turns = [live(0, 180, 6, seed, slowest_seconds=1, lost_back_offs=0).turns for seed in range(100)]
    assert TURNS_OF_LAMBDA <= min(turns) <= max(turns) < 500
    # So the function says that its chain is meant, and that it ends.
    assert FUNCTION["RecursiveLoop"] == "Allow"
