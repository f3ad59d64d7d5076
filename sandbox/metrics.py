"""Metrics as CloudWatch reads them from the functions' logs.

The embedded AWS publishes neither the functions' metrics nor the metrics of AWS services.
"""

from __future__ import annotations

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

    @property
    def arguments(self) -> dict[str, Any]:
        """Return the metric's identity as the arguments of an API request."""
        dimensions = [{"Name": name, "Value": value} for name, value in sorted(self.dimensions)]
        return {"MetricName": self.name, "Dimensions": dimensions}


def metrics_in(line: Mapping[str, Any]) -> Iterator[tuple[Metric, Values]]:
    """Read the metrics of a log line in the embedded metric format, as CloudWatch does. Other lines have no metrics."""
    for directive in line.get("_aws", {}).get("CloudWatchMetrics", []):
        for names in directive["Dimensions"]:
            dimensions = frozenset((name, line[name]) for name in names)
            for metric in directive["Metrics"]:
                values = line[metric["Name"]]
                yield (
                    Metric(directive["Namespace"], metric["Name"], dimensions),
                    values if isinstance(values, list) else [values],
                )
