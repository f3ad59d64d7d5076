"""The log, the metrics and the trace of a function."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

from aws_lambda_powertools import Logger, Metrics, Tracer
from aws_lambda_powertools.metrics import MetricUnit

logger = Logger()
metrics = Metrics()
tracer = Tracer(patch_modules=["botocore"])


def measure(name: str, value: float) -> None:
    """Emit a measured metric: a count for ApiThrottled, else ms."""
    metrics.add_metric(name, MetricUnit.Count if name == "ApiThrottled" else MetricUnit.Milliseconds, value)


@contextlib.contextmanager
def traced(action: str, ids: Mapping[str, str]) -> Iterator[None]:
    """Make what happens inside a subsegment of the trace, to be found by its ids. It must not raise."""
    with tracer.provider.in_subsegment(f"## {action}") as subsegment:
        if subsegment is not None:
            for name, value in ids.items():
                subsegment.put_annotation(name, value)
        yield
