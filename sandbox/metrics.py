"""Metrics as CloudWatch reads them from what the functions log, and its statistics of them.

The embedded AWS publishes neither these nor its own metrics.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# The values of a metric within a period.
Values = Sequence[float]


@dataclass(frozen=True)
class Metric:
    """The identity of a metric in CloudWatch."""

    namespace: str
    name: str
    dimensions: frozenset[tuple[str, str]]

    @classmethod
    def of_queue(cls, name: str, queue: str) -> Metric:
        """Name the metric that AWS publishes of a queue, given by its URL or ARN."""
        return cls("AWS/SQS", name, frozenset({("QueueName", queue.replace("/", ":").rpartition(":")[2])}))

    @classmethod
    def of_function(cls, name: str, function: str) -> Metric:
        """Name the metric that AWS publishes of a function."""
        return cls("AWS/Lambda", name, frozenset({("FunctionName", function)}))

    @property
    def arguments(self) -> dict[str, Any]:
        """Name it as an API request does."""
        dimensions = [{"Name": name, "Value": value} for name, value in sorted(self.dimensions)]
        return {"MetricName": self.name, "Dimensions": dimensions}


def metrics_in(line: Mapping[str, Any]) -> Iterator[tuple[Metric, Values]]:
    """Read a log line as CloudWatch reads the embedded metric format; a line that is not in it has no metrics."""
    for directive in line.get("_aws", {}).get("CloudWatchMetrics", []):
        for names in directive["Dimensions"]:
            dimensions = frozenset((name, line[name]) for name in names)
            for metric in directive["Metrics"]:
                values = line[metric["Name"]]
                yield (
                    Metric(directive["Namespace"], metric["Name"], dimensions),
                    values if isinstance(values, list) else [values],
                )


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that this share of all values does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
