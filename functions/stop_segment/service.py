"""What a function environment makes once: the clients, and what remembers from one invocation to the next."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import botocore.session
from botocore.config import Config

from stop_segment.calls import Calls, InThread
from stop_segment.circuit import Circuit
from stop_segment.credentials import Credentials
from stop_segment.queues import Queues
from stop_segment.records import SegmentTable
from stop_segment.report import measure, traced
from stop_segment.rtc import RtcApi
from stop_segment.settings import Settings, SharedSettings, read_settings
from stop_segment.stopper import Stopper
from stop_segment.turns import Turns

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

THREADS = 64


@dataclass(frozen=True)
class Service:
    """What an invocation works with."""

    settings: Settings
    stopper: Stopper
    queues: Queues
    turns: tuple[Turns, Turns]
    loop: asyncio.Runner


@dataclass(frozen=True)
class Clients:
    """What a function that calls the RTC API and uses the table works with."""

    table: SegmentTable
    api: RtcApi
    sqs: SQSClient
    in_thread: InThread
    calls: Callable[[Turns], Calls]  # of one action of the API


def make_clients(settings: SharedSettings) -> Clients:
    """Make the clients."""
    config = Config(
        user_agent="rtc-segment-stopper",  # else botocore puts one together for each request: 7 % of a message's time
        parameter_validation=False,  # a sixth of a message's processor time: our requests have few forms, all tested
        connect_timeout=2,
        read_timeout=5,
        retries={"mode": "standard", "total_max_attempts": 3},
        max_pool_connections=THREADS,
    )
    session = botocore.session.get_session()  # boto3's would import S3's transfers as well, for nothing

    def client(service: str) -> Any:
        return session.create_client(service, config=config)

    credentials = Credentials(client("secretsmanager"), settings.rtc_credentials_secret_arn, time.monotonic)
    threads = ThreadPoolExecutor(THREADS)

    async def in_thread(function: Callable[..., Any], *arguments: object) -> Any:
        return await asyncio.get_running_loop().run_in_executor(threads, function, *arguments)

    circuit = Circuit(time.monotonic)

    def calls(turns: Turns) -> Calls:
        return Calls(turns, circuit, in_thread, time.monotonic, measure)

    table = SegmentTable(client("dynamodb"), settings.segment_table_name, settings.record_retention_seconds)
    api = RtcApi(settings, credentials, connections=THREADS, traced=traced)
    return Clients(table, api, client("sqs"), in_thread, calls)


def make_service(environment: Mapping[str, str]) -> Service:
    """Make what the stop function works with.

    Raises
    ------
    SettingsError
        A setting is missing or makes no sense.
    """
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
        clients.sqs, settings.event_queue_url, settings.dead_letter_queue_url, settings.failed_stop_queue_url
    )
    return Service(settings, stopper, queues, (stops, queries), asyncio.Runner())


def now_ms() -> int:
    """Return the time of day, Unix ms."""
    return time.time_ns() // 1_000_000
