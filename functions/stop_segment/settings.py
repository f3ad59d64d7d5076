"""The stop function's settings, which are read from the environment and checked once, at start-up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from segments.settings import Reader, SettingsError, SharedSettings

# An account may send 60 GetSegmentTask requests per second (its page of the API). Other programs may use a third.
_QUERIES_PER_SECOND = 40


@dataclass(frozen=True)
class Settings(SharedSettings):
    """The stop function's settings that a deployment can change."""

    dead_letter_queue_url: str
    requests_per_second: int
    queries_per_second: int
    max_receive_count: int
    duplicate_window_ms: int
    stale_after_ms: int
    give_up_after_ms: int
    failed_stop_queue_url: str
    answer_queue_url: str
    observes: bool


def read_settings(environment: Mapping[str, str]) -> Settings:
    """Read the settings. Raises `SettingsError` if a setting is missing, out of range, or a URL that is not allowed."""
    read = Reader(environment)
    functions = read.number("MAX_CONCURRENCY", least=2)
    requests = read.number("RTC_QPS_LIMIT", least=1)
    if functions > min(requests, _QUERIES_PER_SECOND):
        raise SettingsError(
            f"MAX_CONCURRENCY must be at most RTC_QPS_LIMIT and at most {_QUERIES_PER_SECOND}: "
            "each invocation needs 1 request per second"
        )
    return Settings(
        **read.shared(),
        dead_letter_queue_url=read.text("DEAD_LETTER_QUEUE_URL"),
        requests_per_second=requests // functions,
        queries_per_second=_QUERIES_PER_SECOND // functions,
        max_receive_count=read.number("MAX_RECEIVE_COUNT", least=1),
        duplicate_window_ms=read.amount("DUPLICATE_WINDOW_SECONDS", 1000),
        stale_after_ms=read.amount("STALE_AFTER_SECONDS", 1000, least=1),
        give_up_after_ms=read.amount("GIVE_UP_AFTER_MINUTES", 60_000),
        failed_stop_queue_url=environment.get("FAILED_STOP_QUEUE_URL", ""),
        answer_queue_url=environment.get("ANSWER_QUEUE_URL", ""),
        observes=read.choice("MODE", ("stop", "observe")) == "observe",
    )
