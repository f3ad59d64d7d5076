"""The cost on AWS of a million stops, duplicates, slices or room hours, computed from small measurements.

The prices are list prices of us-east-1 in US dollars, without free tiers. They come from the pages of Lambda, SQS,
DynamoDB and CloudWatch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

LOOKS_AN_HOUR = 12  # every 5 minutes
_MEMORY_GB = 0.5
_MILLION = 1_000_000
_SWEEPS_A_MONTH = LOOKS_AN_HOUR * 24 * 30
_PRICES = {
    "Lambda requests, $0.20 a million": ("invocations", 0.20 / _MILLION),
    "Lambda duration on arm64, $0.0000133334 a GB-second": ("function_seconds", 0.0000133334 * _MEMORY_GB),
    "SQS send, receive and delete, $0.40 a million": ("sqs_requests", 0.40 / _MILLION),
    "DynamoDB writes on demand, $0.625 a million": ("write_units", 0.625 / _MILLION),
    "DynamoDB reads on demand, $0.125 a million": ("read_units", 0.125 / _MILLION),
    "CloudWatch Logs, $0.50 a GB": ("log_bytes", 0.50 / 10**9),
}
# Lambda's own log lines for an invocation. CloudWatch Logs charges 26 bytes more for each line.
_REPORT = (
    "START RequestId: 01234567-0123-0123-0123-0123456789ab Version: $LATEST",
    "END RequestId: 01234567-0123-0123-0123-0123456789ab",
    "REPORT RequestId: 01234567-0123-0123-0123-0123456789ab\tDuration: 1.23 ms\tBilled Duration: 2 ms\t"
    "Memory Size: 512 MB\tMax Memory Used: 100 MB\t",
)
_REPORT_BYTES = sum(len(line) + 1 + 26 for line in _REPORT)


def per_million(spent: Mapping[str, Any]) -> dict[str, float]:
    """Price a million messages of one kind, from a result of `load.spending`.

    A sender of single messages pays one SQS request for each message. A batch costs two more requests, to receive and
    to delete its messages.
    """
    a_message = {name.removesuffix("_per_1000"): value / 1000 for name, value in spent.items()}
    return _price(a_message | {"sqs_requests": 1 + 2 * a_message["invocations"]}, _MILLION)


def per_million_slices(spent: Mapping[str, float]) -> dict[str, float]:
    """Price a million slices in the callback function, without the $1.00 that API Gateway costs."""
    log_bytes = spent["log_bytes"] + spent["invocations"] * _REPORT_BYTES
    return _price({**spent, "log_bytes": log_bytes}, _MILLION / spent["invocations"])


def per_million_room_hours(alive: Mapping[str, float]) -> dict[str, float]:
    """Price an hour of a million existing rooms, from a sweep of fewer rooms."""
    return _price(alive, _MILLION * LOOKS_AN_HOUR / alive["rooms"])


def standing_still(idle: Mapping[str, float]) -> dict[str, float]:
    """Price a month of sweeps without watched rooms."""
    return _price(idle, _SWEEPS_A_MONTH / idle["sweeps"])


def _price(spent: Mapping[str, float], times: float) -> dict[str, float]:
    return {label: times * spent[name] * price for label, (name, price) in _PRICES.items() if name in spent}
