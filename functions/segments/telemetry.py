"""The log and the metrics of a function."""

from __future__ import annotations

import contextlib

from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit

logger = Logger()
metrics = Metrics()


def measure(name: str, value: float) -> None:
    """Emit a metric in ms (ApiThrottled as a count). Never raises an error, since no stop depends on a metric."""
    with contextlib.suppress(Exception):
        metrics.add_metric(name, MetricUnit.Count if name == "ApiThrottled" else MetricUnit.Milliseconds, value)
