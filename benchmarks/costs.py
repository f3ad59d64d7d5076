"""What a million stops and a million duplicates cost on AWS, from what was measured of a few.

List prices in us-east-1, US dollars, without free tiers. The pages of Lambda, SQS, DynamoDB and CloudWatch tell them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MEMORY_GB = 0.5
_MILLION = 1_000_000
_GIGABYTE = 10**9


def per_million(spent: Mapping[str, Any]) -> dict[str, float]:
    """Price what a thousand messages spent, for a million.

    Parameters
    ----------
    spent
        What `load.spending` gives for one kind of message.

    Returns
    -------
    dict
        Dollars, by what they are for. Who sends singly pays one SQS request a message; the function's batches pay two
        each, to receive and to delete.
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
        "X-Ray, $5.00 a million traces, if all are sampled": 5.00 * invocations / _MILLION,
    }
