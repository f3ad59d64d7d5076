"""The sweeper's settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from segments.settings import Reader, SharedSettings

_HOUR_MS = 3_600_000


@dataclass(frozen=True)
class SweepSettings(SharedSettings):
    """What a deployment can change of the sweeper."""

    max_task_ms: int


def read_settings(environment: Mapping[str, str]) -> SweepSettings:
    """Read the settings. `SettingsError`: one is missing, out of its range, or not a URL that may be called."""
    read = Reader(environment)
    read.number("SWEEP_MINUTES", least=1)
    return SweepSettings(**read.shared(), max_task_ms=read.amount("MAX_TASK_HOURS", _HOUR_MS))
