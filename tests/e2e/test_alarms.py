"""Every deployed alarm rings when its trouble occurs, not before, and notifies its topic.

Embedded AWS evaluates an alarm whenever data are put, but it adds up all periods of the alarm and all resources of the
metric. So `Alarm.rings` reads the data as CloudWatch does: period by period, with the alarm's own dimensions. Embedded
AWS turns no log line of a function into a metric, and publishes hardly any of AWS's own metrics. The tests put both
kinds of data: the values that a function really logged, and those that AWS publishes about a resource in trouble.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from uuid import uuid4

import pytest
from cfnlint.decode import cfn_yaml

from sandbox.callbacks import callback
from sandbox.embedded_aws import REGION
from sandbox.faults import FOREIGN_APP, SERVICE_UNAVAILABLE, Fault
from sandbox.metrics import Metric, Values, metrics_in
from sandbox.stack import EVENT_BUS, ROOT, STACK_NAME, Sandbox, make_queue, sandbox, wait_for
from tests.e2e.deployed_alarm import Alarm
from tests.e2e.observer import APP_ID, Observer, Room, failing, key_refused, now_ms, rfc3339
from tests.environments import taken

# In `make test`, tests/unit/test_operations.py checks that each alarm watches a metric that the code emits.
pytestmark = pytest.mark.long

TOPIC_ARN = f"arn:aws:sns:{REGION}:000000000000:on-call"
RESOURCES: Mapping[str, Any] = cfn_yaml.load(str(ROOT / "template.yaml"))["Resources"]
ALARMS = [name for name, resource in RESOURCES.items() if resource["Type"] == "AWS::CloudWatch::Alarm"]
# They ring if data are missing. Each has a dedicated test.
OF_MISSING_DATA = {"HeartbeatAlarm", "NoSweepAlarm"}
# Embedded AWS adds up the data of all alarms on a metric, so those that put more data come later.
OF_DATA = sorted(
    (name for name in ALARMS if name not in OF_MISSING_DATA),
    key=lambda name: RESOURCES[name]["Properties"]["Threshold"],
)


class OnCall:
    """A queue that is subscribed to the alarms' topic."""

    def __init__(self, box: Sandbox) -> None:
        self._sqs = box.client("sqs")
        self._url, arn = make_queue(box.aws, "on-call", sender="sns.amazonaws.com")
        self._notifications: list[dict[str, Any]] = []
        sns = box.client("sns")
        assert sns.create_topic(Name=TOPIC_ARN.rpartition(":")[2])["TopicArn"] == TOPIC_ARN
        sns.subscribe(TopicArn=TOPIC_ARN, Protocol="sqs", Endpoint=arn)

    def notified_of(self, alarm: Alarm) -> list[tuple[str, str]]:
        """Return an alarm's new states and their reasons, as the topic received them."""
        self._notifications += [json.loads(json.loads(one["Body"])["Message"]) for one in taken(self._sqs, self._url)]
        return [
            (one["NewStateValue"], one["NewStateReason"])
            for one in self._notifications
            if one["AlarmName"] == alarm.name
        ]


class Stack:
    """A deployed stack in which the tests cause troubles."""

    def __init__(self, box: Sandbox) -> None:
        self.box = box
        self.observer = Observer(box)
        self.on_call = OnCall(box)

    def alarm(self, logical_id: str) -> Alarm:
        return Alarm(self.box, self.observer.resource(logical_id))

    def room(self) -> Room:
        return Room(self.observer, f"room-{uuid4().hex}")

    def call_back(self, **forged: str) -> int:
        """Send a signed callback with values that were changed afterwards, and return the answer's status."""
        room_end = callback("RoomDestroy", {"RoomId": self.room().id}, rfc3339(now_ms()), app_id=APP_ID)
        return self.box.call_back(room_end | forged)

    def fail_to_stop(self) -> None:
        """Send a stop event, and wait until its first try has failed."""
        (message_id,) = self.box.send([self.room().event("RoomEnded", TaskId="audio")])
        self.observer.retried(message_id)

    def logged(
        self, alarm: Alarm, log_group: str, trouble: Callable[[], object], count: int = 1
    ) -> tuple[Metric, Values]:
        """Cause a trouble, and return `count` values of the alarm's metric that a function logged in it."""
        before = len(self._logged(alarm, log_group))
        trouble()
        new = wait_for(
            lambda: logged if len(logged := self._logged(alarm, log_group)[before:]) >= count else [],
            f"{count} values of {alarm.metric.name} in {log_group}",
            seconds=20,
        )
        (metric,) = {metric for metric, _ in new}
        return metric, [value for _, value in new]

    def _logged(self, alarm: Alarm, log_group: str) -> list[tuple[Metric, float]]:
        return [
            (metric, value)
            for line in self.box.log_lines(log_group)
            for metric, values in metrics_in(line)
            for value in values
            if metric.name == alarm.metric.name
        ]


Trouble = Callable[[Stack, Alarm], None]
Cause = Callable[[Stack], object]
TROUBLES: dict[str, Trouble] = {}


def rings(logical_id: str) -> Callable[[Trouble], Trouble]:
    """Register the trouble in which an alarm must ring."""

    def keep(trouble: Trouble) -> Trouble:
        TROUBLES[logical_id] = trouble
        return trouble

    return keep


def rings_at_once(logical_id: str, log_group: str = "StopSegmentLogGroup") -> Callable[[Cause], Cause]:
    """Register a trouble whose logged values make an alarm ring within one period."""

    def keep(cause: Cause) -> Cause:
        @rings(logical_id)
        def trouble(stack: Stack, alarm: Alarm) -> None:
            metric, values = stack.logged(alarm, log_group, lambda: cause(stack))
            alarm.put_until_it_rings(metric, [], values)

        return cause

    return keep


@rings_at_once("NewDeadLettersAlarm")
def event_that_is_given_up(stack: Stack) -> None:
    stack.box.send(["not JSON"])


@rings("TimeToStopAlarm")
def late_stops(stack: Stack, alarm: Alarm) -> None:
    def stop(event_time_ms: int) -> Callable[[], object]:
        room = stack.room()
        room.start("audio", at_ms=event_time_ms - 1)  # before the event, or a late event would not stop it
        return lambda: room.end_of("RoomEnded", TaskId="audio", EventTime=rfc3339(event_time_ms))

    metric, (quick,) = stack.logged(alarm, "StopSegmentLogGroup", stop(now_ms()))
    same_metric, (slow,) = stack.logged(alarm, "StopSegmentLogGroup", stop(now_ms() - 31_000))
    assert same_metric == metric
    assert quick < 30_000 < slow
    one_late, two_late = [quick] * 99 + [slow], [quick] * 98 + [slow] * 2
    alarm.put_until_it_rings(metric, one_late, two_late, two_late, one_late, two_late, two_late, two_late)


@rings_at_once("CredentialsRefusedAlarm")
def refused_key(stack: Stack) -> None:
    with key_refused(stack.box):
        stack.fail_to_stop()


@rings_at_once("SetupRefusedAlarm")
def account_with_unpaid_bills(stack: Stack) -> None:
    with failing(stack.box, Fault("error", status=403, code="OperationDenied.ServiceOverdue")):
        stack.fail_to_stop()


@rings("OrphansAlarm")
def tasks_without_a_stop_event(stack: Stack, alarm: Alarm) -> None:
    """Send the sweeper's RoomGone events: tests/e2e/test_sweeping.py shows how the sweeper finds these rooms."""

    def stop_orphan() -> None:
        room = stack.room()
        room.start("audio", at_ms=now_ms() - 60_000)
        assert room.end_of("RoomGone", TaskIds=["audio"]) == ["stopped"]

    metric, values = stack.logged(alarm, "StopSegmentLogGroup", stop_orphan)
    alarm.put_until_it_rings(metric, [*values] * 9, [], [*values] * 10)


@rings_at_once("SweepRefusedAlarm", "SweepRoomsLogGroup")
def refused_key_of_the_sweeper(stack: Stack) -> None:
    assert stack.room().end_of("SegmentStarted", TaskId="audio") == ["known"]
    with key_refused(stack.box):
        stack.box.sweep([])


@rings("RoomsRejectedAlarm")
def rooms_that_the_api_rejects(stack: Stack, alarm: Alarm) -> None:
    room = stack.room()
    assert room.end_of("SegmentStarted", TaskId="audio") == ["known"]
    with failing(stack.box, FOREIGN_APP):
        metric, (rejected,) = stack.logged(alarm, "SweepRoomsLogGroup", lambda: stack.box.sweep([]))
    assert rejected >= 1
    # Embedded AWS takes the mean of both periods.
    alarm.put_until_it_rings(metric, [9], [20 * rejected])


@rings_at_once("FailuresNotToldAlarm")
def failure_that_is_not_reported(stack: Stack) -> None:
    with stack.observer.without_permission("StopSegmentRole", "ReportFailures"):
        assert stack.room().end_of("RoomEnded", TaskId="not an id") == ["invalid_message"]


@rings("CallbackRefusedAlarm")
def forged_callbacks(stack: Stack, alarm: Alarm) -> None:
    def forge() -> None:
        assert [stack.call_back(Signature="0" * 64) for _ in range(5)] == [401] * 5

    metric, values = stack.logged(alarm, "ReceiveCallbackLogGroup", forge, 5)
    alarm.put_until_it_rings(metric, values[:4], [], values)


@rings_at_once("CallbackNotQueuedAlarm", "ReceiveCallbackLogGroup")
def callback_that_the_queue_refuses(stack: Stack) -> None:
    with stack.observer.without_permission("ReceiveCallbackRole", "QueueCallbacks"):
        assert stack.call_back() == 503


@rings("OutcomesRefusedAlarm")
def outcome_bus_that_refuses_events(stack: Stack, alarm: Alarm) -> None:
    """Embedded AWS does not redeliver records that the function reports as failed. AWS redelivers them, but not every
    minute."""
    body = stack.room().event("RoomEnded", TaskId="audio")
    with stack.observer.without_permission("PublishOutcomeRole", "Publish"):
        metric, values = stack.logged(alarm, "PublishOutcomeLogGroup", lambda: stack.box.send([body]))
    alarm.put_until_it_rings(metric, values, [], values, [], values)


@rings_at_once("WorkflowsUnansweredAlarm")
def workflow_that_is_not_answered(stack: Stack) -> None:
    """The stack has no WorkflowArn, so it may not answer any token."""
    stack.room().end_of("RoomEnded", TaskId="audio", TaskToken="t")


# AWS's own metrics: the watched resource, and the values period by period.
MOST_CALLBACKS_A_MINUTE = 60 * RESOURCES["CallbackStage"]["Properties"]["DefaultRouteSettings"]["ThrottlingRateLimit"]
OF_AWS: Mapping[str, tuple[str, list[Values]]] = {
    "DeadLettersAlarm": ("DeadLetterQueue", [[0], [1]]),
    "UndeliveredEventsAlarm": ("UndeliveredEventQueue", [[0], [1]]),
    "UnpublishedOutcomesAlarm": ("UnpublishedOutcomeQueue", [[0], [1]]),
    "OldestMessageAlarm": ("EventQueue", [[59], [119], [179], [239], [299]]),
    "StopSegmentErrorsAlarm": ("StopSegmentFunction", [[0], [1]]),
    "CallbackErrorsAlarm": ("ReceiveCallbackFunction", [[0], [1]]),
    "PublishOutcomeErrorsAlarm": ("PublishOutcomeFunction", [[0], [1]]),
    "SweepErrorsAlarm": ("SweepRoomsFunction", [[1], [1, 1]]),
    "StopSegmentThrottlesAlarm": ("StopSegmentFunction", [[1], [1]]),
    "CallbackThrottlesAlarm": ("ReceiveCallbackFunction", [[0], [1]]),
    "RecursionStoppedAlarm": ("StopSegmentFunction", [[], [1]]),
    "OutcomesBehindAlarm": ("PublishOutcomeFunction", [[300_000 * minutes] for minutes in (1, 2, 3)]),
    "CallbackLimitAlarm": ("CallbackApi", [[], [0.9 * MOST_CALLBACKS_A_MINUTE]]),
}


def of_aws(watched: str, periods: list[Values]) -> Trouble:
    def trouble(stack: Stack, alarm: Alarm) -> None:
        ((_, name),) = alarm.metric.dimensions
        assert name == stack.observer.resource(watched).rpartition("/")[2]
        alarm.put_until_it_rings(alarm.metric, *periods)

    return trouble


TROUBLES |= {logical_id: of_aws(*of) for logical_id, of in OF_AWS.items()}


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """Deploy a stack with every alarm, and a topic that the alarms notify."""
    with sandbox({"AlarmTopicArn": TOPIC_ARN, "HeartbeatAppId": APP_ID}, app_ids={APP_ID}) as box:
        yield Stack(box)


def test_every_alarm_is_deployed_and_has_a_trouble(stack: Stack) -> None:
    alarms = stack.box.client("cloudwatch").describe_alarms(AlarmNamePrefix=STACK_NAME)["MetricAlarms"]
    assert {alarm["AlarmName"] for alarm in alarms} == {stack.observer.resource(name) for name in ALARMS}
    assert TROUBLES.keys() == set(OF_DATA)


def test_alarms_watch_the_queues_of_undelivered_events_and_of_unpublished_outcomes(stack: Stack) -> None:
    events = stack.box.client("events")
    (rule,) = events.list_rules(EventBusName=EVENT_BUS)["Rules"]
    (target,) = events.list_targets_by_rule(Rule=rule["Name"], EventBusName=EVENT_BUS)["Targets"]
    function = stack.observer.resource("PublishOutcomeFunction")
    mappings = stack.box.client("lambda").list_event_source_mappings(FunctionName=function)["EventSourceMappings"]
    (destination,) = [mapping["DestinationConfig"] for mapping in mappings if mapping.get("DestinationConfig")]
    arns = target["DeadLetterConfig"]["Arn"], destination["OnFailure"]["Destination"]
    queues = [
        stack.observer.resource(OF_AWS[name][0]) for name in ("UndeliveredEventsAlarm", "UnpublishedOutcomesAlarm")
    ]
    assert [arn.rpartition(":")[2] for arn in arns] == [queue.rpartition("/")[2] for queue in queues]


@pytest.mark.parametrize("logical_id", OF_DATA)
def test_alarm_rings_in_its_trouble_and_not_before(stack: Stack, logical_id: str) -> None:
    alarm = stack.alarm(logical_id)
    assert not alarm.rings
    alarm.set_state("OK")
    TROUBLES[logical_id](stack, alarm)
    assert alarm.rings
    state, reason = alarm.state
    assert (state, reason.partition(":")[0]) == ("ALARM", "Threshold Crossed")
    wait_for(lambda: (state, reason) in stack.on_call.notified_of(alarm), f"news of {alarm.name}", seconds=20)


def test_sweep_alarm_rings_if_no_sweep_runs_or_the_api_answers_no_question(stack: Stack) -> None:
    alarm = stack.alarm("NoSweepAlarm")
    assert alarm.period_seconds * alarm.description["EvaluationPeriods"] == 2 * 60 * 60
    assert stack.room().end_of("SegmentStarted", TaskId="audio") == ["known"]
    metric, (answered, *_) = stack.logged(alarm, "SweepRoomsLogGroup", lambda: stack.box.sweep([]))
    with failing(stack.box, SERVICE_UNAVAILABLE):
        _, (silent, *_) = stack.logged(alarm, "SweepRoomsLogGroup", lambda: stack.box.sweep([]))
    assert answered == 0 < silent
    last = int(time.time()) // alarm.period_seconds
    alarm.put(metric, [answered], period=last - 4)
    assert not alarm.rings_after(last - 3)
    assert alarm.rings_after(last - 2)
    for period in (last - 2, last - 1):
        alarm.put(metric, [silent], period=period)
    assert alarm.rings_after(last - 1)
    alarm.put(metric, [answered], period=last)
    assert not alarm.rings_after(last)


def test_heartbeat_alarm_rings_after_15_minutes_without_a_heartbeat(stack: Stack) -> None:
    alarm = stack.alarm("HeartbeatAlarm")
    assert alarm.period_seconds * alarm.description["EvaluationPeriods"] == 15 * 60
    beat = json.dumps({"EventType": "Heartbeat", "AppId": APP_ID, "RoomId": "any", "TaskId": "any"})
    metric, values = stack.logged(alarm, "StopSegmentLogGroup", lambda: stack.observer.end_of(beat))
    last = int(time.time()) // alarm.period_seconds
    alarm.put(metric, values, period=last - 4)
    assert not alarm.rings_after(last - 2)
    assert alarm.rings_after(last - 1)
    # A heartbeat that fails is not counted.
    with key_refused(stack.box):
        (message_id,) = stack.box.send([beat])
        stack.observer.retried(message_id)
    alarm.set_state("OK")
    alarm.put(metric, [0])
    assert alarm.state[0] == "ALARM"
    alarm.put(metric, values)
    assert alarm.state[0] == "OK"
    assert not alarm.rings_after(last)
