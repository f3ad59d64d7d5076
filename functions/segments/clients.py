"""The AWS clients, the API and the table of a function that calls the RTC API."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

import botocore.session
from botocore.config import Config

from segments.api_calls import Calls, InThread
from segments.circuit import Circuit
from segments.credentials import Credentials
from segments.ledger import SegmentTable
from segments.pace import Turns
from segments.rtc import RtcApi
from segments.settings import SharedSettings
from segments.telemetry import measure

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

THREADS = 64
# For SQS: an invocation must not end during a call. If a call takes longer, its message is tried again.
_SQS_CONNECT_SECONDS, _SQS_READ_SECONDS, _SQS_ATTEMPTS = 1, 3, 2
_MOST_BACK_OFF_SECONDS = 1  # botocore's standard mode waits up to this long before the second attempt
SQS_CALL_SECONDS = _SQS_ATTEMPTS * (_SQS_CONNECT_SECONDS + _SQS_READ_SECONDS) + _MOST_BACK_OFF_SECONDS


class Clients(NamedTuple):
    """The clients of a function that calls the RTC API."""

    table: SegmentTable
    api: RtcApi
    sqs: SQSClient
    in_thread: InThread
    calls: Callable[[Turns], Calls]  # of one action of the API


def make_clients(settings: SharedSettings) -> Clients:
    """Create the clients from the settings of a function."""
    config = Config(
        user_agent="rtc-segment-stopper",  # otherwise botocore builds one for each request: 7 % of a message's time
        parameter_validation=False,  # saves 17 % of a message's CPU time; tests cover the few forms of our requests
        connect_timeout=2,
        read_timeout=5,
        retries={"mode": "standard", "total_max_attempts": 3},
        max_pool_connections=THREADS,
    )
    session = botocore.session.get_session()  # boto3's own session would also import S3's transfers

    def client(service: str, own: Config | None = None) -> Any:
        return session.create_client(service, config=config.merge(own) if own else config)

    threads, circuit = ThreadPoolExecutor(THREADS), Circuit(time.monotonic)

    async def in_thread(function: Callable[..., Any], *arguments: object) -> Any:
        return await asyncio.get_running_loop().run_in_executor(threads, function, *arguments)

    def calls(turns: Turns) -> Calls:
        return Calls(turns, circuit, in_thread, time.monotonic, measure)

    name, retention_seconds = settings.segment_table_name, settings.record_retention_seconds
    table = SegmentTable(client("dynamodb"), name, retention_seconds, sweeps=settings.sweep_every_ms > 0)
    credentials = Credentials(client("secretsmanager"), settings.rtc_credentials_secret_arn, time.monotonic)
    hasty = Config(
        connect_timeout=_SQS_CONNECT_SECONDS,
        read_timeout=_SQS_READ_SECONDS,
        retries={"mode": "standard", "total_max_attempts": _SQS_ATTEMPTS},
    )
    return Clients(table, RtcApi(settings, credentials, THREADS), client("sqs", hasty), in_thread, calls)
