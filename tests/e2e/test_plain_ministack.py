"""A deployment on an AWS of one's own making: ministack as it comes, the built stack, SAM CLI and nothing else."""

import json
import os
import shutil
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from sandbox.rtc_double import RtcDouble
from sandbox.stack import ROOT, wait_for

# SAM CLI insists on a region and on credentials; which ones is all the same to ministack.
NEEDED = {"AWS_DEFAULT_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
KEY = {"AccessKeyId": "AKLTplain", "SecretAccessKey": "plain-secret-key"}
STACK = "plain"


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


@pytest.fixture
def plain_aws(tmp_path: Path) -> Iterator[PlainAws]:
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


def deploy(aws: PlainAws, project: Path, **parameters: str) -> dict[str, str]:
    """Deploy what was built with the default settings of samconfig.toml, and return the stack's outputs."""
    overrides = [f"{name}={value}" for name, value in parameters.items()]
    command = [str(Path(sys.executable).with_name("sam")), "deploy", "--stack-name", STACK]
    done = subprocess.run(
        [*command, "--parameter-overrides", *overrides],
        cwd=project,
        env=aws.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (stack,) = aws.client("cloudformation").describe_stacks(StackName=STACK)["Stacks"]
    return {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}


def number_the_concurrency(aws: PlainAws) -> None:
    """Set ScalingConfig once more, as a number: ministack keeps the template's as a string, and polls no queue."""
    client = aws.client("lambda")
    for mapping in client.list_event_source_mappings()["EventSourceMappings"]:
        maximum = int(mapping["ScalingConfig"]["MaximumConcurrency"])
        client.update_event_source_mapping(UUID=mapping["UUID"], ScalingConfig={"MaximumConcurrency": maximum})


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Copy what `sam deploy` reads: the built stack and the settings."""
    copy = tmp_path / "project"
    copy.mkdir()
    shutil.copy(ROOT / "samconfig.toml", copy)
    shutil.copytree(ROOT / ".aws-sam" / "build", copy / ".aws-sam" / "build")
    return copy


def test_stack_deploys_on_a_plain_ministack_and_stops_a_task(plain_aws: PlainAws, project: Path) -> None:
    with RtcDouble(secrets={KEY["AccessKeyId"]: KEY["SecretAccessKey"]}) as rtc:
        outputs = deploy(plain_aws, project, RtcEndpoint=rtc.url)
        number_the_concurrency(plain_aws)
        plain_aws.client("secretsmanager").put_secret_value(
            SecretId=outputs["RtcCredentialsSecretArn"], SecretString=json.dumps(KEY)
        )
        rtc.start_task("661e", "room-1", "audio")

        event = {"EventType": "RoomEnded", "AppId": "661e", "RoomId": "room-1", "TaskId": "audio"}
        plain_aws.client("sqs").send_message(QueueUrl=outputs["EventQueueUrl"], MessageBody=json.dumps(event))

        key = {"room": {"S": "661e#room-1"}, "task_id": {"S": "audio"}}
        dynamodb = plain_aws.client("dynamodb")
        item = wait_for(
            lambda: dynamodb.get_item(TableName=outputs["SegmentTableName"], Key=key).get("Item"), "the record"
        )
        assert item["outcome"] == {"S": "stopped"}
        assert not rtc.is_running("661e", "room-1", "audio")
