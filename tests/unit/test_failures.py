import pytest

from segments import batches
from segments.errors import (
    CredentialsRefused,
    FunctionFailed,
    InvalidMessage,
    NoTimeLeft,
    Rejected,
    Retryable,
    StopError,
)
from stop_segment.arrivals import Arrival
from stop_segment.failures import End, Failure, back_off_seconds, delay_seconds, end_of

T = 1_795_327_920_123
GIVE_UP_AFTER_MS = 3_600_000


def failure(error: type[StopError] = Retryable, receive_count: int = 1, body: str = "{}") -> Failure:
    return Failure(Arrival("m-1", "handle", body, T, receive_count), error("Code", "It did not work."))


@pytest.mark.parametrize(
    ("receive_count", "ceiling"),
    [(1, 5), (2, 10), (3, 20), (4, 40), (5, 80), (6, 120), (7, 120), (1_000, 120), (10**9, 120)],
)
def test_the_longest_back_off_doubles_up_to_two_minutes(receive_count: int, ceiling: int) -> None:
    assert [back_off_seconds(receive_count, jitter) for jitter in (0, 0.5, 1)] == [0, round(ceiling / 2), ceiling]


@pytest.mark.parametrize(
    ("error", "receive_count", "age_ms", "end"),
    [
        (InvalidMessage, 1, 0, End.INVALID_MESSAGE),
        (InvalidMessage, 6, 0, End.INVALID_MESSAGE),
        (Rejected, 1, 0, End.REJECTED),
        (Rejected, 6, 0, End.REJECTED),
        (Retryable, 1, GIVE_UP_AFTER_MS, End.RETRIED),
        (Retryable, 5, GIVE_UP_AFTER_MS, End.RETRIED),
        (Retryable, 6, GIVE_UP_AFTER_MS - 1, End.REQUEUED),
        (Retryable, 6, GIVE_UP_AFTER_MS, End.EXHAUSTED),
        (Retryable, 7, GIVE_UP_AFTER_MS, End.EXHAUSTED),
        (CredentialsRefused, 6, 0, End.REQUEUED),
        (NoTimeLeft, 6, 0, End.REQUEUED),
        (FunctionFailed, 5, 0, End.RETRIED),
        (FunctionFailed, 6, 0, End.EXHAUSTED),
    ],
)
def test_a_message_is_given_up_if_no_retry_can_help_or_if_it_is_too_old(
    error: type[StopError], receive_count: int, age_ms: int, end: End
) -> None:
    failed = failure(error, receive_count)
    assert end_of(failed, T + age_ms, max_receive_count=6, give_up_after_ms=GIVE_UP_AFTER_MS) is end


def test_with_one_receive_allowed_a_message_is_replaced_by_a_copy_at_once() -> None:
    ends = [
        end_of(failure(receive_count=1), T, max_receive_count=1, give_up_after_ms=give_up_ms) for give_up_ms in (0, 1)
    ]
    assert ends == [End.EXHAUSTED, End.REQUEUED]


@pytest.mark.parametrize(
    ("age_ms", "longest"), [(0, 5), (4_000, 5), (60_000, 60), (900_000, 900), (10_000_000, 900), (-1, 5)]
)
def test_a_copy_waits_at_most_as_long_as_its_message_is_old(age_ms: int, longest: int) -> None:
    assert [delay_seconds(age_ms, jitter) for jitter in (0, 1)] == [0, longest]


class TestParts:
    """The entries of one call: SQS accepts at most ten entries and one MiB."""

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
    def test_entries_are_split_by_number_and_size(self, sizes: list[int], lengths: list[int]) -> None:
        assert [len(part) for part in batches.parts(sizes, int)] == lengths
