import pytest
from hypothesis import given
from hypothesis import strategies as st

from stop_segment import failures
from stop_segment.errors import (
    ConnectionLost,
    CredentialsRefused,
    InvalidMessage,
    KeyRenewed,
    NoTimeLeft,
    Rejected,
    Retryable,
    StopError,
)
from stop_segment.failures import Failure, back_off_seconds, dead_letter_kind


def failure(error: type[StopError] = Retryable, receive_count: int = 1, body: str = "{}") -> Failure:
    return Failure("m-1", "handle", body, receive_count, 1_795_327_920_123, error("Code", "It did not work."))


class TestBackOff:
    @pytest.mark.parametrize(
        ("receive_count", "ceiling"),
        [(1, 5), (2, 10), (3, 20), (4, 40), (5, 80), (6, 120), (7, 120), (1_000, 120), (10**9, 120)],
    )
    def test_the_longest_wait_doubles_up_to_two_minutes(self, receive_count: int, ceiling: int) -> None:
        assert [back_off_seconds(receive_count, jitter) for jitter in (0, 0.5, 1)] == [0, round(ceiling / 2), ceiling]

    @given(st.integers(1, 2**31), st.floats(0, 1))
    def test_every_wait_lies_between_none_and_the_longest(self, receive_count: int, jitter: float) -> None:
        seconds = back_off_seconds(receive_count, jitter)
        assert 0 <= seconds <= min(120, 5 * 2 ** min(receive_count - 1, 10))

    @given(st.integers(1, 20), st.floats(0, 1), st.floats(0, 1))
    def test_jitter_spreads_the_waits_over_the_whole_range(self, receive_count: int, one: float, other: float) -> None:
        less, more = sorted([one, other])
        assert back_off_seconds(receive_count, less) <= back_off_seconds(receive_count, more)


@pytest.mark.parametrize(
    ("error", "receive_count", "kind"),
    [
        (InvalidMessage, 1, "invalid_message"),
        (InvalidMessage, 6, "invalid_message"),
        (Rejected, 1, "rejected"),
        (Rejected, 6, "rejected"),
        (Retryable, 1, None),
        (Retryable, 5, None),
        (Retryable, 6, "exhausted"),
        (Retryable, 7, "exhausted"),
        (CredentialsRefused, 5, None),
        (CredentialsRefused, 6, "exhausted"),
        (ConnectionLost, 5, None),
        (ConnectionLost, 6, "exhausted"),
        (KeyRenewed, 6, "exhausted"),
        (NoTimeLeft, 5, None),
        (NoTimeLeft, 6, "exhausted"),
    ],
)
def test_a_message_goes_to_the_dead_letter_queue_when_nothing_more_can_be_done(
    error: type[StopError], receive_count: int, kind: str | None
) -> None:
    assert dead_letter_kind(failure(error, receive_count), max_receive_count=6) == kind


def test_a_message_that_may_be_received_once_is_exhausted_at_once() -> None:
    assert dead_letter_kind(failure(receive_count=1), max_receive_count=1) == "exhausted"


class TestParts:
    """What is sent in one call: SQS takes at most ten entries and one MiB."""

    MIB = 1_048_576

    @pytest.mark.parametrize(
        ("sizes", "lengths"),
        [
            ([], []),
            ([1], [1]),
            ([1] * 10, [10]),
            ([1] * 11, [10, 1]),
            ([1] * 25, [10, 10, 5]),
            ([MIB // 2, MIB // 2], [2]),
            ([MIB // 2, MIB // 2, 1], [2, 1]),
            ([MIB, MIB // 2, MIB // 2], [1, 2]),
            ([MIB, MIB], [1, 1]),
            ([1, 2 * MIB, 1], [1, 1, 1]),
        ],
    )
    def test_what_is_sent_is_split_by_number_and_size(self, sizes: list[int], lengths: list[int]) -> None:
        assert [len(part) for part in failures.parts(sizes, int)] == lengths

    @given(st.lists(st.integers(0, MIB + 10) | st.integers(0, 200_000), max_size=60))
    def test_nothing_is_lost_reordered_or_sent_in_too_large_a_part(self, sizes: list[int]) -> None:
        parts = list(failures.parts(sizes, int))
        assert [size for part in parts for size in part] == sizes
        assert all(1 <= len(part) <= 10 for part in parts)
        assert all(sum(part) <= self.MIB for part in parts if len(part) > 1)
