"""A function's log, read repeatedly while the function writes to the log."""

from __future__ import annotations

import json
from typing import Any

# Invocations that end together may be logged in any order.
_OVERLAP_MS = 10_000
_MOST_EVENTS = 10_000


class LogReader:
    """A log group. Each reading asks only for new lines: the embedded AWS returns at most the 10,000 oldest lines.

    Parameters
    ----------
    client
        A boto3 client of CloudWatch Logs.
    """

    def __init__(self, client: Any, group: str) -> None:
        self._client = client
        self._group = group
        # In the embedded AWS, each invocation has its own log stream.
        self._invocations: dict[str, list[tuple[int, dict[str, Any]]]] = {}
        self._newest_ms = 0

    def read(self, since_ms: int = 0) -> list[dict[str, Any]]:
        """Return the lines in JSON that were logged at `since_ms` or later, until now."""
        while not self._read_on():
            pass
        return [line for lines in self._invocations.values() for logged_ms, line in lines if logged_ms >= since_ms]

    def _read_on(self) -> bool:
        """Read the new lines that fit into one answer, and return whether the answer holds all of them."""
        asked_ms = max(0, self._newest_ms - _OVERLAP_MS)
        events = self._client.filter_log_events(logGroupName=self._group, startTime=asked_ms)["events"]
        found: dict[str, list[tuple[int, dict[str, Any]]]] = {}
        for event in events:
            lines = [json.loads(line) for line in event["message"].splitlines() if line.startswith("{")]
            found.setdefault(event["logStreamName"], []).extend((event["timestamp"], line) for line in lines)
            self._newest_ms = max(self._newest_ms, event["timestamp"])
        self._invocations |= found
        if len(events) >= _MOST_EVENTS and self._newest_ms - _OVERLAP_MS <= asked_ms:
            raise RuntimeError(
                f"the log has {_MOST_EVENTS} lines or more within {_OVERLAP_MS} ms, so lines are missing: write fewer"
            )
        return len(events) < _MOST_EVENTS
