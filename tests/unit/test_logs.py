"""The sandbox's logs are read to their end, though the embedded AWS gives at most the 10,000 oldest lines."""

from typing import Any

import pytest

from sandbox.logs import LogReader


class Logs:
    """Answers as the embedded AWS does. A mock, since it takes minutes to log so much there."""

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


def test_more_than_one_answer_holds_is_read_to_its_end() -> None:
    logs = Logs([4 * number for number in range(25_000)])
    reader = LogReader(logs, "group")
    assert [line["number"] for line in reader.read()] == list(range(25_000))
    logs.times_ms.append(100_001)
    assert [line["number"] for line in reader.read(since_ms=99_999)] == [25_000]


def test_what_cannot_be_read_to_its_end_is_said() -> None:
    with pytest.raises(RuntimeError, match="the log of 10000 ms does not fit into one answer"):
        LogReader(Logs([1] * 10_001), "group").read()
