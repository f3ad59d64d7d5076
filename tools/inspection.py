"""The facts about a stack that `status` judges, read from AWS."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from botocore.exceptions import ClientError

from segments.events import Room, Task
from tools.deployment import Deployment
from tools.event_queue import read_depth
from tools.event_source import EventSource, NoEventSource, find_event_source
from tools.letters import Group, group
from tools.queues import DeadLetterQueue
from tools.rooms import read_fields
from tools.status import HEARTBEAT_MS, REFUSED, Facts, Named, Trouble
from tools.sweeping import read_sweeping

NAMESPACE = "RtcSegmentStopper"
HEARTBEAT_ROOM, HEARTBEAT_TASK = "rtc-segment-stopper", "heartbeat"
_TAKEN = ("CallbackQueued", "CallbackReplayed", "CallbackIgnored")
_SERVED = ("stopped", "already_stopped", "heartbeat")  # the outcomes of a call that the API served
_DAY = timedelta(days=1)
_NEVER = (None, None)
_MOST_PAGES = 20  # of log lines: enough to judge the stack, and few enough to read within seconds

Client = Callable[[str], Any]


def inspect(client: Client, deployment: Deployment, interrupted: Callable[[], bool], now_ms: int) -> Facts:
    """Read all facts that `status` needs.

    Parameters
    ----------
    client
        A function that creates a boto3 client of a service.
    interrupted
        A function that returns whether a signal asked the program to end.
    """
    parameters, outputs = deployment.parameters, deployment.outputs
    cloudformation = client("cloudformation")
    resources = _resources(cloudformation, deployment.stack_name)
    metrics = _latest_metrics(client("cloudwatch"), deployment, now_ms)
    secrets = client("secretsmanager")
    callback_secret = parameters.get("CallbackSecretArn")
    bus_name, topic_arn = parameters.get("OutcomeEventBusName"), parameters.get("AlarmTopicArn")
    hidden, complete, groups = _letters(client("sqs"), deployment.outputs["DeadLetterQueueUrl"], interrupted)
    log = _Log(client("logs"), resources["StopSegmentLogGroup"][1])
    heartbeat_ms = _heartbeat(client("dynamodb"), deployment)
    sweeps = parameters.get("SweepMinutes", "0") != "0"
    return Facts(
        now_ms=now_ms,
        parameters=parameters,
        defaults=_defaults(cloudformation, deployment.stack_name),
        changed_at_ms=deployment.changed_at_ms,
        event_source=_event_source(client("lambda"), deployment.outputs["EventQueueArn"]),
        callback_key=_callback_key(secrets, callback_secret) if callback_secret else None,
        queue=read_depth(client("sqs"), deployment.outputs["EventQueueUrl"]),
        oldest_seconds=metrics.get("ApproximateAgeOfOldestMessage", _NEVER)[1],
        letters_hidden=hidden,
        letters_complete=complete,
        letters=groups,
        ringing=_ringing(client("cloudwatch"), resources),
        callback_url=outputs.get("CallbackUrl"),
        version=outputs.get("Version"),
        outcome_bus=_outcome_bus(client("events"), bus_name) if bus_name else None,
        alarm_topic=_alarm_topic(client("sns"), topic_arn) if topic_arn else None,
        refusal=_refusal(log, now_ms),
        served=_served(log, now_ms - round(_DAY.total_seconds() * 1_000)),
        heartbeat_ms=heartbeat_ms,
        heartbeat_failure=_heartbeat_failure(log, heartbeat_ms, now_ms) if parameters.get("HeartbeatAppId") else None,
        sweeping=read_sweeping(client("dynamodb"), deployment.outputs["SegmentTableName"]) if sweeps else None,
        rejected_rooms=round(metrics.get("RoomsRejected", _NEVER)[1] or 0),
        rejected_at_ms=metrics.get("RoomsRejected", _NEVER)[0],
        called_back_at_ms=max((metrics[name][0] for name in _TAKEN if name in metrics), default=None),
        refused_at_ms=metrics.get("CallbackRefused", _NEVER)[0],
    )


def _latest_metrics(client: Any, deployment: Deployment, now_ms: int) -> dict[str, tuple[int, float]]:
    """Return the time (Unix ms) and the value of the newest datapoint of each metric that has datapoints."""
    ours = [{"Name": "service", "Value": deployment.stack_name}]
    queue = [{"Name": "QueueName", "Value": deployment.outputs["EventQueueArn"].rpartition(":")[2]}]
    asked = [
        ("AWS/SQS", "ApproximateAgeOfOldestMessage", queue, "Maximum"),
        *((NAMESPACE, name, ours, "Sum") for name in (*_TAKEN, "CallbackRefused", "RoomsRejected")),
    ]
    now = datetime.fromtimestamp(now_ms / 1000, UTC)
    answer = client.get_metric_data(
        StartTime=now - _DAY,
        EndTime=now + timedelta(minutes=1),
        ScanBy="TimestampDescending",
        MetricDataQueries=[
            {
                "Id": f"m{number}",
                "Label": name,
                "MetricStat": {
                    "Metric": {"Namespace": namespace, "MetricName": name, "Dimensions": dimensions},
                    "Period": 60,
                    "Stat": statistic,
                },
            }
            for number, (namespace, name, dimensions, statistic) in enumerate(asked)
        ],
    )
    newest: dict[str, tuple[int, float]] = {}
    for result in answer["MetricDataResults"]:
        points = [point for point in zip(result["Timestamps"], result["Values"], strict=True) if point[1]]
        if points:
            at, value = max(points)
            newest[result["Label"]] = int(at.timestamp() * 1000), value
    oldest = newest.get("ApproximateAgeOfOldestMessage")
    if oldest is not None and now_ms - oldest[0] > 5 * 60_000:
        del newest["ApproximateAgeOfOldestMessage"]  # an old datapoint does not show the present state
    return newest


def _resources(client: Any, stack_name: str) -> dict[str, tuple[str, str]]:
    """Return the type and the physical id of each resource, by its name in template.yaml."""
    pages = client.get_paginator("list_stack_resources").paginate(StackName=stack_name)
    return {
        one["LogicalResourceId"]: (one["ResourceType"], one.get("PhysicalResourceId", ""))
        for page in pages
        for one in page["StackResourceSummaries"]
    }


def _defaults(client: Any, stack_name: str) -> dict[str, str]:
    summary = client.get_template_summary(StackName=stack_name)
    return {one["ParameterKey"]: one.get("DefaultValue", "") for one in summary["Parameters"]}


def _event_source(client: Any, queue_arn: str) -> EventSource | None:
    try:
        return find_event_source(client, queue_arn)
    except NoEventSource:
        return None


def _callback_key(client: Any, secret_arn: str) -> Named:
    try:
        key = client.get_secret_value(SecretId=secret_arn).get("SecretString", "")
    except ClientError as error:
        return _unread("the callback secret cannot be read", error)
    return Named("" if key.strip() else "the callback secret is empty")


def _outcome_bus(client: Any, name: str) -> Named:
    # PutEvents does not report a missing bus: it answers 200, and drops the events (aws-cli 9186).
    try:
        client.describe_event_bus(Name=name)
    except ClientError as error:
        return _unread(f"{name} cannot be found, so its events are dropped", error)
    return Named()


def _alarm_topic(client: Any, arn: str) -> Named:
    try:
        attributes = client.get_topic_attributes(TopicArn=arn)["Attributes"]
    except ClientError as error:
        return _unread("the topic cannot be found, so no alarm notifies anyone", error)
    confirmed = int(attributes["SubscriptionsConfirmed"])
    return Named("" if confirmed else "the topic has no confirmed subscription, so no alarm notifies anyone")


def _unread(trouble: str, error: ClientError) -> Named:
    code = error.response["Error"]["Code"]
    denied = "AccessDenied" in code or "AuthorizationError" in code
    return Named(code if denied else f"{trouble}: {code}", readable=not denied)


def _letters(client: Any, queue_url: str, interrupted: Callable[[], bool]) -> tuple[int, bool, Sequence[Group]]:
    depth = read_depth(client, queue_url)
    if not depth.waiting:
        return depth.in_work, True, []
    with DeadLetterQueue(client, queue_url, interrupted) as queue:
        reading = queue.read()
    return reading.hidden, reading.complete, group(reading.letters)


def _ringing(client: Any, resources: Mapping[str, tuple[str, str]]) -> dict[str, str]:
    alarms = {real: name for name, (kind, real) in resources.items() if kind == "AWS::CloudWatch::Alarm"}
    answer = client.describe_alarms(AlarmNames=list(alarms), StateValue="ALARM", MaxRecords=100)
    return {alarms[alarm["AlarmName"]]: alarm.get("StateReason", "") for alarm in answer["MetricAlarms"]}


def _heartbeat(client: Any, deployment: Deployment) -> int | None:
    app_id = deployment.parameters.get("HeartbeatAppId")
    if not app_id:
        return None
    task = Task(Room(app_id, HEARTBEAT_ROOM), HEARTBEAT_TASK)
    item = read_fields(client, deployment.outputs["SegmentTableName"], task)
    return int(item["stopped_at"]["N"]) if "stopped_at" in item else None


class _Log:
    """The stop function's log."""

    def __init__(self, client: Any, log_group: str) -> None:
        self._client = client
        self._log_group = log_group

    def lines(self, pattern: str, since_ms: int) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield the log lines that match the pattern, the oldest first, each with its time in Unix ms.

        Only the first _MOST_PAGES pages of the log are read.
        """
        pages = self._client.get_paginator("filter_log_events").paginate(
            logGroupName=self._log_group, startTime=since_ms, filterPattern=pattern
        )
        for _, page in zip(range(_MOST_PAGES), pages, strict=False):
            for event in page["events"]:
                for line in event["message"].splitlines():
                    if line.startswith("{"):
                        yield event["timestamp"], json.loads(line)

    def failures(self, pattern: str, since_ms: int) -> Iterator[tuple[Trouble, dict[str, Any]]]:
        """Yield the failures among the log lines that match the pattern."""
        for at_ms, line in self.lines(pattern, since_ms):
            if "error_code" in line:
                yield Trouble(at_ms, line["error_code"], line.get("error_message", "")), line


def _heartbeat_failure(log: _Log, heartbeat_ms: int | None, now_ms: int) -> Trouble | None:
    """Find the cause of the heartbeat's last failure, if no heartbeat has succeeded since the failure."""
    since_ms = max(heartbeat_ms or 0, now_ms - HEARTBEAT_MS)
    found = log.failures('"Heartbeat" "error_code"', since_ms)
    failures = [failure for failure, line in found if line.get("event_type") == "Heartbeat"]
    return max(failures, key=lambda failure: failure.at_ms, default=None)


def _refusal(log: _Log, now_ms: int) -> Trouble | None:
    """Find the API's last refusal of the key, the account or the deployment, if no later call was served."""
    for minutes in (2, 15):  # a long outage may write more lines than are read
        found = (failure for failure, _ in log.failures('"error_code"', now_ms - minutes * 60_000))
        refusals = [failure for failure in found if failure.is_of(*REFUSED)]
        if refusals:
            last = max(refusals, key=lambda failure: failure.at_ms)
            return None if _served(log, last.at_ms + 1) else last
    return None


def _served(log: _Log, since_ms: int) -> bool:
    return any(line.get("outcome") in _SERVED for _, line in log.lines('"outcome"', since_ms))
