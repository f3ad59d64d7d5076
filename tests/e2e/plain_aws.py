"""An AWS of one's own making: ministack as it comes, without IAM and TLS."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import boto3

from sandbox.rtc_double import RtcDouble
from sandbox.stack import wait_for

# SAM CLI insists on a region and on credentials; which ones is all the same to ministack.
NEEDED = {"AWS_DEFAULT_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
KEY = {"AccessKeyId": "AKLTplain", "SecretAccessKey": "plain-secret-key"}


class PlainAws:
    """A ministack without AUTH and TLS."""

    def __init__(self, port: int) -> None:
        self.endpoint = f"http://127.0.0.1:{port}"

    @property
    def environment(self) -> dict[str, str]:
        """The caller's own environment without its AWS settings, and this AWS."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        return inherited | NEEDED | {"AWS_ENDPOINT_URL": self.endpoint, "SAM_CLI_TELEMETRY": "0"}

    def client(self, service: str) -> Any:
        return boto3.session.Session().client(
            service,  # type: ignore[call-overload]
            endpoint_url=self.endpoint,
            region_name=NEEDED["AWS_DEFAULT_REGION"],
            aws_access_key_id="test",
            aws_secret_access_key="test",
        )

    def answers(self) -> bool:
        try:
            urllib.request.urlopen(f"{self.endpoint}/_ministack/health", timeout=2).close()  # noqa: S310 - http
        except (urllib.error.URLError, OSError):
            return False
        return True


@contextlib.contextmanager
def plain_aws(tmp_path: Path) -> Iterator[PlainAws]:
    """Start one in a folder, and stop it at the end."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        aws = PlainAws(probe.getsockname()[1])
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "COV_CORE_"))}
    environment |= {
        "GATEWAY_PORT": aws.endpoint.rpartition(":")[2],
        "BIND_HOST": "127.0.0.1",
        "IOT_MTLS_ENABLED": "false",  # it would take a fixed port
        "TMPDIR": str(tmp_path),
    }
    with (tmp_path / "ministack.log").open("wb") as log:
        command = [sys.executable, "-m", "ministack"]
        process = subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=log, stderr=log)
    try:
        wait_for(aws.answers, "ministack to answer")
        yield aws
    finally:
        process.kill()
        process.wait()


def outputs(aws: PlainAws, stack: str) -> dict[str, str]:
    (found,) = aws.client("cloudformation").describe_stacks(StackName=stack)["Stacks"]
    return {output["OutputKey"]: output["OutputValue"] for output in found["Outputs"]}


def number_the_concurrency(aws: PlainAws) -> None:
    """Set ScalingConfig once more, as a number: ministack keeps the template's as a string, and polls no queue."""
    client = aws.client("lambda")
    for mapping in client.list_event_source_mappings()["EventSourceMappings"]:
        maximum = int(mapping["ScalingConfig"]["MaximumConcurrency"])
        client.update_event_source_mapping(UUID=mapping["UUID"], ScalingConfig={"MaximumConcurrency": maximum})


def assert_a_task_is_stopped(aws: PlainAws, rtc: RtcDouble, outputs: Mapping[str, str]) -> None:
    """Let the room of a running task end, with the stack as it was deployed."""
    number_the_concurrency(aws)
    aws.client("secretsmanager").put_secret_value(
        SecretId=outputs["RtcCredentialsSecretArn"], SecretString=json.dumps(KEY)
    )
    rtc.start_task("661e", "room-1", "audio")

    event = {"EventType": "RoomEnded", "AppId": "661e", "RoomId": "room-1", "TaskId": "audio"}
    aws.client("sqs").send_message(QueueUrl=outputs["EventQueueUrl"], MessageBody=json.dumps(event))

    key = {"room": {"S": "661e#room-1"}, "task_id": {"S": "audio"}}
    dynamodb = aws.client("dynamodb")
    item = wait_for(lambda: dynamodb.get_item(TableName=outputs["SegmentTableName"], Key=key).get("Item"), "the record")
    assert item["outcome"] == {"S": "stopped"}
    assert not rtc.is_running("661e", "room-1", "audio")
