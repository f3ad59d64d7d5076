"""Deployed alarms and their data."""

from __future__ import annotations

import operator
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from sandbox.metrics import Metric, Values
from sandbox.stack import Sandbox

COMPARISONS = {
    "GreaterThanOrEqualToThreshold": operator.ge,
    "GreaterThanThreshold": operator.gt,
    "LessThanOrEqualToThreshold": operator.le,
    "LessThanThreshold": operator.lt,
}


class Alarm:
    """An alarm, as CloudWatch describes it."""

    def __init__(self, box: Sandbox, name: str) -> None:
        self.name = name
        self._cloudwatch = box.client("cloudwatch")
        self.description = self._describe()
        self.metric = Metric(
            self.description["Namespace"],
            self.description["MetricName"],
            frozenset((dimension["Name"], dimension["Value"]) for dimension in self.description["Dimensions"]),
        )
        self.period_seconds: int = self.description["Period"]
        self.threshold: float = self.description["Threshold"]

    def _describe(self) -> Mapping[str, Any]:
        (description,) = self._cloudwatch.describe_alarms(AlarmNames=[self.name])["MetricAlarms"]
        found: Mapping[str, Any] = description
        return found

    @property
    def state(self) -> tuple[str, str]:
        """The alarm's state in the embedded AWS, and the reason for that state."""
        description = self._describe()
        return description["StateValue"], description["StateReason"]

    @property
    def rings(self) -> bool:
        """Whether the alarm has been in ALARM: enough consecutive periods were past its threshold."""
        periods: int = self.description["EvaluationPeriods"]
        needed = self.description.get("DatapointsToAlarm", periods)
        breaching = self.breaching_periods()
        # A period without data does not breach: tests/unit/test_operations.py checks TreatMissingData.
        return any(sum(last - n in breaching for n in range(periods)) >= needed for last in breaching)

    def rings_after(self, period: int) -> bool:
        """Return whether the alarm is in ALARM at the end of a numbered period. Periods without data must be
        breaching."""
        assert self.description["TreatMissingData"] == "breaching"
        periods: int = self.description["EvaluationPeriods"]
        return not {period - n for n in range(periods)} & (self._periods() - self.breaching_periods())

    def breaching_periods(self) -> set[int]:
        """Return the numbers of the breaching periods of the last 6 hours, counted from 1970."""
        breaches = COMPARISONS[self.description["ComparisonOperator"]]
        return self._periods(lambda value: breaches(value, self.threshold))

    def _periods(self, which: Callable[[float], bool] = lambda _: True) -> set[int]:
        percentile = self.description.get("ExtendedStatistic")
        statistic: str = percentile or self.description["Statistic"]
        now = datetime.now(UTC)
        answer = self._cloudwatch.get_metric_statistics(
            Namespace=self.metric.namespace,
            **self.metric.arguments,
            Period=self.period_seconds,
            StartTime=now - timedelta(hours=6),
            EndTime=now + timedelta(minutes=1),
            **{"ExtendedStatistics" if percentile else "Statistics": [statistic]},
        )
        return {
            int(point["Timestamp"].timestamp()) // self.period_seconds
            for point in answer["Datapoints"]
            if which((point["ExtendedStatistics"] if percentile else point)[statistic])
        }

    def set_state(self, state: str) -> None:
        """Set the alarm's state, as an operator does to test its actions."""
        self._cloudwatch.set_alarm_state(AlarmName=self.name, StateValue=state, StateReason="set by a test")

    def put(self, metric: Metric, values: Values, *, period: int | None = None) -> None:
        """Put data as AWS would, now or in a numbered period. Embedded AWS then evaluates every alarm."""
        self._put(metric, values, time.time() if period is None else period * self.period_seconds)

    def put_until_it_rings(self, metric: Metric, *periods: Values) -> None:
        """Put the data of several periods, the newest last, and check that the alarm does not ring before the last."""
        now = time.time()
        for periods_ago, values in zip(reversed(range(len(periods))), periods, strict=True):
            assert not self.rings, f"{self.name} rings {periods_ago + 1} periods too early"
            self._put(metric, values, now - periods_ago * self.period_seconds)

    def _put(self, metric: Metric, values: Values, at: float) -> None:
        assert metric == self.metric, f"{self.name} watches another metric"
        data = [{**metric.arguments, "Timestamp": at, "Value": value} for value in values]
        self._cloudwatch.put_metric_data(Namespace=metric.namespace, MetricData=data)
