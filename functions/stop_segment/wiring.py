"""What an environment of the stop function makes once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass

from segments.clients import make_clients
from segments.pace import Turns
from segments.telemetry import measure
from segments.times import now_ms
from stop_segment.queues import Queues
from stop_segment.settings import Settings, read_settings
from stop_segment.stopper import Stopper


@dataclass(frozen=True)
class Wiring:
    """What an invocation uses of its environment."""

    settings: Settings
    stopper: Stopper
    queues: Queues
    turns: tuple[Turns, Turns]
    loop: asyncio.Runner


def make_wiring(environment: Mapping[str, str]) -> Wiring:
    """Make it. `SettingsError`: a setting is missing or makes no sense."""
    settings = read_settings(environment)
    clients = make_clients(settings)
    stops, queries = (
        Turns(share, time.monotonic) for share in (settings.requests_per_second, settings.queries_per_second)
    )
    stopper = Stopper(
        settings,
        clients.table,
        clients.api,
        stops=clients.calls(stops),
        queries=clients.calls(queries),
        in_thread=clients.in_thread,
        now_ms=now_ms,
        measure=measure,
    )
    queues = Queues(
        clients.sqs,
        settings.event_queue_url,
        settings.dead_letter_queue_url,
        settings.failed_stop_queue_url,
        settings.answer_queue_url,
    )
    return Wiring(settings, stopper, queues, (stops, queries), asyncio.Runner())
