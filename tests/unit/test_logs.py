"""The sandbox's logs are read completely, although the embedded AWS returns at most the 10,000 oldest lines."""

from typing import Any

import pytest

from sandbox.logs import LogReader


class Logs:
    """Answers as the embedded AWS does, which would need minutes to log so many lines."""

    def __init__(self, times_ms: list[int]) -> None:
        self.times_ms = times_ms

    def filter_log_events(self, logGroupName: str, startTime: int) -> dict[str, Any]:  # noqa: N803 - AWS's names
        assert logGroupName == "group"
        numbered = [(time_ms, number) for number, time_ms in enumerate(self.times_ms) if time_ms >= startTime]
        return {
            "events": [
                {"logStreamName": str(number), "timestamp": time_ms, "message": f'{{"number": {number}}}\n'}
                for time_ms, number in numbered[:10_000]
            ]
        }


def test_a_log_of_several_answers_is_read_completely() -> None:
    logs = Logs([4 * number for number in range(25_000)])
    reader = LogReader(logs, "group")
    assert [line["number"] for line in reader.read()] == list(range(25_000))
    logs.times_ms.append(100_001)
    assert [line["number"] for line in reader.read(since_ms=99_999)] == [25_000]


def test_a_log_that_cannot_be_read_completely_is_refused() -> None:
    with pytest.raises(RuntimeError, match="or more within 10000 ms, so lines are missing"):
        LogReader(Logs([1] * 10_001), "group").read()
