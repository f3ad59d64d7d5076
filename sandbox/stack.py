"""The real template, deployed by the real SAM CLI on an embedded AWS. The functions call the RTC API double."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import subprocess  # nosec B404 # runs SAM CLI
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from sandbox.callbacks import SECRET_KEY, post
from sandbox.embedded_aws import EmbeddedAws, embedded_aws
from sandbox.logs import LogReader
from sandbox.rtc_double import RtcDouble
from tools.event_queue import read_depth

ROOT = Path(__file__).parent.parent
BUILT_TEMPLATE = ROOT / ".aws-sam" / "build" / "template.yaml"
APP_ID = "661e"  # of the samples
STACK_NAME = "rtc-segment-stopper-sandbox"
SWEEPS = ("", "")  # the key of the item that the sweeper keeps about its sweeps
ACCESS_KEY_ID = "AKLTsandbox"
SECRET_ACCESS_KEY = "sandbox-secret-key"  # noqa: S105 # nosec B105 # the double's own
EVENT_BUS = "rooms"
SOURCE_TOPIC = "rooms"
OUTCOME_BUS = "outcomes"
# Few receives, so that a message becomes a dead letter within seconds. Few environments, because each is a process.
PARAMETERS = {
    "MaxConcurrency": "4",
    "MaxReceiveCount": "3",
    "EventBusName": EVENT_BUS,
    "OutcomeEventBusName": OUTCOME_BUS,
}

T = TypeVar("T")


class DeployError(Exception):
    """SAM CLI failed. The message holds the end of its output."""


@dataclass(frozen=True)
class Sandbox:
    """A deployed stack, with the embedded AWS and the RTC API double.

    Parameters
    ----------
    outputs
        The stack's outputs, as template.yaml names them.
    outcome_queue_url
        A queue that receives every event of the outcome bus.
    """

    aws: EmbeddedAws
    rtc: RtcDouble
    outputs: Mapping[str, str]
    outcome_queue_url: str

    def client(self, service: str) -> Any:
        """Return the boto3 client of `service` as the account's root."""
        return _client(self.aws, service)

    def call_back(self, callback: Mapping[str, Any]) -> int:
        """Send a callback to the stack's callback URL and return the HTTP status of its answer."""
        status, _ = post(self.aws, self.outputs["CallbackUrl"], json.dumps(callback))
        return status

    def send(self, bodies: Sequence[str]) -> list[str]:
        """Send messages to the event queue in as few calls as possible, and return the message ids."""
        message_ids: list[str] = []
        for start in range(0, len(bodies), 10):
            entries = [
                {"Id": str(number), "MessageBody": body} for number, body in enumerate(bodies[start : start + 10])
            ]
            answer = self.client("sqs").send_message_batch(QueueUrl=self.outputs["EventQueueUrl"], Entries=entries)
            if answer.get("Failed"):
                raise RuntimeError(f"the event queue refused these messages, correct them: {answer['Failed']}")
            message_ids += [entry["MessageId"] for entry in sorted(answer["Successful"], key=lambda e: int(e["Id"]))]
        return message_ids

    def undone(self) -> int:
        """Count the messages on the event queue that are waiting, in work or postponed."""
        return read_depth(self.client("sqs"), self.outputs["EventQueueUrl"]).total

    def dead_letters(self) -> list[dict[str, Any]]:
        """Receive and delete all dead letters, and return them as SQS does, with the attributes as strings."""
        return self._take_all(self.outputs["DeadLetterQueueUrl"])

    def outcome_events(self) -> list[dict[str, Any]]:
        """Receive and delete the events that the outcome bus has delivered to its queue."""
        return [json.loads(message["Body"]) for message in self._take_all(self.outcome_queue_url)]

    def _take_all(self, queue_url: str) -> list[dict[str, Any]]:
        sqs = self.client("sqs")
        taken: list[dict[str, Any]] = []
        while messages := sqs.receive_message(
            QueueUrl=queue_url, MaxNumberOfMessages=10, MessageAttributeNames=["All"]
        ).get("Messages"):
            for message in messages:
                attributes = message.get("MessageAttributes", {})
                values = {name: value["StringValue"] for name, value in attributes.items()}
                taken.append({**message, "MessageAttributes": attributes, "Attributes": values})
                sqs.delete_message(QueueUrl=queue_url, ReceiptHandle=message["ReceiptHandle"])
        return taken

    def records(self) -> dict[tuple[str, str], dict[str, Any]]:
        """Read all items of the segment table with plain values, by room and task_id."""
        pages = (
            self.client("dynamodb")
            .get_paginator("scan")
            .paginate(TableName=self.outputs["SegmentTableName"], ConsistentRead=True)
        )
        items: dict[tuple[str, str], dict[str, Any]] = {}
        for page in pages:
            for item in page["Items"]:
                plain = {name: _plain(attribute) for name, attribute in item.items()}
                items[plain["room"], plain["task_id"]] = plain
        return items

    def resource(self, logical_id: str) -> str:
        """Return the physical id of a resource of template.yaml."""
        return _physical_id(self.aws, logical_id)

    def invoke(self, logical_id: str, event: object) -> Any:
        """Invoke a function and return its answer, which has errorType and errorMessage if the function failed.

        The embedded AWS sometimes loses the process of a function, mostly at its start. Then the function is invoked
        again.
        """

        def answer() -> list[Any]:
            response = self.client("lambda").invoke(
                FunctionName=self.resource(logical_id), Payload=json.dumps(event, default=str)
            )
            content = json.load(response["Payload"])
            lost = "FunctionError" in response and content["errorMessage"].startswith("Worker process ")
            return [] if lost else [content]

        return wait_for(answer, f"an answer of {logical_id}")[0]

    def sweep(self, room_ids: Iterable[str]) -> Any:
        """Make the records of these rooms 1 minute older, sweep once, and return the sweeper's answer."""
        self.let_a_minute_pass((APP_ID, room_id) for room_id in room_ids)
        return self.invoke("SweepRoomsFunction", {})

    def let_a_minute_pass(self, rooms: Iterable[tuple[str, str]]) -> None:
        """Make the records of rooms (AppId, RoomId) and of the sweeps 1 minute older.

        A room that is given twice is made older only once, because a room older than the sweeps is never found gone
        twice. The lease of a crashed sweep expires, as before the next sweep of the schedule.
        """
        self.client("dynamodb").update_item(
            TableName=self.outputs["SegmentTableName"],
            Key={"room": {"S": "#".join(SWEEPS)}, "task_id": {"S": "#sweep"}},
            UpdateExpression="SET lease_until = :long_ago",
            ExpressionAttributeValues={":long_ago": {"N": "0"}},
        )
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(self._put_back, {SWEEPS, *rooms}))

    def _put_back(self, room: tuple[str, str]) -> None:
        times = {"started_at", "open_since", "gone_at", "round_began_at", "last_round_began_at"}
        dynamodb, table_name, key = self.client("dynamodb"), self.outputs["SegmentTableName"], {"S": "#".join(room)}
        items = dynamodb.query(
            TableName=table_name, KeyConditionExpression="room = :room", ExpressionAttributeValues={":room": key}
        )["Items"]
        for item in items:
            if earlier := sorted(times & item.keys()):
                dynamodb.update_item(
                    TableName=table_name,
                    Key={"room": key, "task_id": item["task_id"]},
                    UpdateExpression="SET " + ", ".join(f"{name} = {name} - :minute" for name in earlier),
                    ConditionExpression=" AND ".join(f"attribute_exists({name})" for name in earlier),
                    ExpressionAttributeValues={":minute": {"N": "60000"}},
                )

    def log_lines(self, log_group: str = "StopSegmentLogGroup", *, since_ms: int = 0) -> list[dict[str, Any]]:
        """Read the JSON lines that a function has logged so far.

        Parameters
        ----------
        log_group
            The log group's name in template.yaml.
        """
        return _log_reader(self.aws, log_group).read(since_ms)


def _plain(attribute: Mapping[str, Any]) -> Any:
    ((kind, value),) = attribute.items()
    return int(value) if kind == "N" else sorted(value) if kind == "SS" else value


@functools.cache
def _log_reader(aws: EmbeddedAws, log_group: str) -> LogReader:
    # Tests read a log many times while they wait for a line, so its name is looked up once.
    return LogReader(_client(aws, "logs"), _physical_id(aws, log_group))


def _physical_id(aws: EmbeddedAws, logical_id: str) -> str:
    answer = _client(aws, "cloudformation").describe_stack_resource(StackName=STACK_NAME, LogicalResourceId=logical_id)
    physical_id: str = answer["StackResourceDetail"]["PhysicalResourceId"]
    return physical_id


@functools.cache
def _client(aws: EmbeddedAws, service: str) -> Any:
    return aws.client(service)


@contextlib.contextmanager
def sandbox(
    parameters: Mapping[str, str] | None = None,
    *,
    key_policy: str | None = None,
    template: Path = BUILT_TEMPLATE,
    report: Callable[[str], object] = lambda _: None,
    start_aws: Callable[[], contextlib.AbstractContextManager[EmbeddedAws]] = embedded_aws,
    **double: Any,
) -> Iterator[Sandbox]:
    """Start an embedded AWS and an RTC API double, deploy the stack, and stop both servers at the end of the block.

    Parameters
    ----------
    parameters
        Values for the template's parameters, in addition to PARAMETERS.
    key_policy
        The policy of a KMS key that is created and passed as KmsKeyArn.
    template
        The template to deploy, with built functions.
    report
        A function that receives progress messages.
    start_aws
        A function whose context manager starts and stops the embedded AWS.
    double
        Further arguments of RtcDouble.

    Raises
    ------
    DeployError
        The template is not built, or its deployment fails.
    """
    report("Starting an AWS (ministack) and an RTC API on this machine ...")
    with RtcDouble(secrets={ACCESS_KEY_ID: SECRET_ACCESS_KEY}, **double) as rtc, start_aws() as aws:
        secrets = aws.client("secretsmanager")
        callback_secret = secrets.create_secret(Name="sandbox-callback", SecretString=SECRET_KEY)
        aws.client("events").create_event_bus(Name=EVENT_BUS)
        outcome_queue_url = _listen_to_outcomes(aws)
        surroundings = {
            "RtcEndpoint": rtc.url,
            "CallbackSecretArn": callback_secret["ARN"],
            "SourceTopicArn": aws.client("sns").create_topic(Name=SOURCE_TOPIC)["TopicArn"],
        }
        if key_policy:
            surroundings["KmsKeyArn"] = aws.client("kms").create_key(Policy=key_policy)["KeyMetadata"]["Arn"]
        report("Deploying template.yaml to it with SAM CLI ...")
        outputs = deploy(aws, surroundings | PARAMETERS | dict(parameters or {}), template)
        secrets.put_secret_value(
            SecretId=outputs["RtcCredentialsSecretArn"],
            SecretString=json.dumps({"AccessKeyId": ACCESS_KEY_ID, "SecretAccessKey": SECRET_ACCESS_KEY}),
        )
        yield Sandbox(aws, rtc, outputs, outcome_queue_url)


def _listen_to_outcomes(aws: EmbeddedAws) -> str:
    events = aws.client("events")
    events.create_event_bus(Name=OUTCOME_BUS)
    pattern = json.dumps({"source": ["rtc-segment-stopper"]})
    events.put_rule(Name="sandbox-outcomes", EventBusName=OUTCOME_BUS, EventPattern=pattern)
    url, arn = make_queue(aws, "sandbox-outcomes", sender="events.amazonaws.com")
    events.put_targets(Rule="sandbox-outcomes", EventBusName=OUTCOME_BUS, Targets=[{"Id": "queue", "Arn": arn}])
    return url


def make_queue(aws: EmbeddedAws, name: str, *, sender: str) -> tuple[str, str]:
    """Create a queue to which an AWS service may send, and return the queue's URL and ARN."""
    sqs = aws.client("sqs")
    url: str = sqs.create_queue(QueueName=name)["QueueUrl"]
    arn: str = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    statement = {"Effect": "Allow", "Principal": {"Service": sender}, "Action": "sqs:SendMessage", "Resource": arn}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": policy})
    return url, arn


def deploy(
    aws: EmbeddedAws, parameters: Mapping[str, str], template: Path = BUILT_TEMPLATE, stack_name: str = STACK_NAME
) -> dict[str, str]:
    """Deploy a built template with SAM CLI and return the stack's outputs."""
    if not template.exists():
        raise DeployError("the stack is not built: run `make build`")
    command = [
        *(str(Path(sys.executable).with_name("sam")), "deploy"),
        # SAM CLI looks for its settings next to the template.
        *("--config-file", str(ROOT / "samconfig.toml"), "--config-env", "sandbox"),
        *("--template-file", str(template), "--stack-name", stack_name),
        *("--parameter-overrides", *(f"{name}={value}" for name, value in parameters.items())),
    ]
    environment = os.environ | aws.environment | {"SAM_CLI_TELEMETRY": "0", "SAM_CLI_POLL_DELAY": "0.2"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)  # noqa: S603 # nosec B603 # our own command, no shell
    if done.returncode:
        raise DeployError(
            f"`sam deploy` failed. Fix the error at the end of its output:\n{(done.stdout + done.stderr)[-3000:]}"
        )
    number_the_concurrency(aws)
    stack = aws.client("cloudformation").describe_stacks(StackName=stack_name)["Stacks"][0]
    return {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}


def number_the_concurrency(aws: EmbeddedAws, numbered: Mapping[str, int] | None = None) -> dict[str, int]:
    """Set the concurrency of each event source mapping as a number, unless `numbered` has it. Return all numbers.

    ministack keeps a Number parameter as a string, and its poller fails with a string.
    """
    client, found = aws.client("lambda"), {}
    for mapping in client.list_event_source_mappings()["EventSourceMappings"]:
        if "ScalingConfig" in mapping:
            uuid, concurrency = mapping["UUID"], int(mapping["ScalingConfig"]["MaximumConcurrency"])
            found[uuid] = concurrency
            if (numbered or {}).get(uuid) != concurrency:
                client.update_event_source_mapping(UUID=uuid, ScalingConfig={"MaximumConcurrency": concurrency})
    return found


def wait_for(condition: Callable[[], T], what: str, *, seconds: float = 60) -> T:
    """Poll until `condition()` is true, and return its value.

    Raises
    ------
    TimeoutError
        The condition was not true in time. The message names the condition.
    """
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"timed out after {seconds:.0f} s of waiting for {what}: read the functions' logs")
        time.sleep(0.1)
    return value
