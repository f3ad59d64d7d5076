"""The product and the peer, each on a dedicated embedded AWS, with the same concurrency, memory and RTC API."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess  # nosec B404 # runs SAM CLI
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from unittest import mock

import urllib3

from sandbox.embedded_aws import embedded_aws
from sandbox.rtc_double import RtcDouble
from sandbox.stack import ACCESS_KEY_ID, APP_ID, ROOT, SECRET_ACCESS_KEY, Sandbox, deploy, sandbox
from tools.event_queue import read_depth

CONCURRENCY = 5
PEER = Path(__file__).parent / "peer"
PEER_BUILD = ROOT / ".aws-sam" / "peer"
# The peer publishes no outcome events, so the product publishes no events in a comparison. No event counts as late:
# `drain` measures the rate of StopSegment, and `late` measures the rate of GetSegmentTask.
STALE_AFTER_SECONDS = 600
_PARAMETERS = {
    "StaleAfterSeconds": str(STALE_AFTER_SECONDS),
    "MaxConcurrency": str(CONCURRENCY),
    "MaxReceiveCount": "6",
    "EventBusName": '""',
    "OutcomeEventBusName": '""',
}
_RECORD_SIZE = {"CLOUDTRAIL_MAX_EVENTS": "100000"}
_WARM_UP_MESSAGES = 10 * CONCURRENCY  # a full batch for each environment
_QUIET_SECONDS = 8.0
_POLL_SECONDS = 1.0  # the RTC API double runs in this process: frequent polling would slow it down


@dataclass(frozen=True)
class Deployment(Sandbox):
    """A stack that stops segment tasks, and the RTC API that it calls."""

    name: str

    @property
    def table_name(self) -> str:
        """The name of the table that holds the deployment's records."""
        return self.outputs["SegmentTableName"]

    @property
    def function_name(self) -> str:
        """The name of the measured function."""
        return self.outputs["StopSegmentFunctionName"]

    @cached_property
    def log_group(self) -> str:
        """The name of the measured function's log group."""
        configuration = self.client("lambda").get_function_configuration(FunctionName=self.function_name)
        name: str = configuration["LoggingConfig"]["LogGroup"]
        return name

    @contextlib.contextmanager
    def held_back(self) -> Iterator[None]:
        """Hold all messages back from the function until the end of the block."""
        client = self.client("lambda")
        (mapping,) = client.list_event_source_mappings(FunctionName=self.function_name)["EventSourceMappings"]
        client.update_event_source_mapping(UUID=mapping["UUID"], Enabled=False)
        yield
        client.update_event_source_mapping(UUID=mapping["UUID"], Enabled=True)

    @contextlib.contextmanager
    def recorded(self) -> Iterator[None]:
        """Let the embedded AWS record every call that it serves. The recording slows the embedded AWS down."""
        self._record(on=True)
        yield
        self._record(on=False)

    def _record(self, *, on: bool) -> None:
        with urllib3.PoolManager(ca_certs=str(self.aws.ca_bundle)) as pool:
            answer = pool.request(
                "POST", f"{self.aws.endpoint}/_ministack/config", json={"cloudtrail._recording_enabled": str(on)}
            )
        if not answer.json()["applied"]:
            raise RuntimeError(
                "the embedded AWS refused to record its calls, so no cost was measured: run the benchmark again"
            )

    def settle(self, seconds: float, quiet_seconds: float = _QUIET_SECONDS) -> bool:
        """Wait until the event queue is empty, and return whether the queue is empty.

        The wait ends after `seconds`, or if nothing has changed for `quiet_seconds` and no message is waiting.
        """
        deadline = time.monotonic() + seconds
        last: tuple[int, int, int] | None = None
        changed_at = time.monotonic()
        while time.monotonic() < deadline:
            depth = read_depth(self.client("sqs"), self.outputs["EventQueueUrl"])
            if not depth.total:
                return True
            state = (depth.waiting, depth.in_work, len(self.rtc.requests))
            if state != last:
                last, changed_at = state, time.monotonic()
            elif not depth.waiting and time.monotonic() - changed_at > quiet_seconds:
                return False
            time.sleep(_POLL_SECONDS)
        return False

    def warm_up(self) -> None:
        """Start all function environments with messages, and reset the count of API requests."""
        tasks = [("661e", f"warm-{number}", "audio") for number in range(_WARM_UP_MESSAGES)]
        with self.held_back():
            self.send([message(*task) for task in tasks])
        if not self.settle(90, quiet_seconds=90):
            raise RuntimeError(f"the {self.name} did not serve the warm-up messages in 90 s: run the benchmark again")
        self.rtc.forget()


def message(
    app_id: str,
    room_id: str,
    task_id: str = "",
    event_type: str = "RoomEnded",
    event_id: str = "",
    event_time: str = "",
) -> str:
    """Create the body of a stop event. An empty `task_id` or `event_time` leaves out the field."""
    ids = {"AppId": app_id, "RoomId": room_id, **({"TaskId": task_id} if task_id else {})}
    time_of_event = {"EventTime": event_time} if event_time else {}
    return json.dumps({"EventType": event_type, "EventId": event_id or f"evt-{room_id}", **time_of_event, **ids})


@contextlib.contextmanager
def product(answer_after_seconds: float) -> Iterator[Deployment]:
    """Deploy the product on a new embedded AWS, and warm the functions up."""
    with (
        mock.patch.dict(os.environ, _RECORD_SIZE),
        sandbox(_PARAMETERS, app_ids={APP_ID}, answer_after_seconds=answer_after_seconds) as box,
    ):
        yield _ready(Deployment(box.aws, box.rtc, box.outputs, box.outcome_queue_url, "product"))


@contextlib.contextmanager
def peer(answer_after_seconds: float) -> Iterator[Deployment]:
    """Deploy the peer on a new embedded AWS, and warm the function up."""
    double = RtcDouble(secrets={ACCESS_KEY_ID: SECRET_ACCESS_KEY}, answer_after_seconds=answer_after_seconds)
    with mock.patch.dict(os.environ, _RECORD_SIZE), double as rtc, embedded_aws() as aws:
        key = json.dumps({"AccessKeyId": ACCESS_KEY_ID, "SecretAccessKey": SECRET_ACCESS_KEY})
        secret_arn = aws.client("secretsmanager").create_secret(Name="rtc-key", SecretString=key)["ARN"]
        outputs = deploy(aws, {"RtcHost": rtc.url, "RtcSecretArn": secret_arn}, PEER_BUILD / "template.yaml")
        yield _ready(Deployment(aws, rtc, outputs, "", "peer"))


BOTH: tuple[Callable[[float], contextlib.AbstractContextManager[Deployment]], ...] = (product, peer)


def _ready(deployment: Deployment) -> Deployment:
    client = deployment.client("lambda")
    configuration = client.get_function_configuration(FunctionName=deployment.function_name)
    (mapping,) = client.list_event_source_mappings(FunctionName=deployment.function_name)["EventSourceMappings"]
    same = (configuration["MemorySize"], mapping["ScalingConfig"]["MaximumConcurrency"])
    if same != (512, CONCURRENCY):
        raise RuntimeError(
            f"the {deployment.name} has memory and concurrency {same}, but a comparison needs {(512, CONCURRENCY)}: "
            "correct its template"
        )
    deployment.warm_up()
    return deployment


def build_peer() -> None:
    """Build the peer with SAM CLI."""
    command = [str(Path(sys.executable).with_name("sam")), "build", "--template", str(PEER / "template.yaml")]
    variables = os.environ | {"SAM_CLI_TELEMETRY": "0"}
    subprocess.run([*command, "--build-dir", str(PEER_BUILD)], cwd=ROOT, env=variables, check=True)  # noqa: S603 # nosec B603 # our own command, no shell
