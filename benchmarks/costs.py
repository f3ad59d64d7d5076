"""The cost on AWS of a million stops, duplicates, slices or room sessions, from the measurements of a few.

List prices in us-east-1, US dollars, without free tiers. The pages of Lambda, SQS, DynamoDB and CloudWatch list them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

MEMORY_GB = 0.5
_MILLION = 1_000_000
_GIGABYTE = 10**9


def per_million(spent: Mapping[str, Any]) -> dict[str, float]:
    """Price a million messages from the spending of a thousand.

    Parameters
    ----------
    spent
        What `load.spending` gives for one kind of message.

    Returns
    -------
    dict
        Dollars, by their purpose. A sender of single messages pays one SQS request per message; the function's batches
        pay two each, to receive and to delete.
    """
    invocations = 1000 * spent["invocations_per_1000"]
    return {
        "Lambda requests, $0.20 a million": 0.20 * invocations / _MILLION,
        "Lambda duration on arm64, $0.0000133334 a GB-second": (
            0.0000133334 * MEMORY_GB * 1000 * spent["function_seconds_per_1000"]
        ),
        "SQS send, receive and delete, $0.40 a million": 0.40 * (_MILLION + 2 * invocations) / _MILLION,
        "DynamoDB writes on demand, $0.625 a million": 0.625 * 1000 * spent["write_units_per_1000"] / _MILLION,
        "DynamoDB reads on demand, $0.125 a million": 0.125 * 1000 * spent["read_units_per_1000"] / _MILLION,
        "CloudWatch Logs, $0.50 a GB": 0.50 * 1000 * spent["log_bytes_per_1000"] / _GIGABYTE,
    }


# What Lambda itself logs of an invocation, as CloudWatch Logs charges it: 26 bytes more for each line.
_REPORT = (
    "START RequestId: 01234567-0123-0123-0123-0123456789ab Version: $LATEST",
    "END RequestId: 01234567-0123-0123-0123-0123456789ab",
    "REPORT RequestId: 01234567-0123-0123-0123-0123456789ab\tDuration: 1.23 ms\tBilled Duration: 2 ms\t"
    "Memory Size: 512 MB\tMax Memory Used: 100 MB\t",
)
_REPORT_BYTES = sum(len(line) + 1 + 26 for line in _REPORT)


def per_million_slices(called: Mapping[str, float], served: Mapping[str, float] | None) -> dict[str, float]:
    """Price a million slices, behind API Gateway's own dollar.

    Parameters
    ----------
    called
        The callback function's spending on some slices.
    served
        The stop function's spending on the queued ones; None if none was queued.
    """
    share = _MILLION / called["messages"]

    def spent(name: str) -> float:
        return share * (called.get(name, 0) + (served or {}).get(name, 0))

    queued = share * (served or {}).get("messages", 0)
    batches = share * (served or {}).get("invocations", 0)
    log_bytes = spent("log_bytes") + spent("invocations") * _REPORT_BYTES
    return {
        "Lambda requests, $0.20 a million": 0.20 * spent("invocations") / _MILLION,
        "Lambda duration on arm64, $0.0000133334 a GB-second": 0.0000133334 * MEMORY_GB * spent("billed_ms") / 1000,
        "SQS send, receive and delete, $0.40 a million": 0.40 * (queued + 2 * batches) / _MILLION,
        "DynamoDB writes on demand, $0.625 a million": 0.625 * spent("write_units") / _MILLION,
        "DynamoDB reads on demand, $0.125 a million": 0.125 * spent("read_units") / _MILLION,
        "CloudWatch Logs, $0.50 a GB": 0.50 * log_bytes / _GIGABYTE,
    }


LOOKS_AN_HOUR = 12  # every five minutes
_SWEEPS_A_MONTH = 12 * 24 * 30


def per_million_room_hours(sweeps: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Price an hour of a million living rooms, from the sweeper's spending on some of them."""
    alive = sweeps["all alive"]
    return _swept(lambda name: _MILLION * LOOKS_AN_HOUR * alive[name] / alive["rooms"])


def standing_still(sweeps: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Price a month of a sweeper for which nothing is watched."""
    idle = sweeps["nothing watched"]
    return _swept(lambda name: _SWEEPS_A_MONTH * idle[name] / idle["sweeps"])


def _swept(spent: Callable[[str], float]) -> dict[str, float]:
    log_bytes = spent("log_bytes") + spent("invocations") * _REPORT_BYTES
    return {
        "Lambda requests, $0.20 a million": 0.20 * spent("invocations") / _MILLION,
        "Lambda duration on arm64, $0.0000133334 a GB-second": 0.0000133334 * MEMORY_GB * spent("function_seconds"),
        "DynamoDB writes on demand, $0.625 a million": 0.625 * spent("write_units") / _MILLION,
        "DynamoDB reads on demand, $0.125 a million": 0.125 * spent("read_units") / _MILLION,
        "CloudWatch Logs, $0.50 a GB": 0.50 * log_bytes / _GIGABYTE,
    }
