"""A deployment on an AWS of one's own making: ministack as it comes, the built stack, SAM CLI and nothing else."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sandbox.rtc_double import RtcDouble
from sandbox.stack import ROOT
from tests.e2e.plain_aws import KEY, PlainAws, assert_a_task_is_stopped, outputs, plain_aws

STACK = "plain"


def deploy(aws: PlainAws, project: Path, **parameters: str) -> dict[str, str]:
    """Deploy the build with the default settings of samconfig.toml, and return the stack's outputs."""
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
    return outputs(aws, STACK)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Copy the input of `sam deploy`: the built stack and the settings."""
    copy = tmp_path / "project"
    copy.mkdir()
    shutil.copy(ROOT / "samconfig.toml", copy)
    shutil.copytree(ROOT / ".aws-sam" / "build", copy / ".aws-sam" / "build")
    return copy


def test_stack_deploys_on_a_plain_ministack_and_stops_a_task(tmp_path: Path, project: Path) -> None:
    with RtcDouble(secrets={KEY["AccessKeyId"]: KEY["SecretAccessKey"]}) as rtc, plain_aws(tmp_path) as aws:
        deployed = deploy(aws, project, RtcEndpoint=rtc.url)
        assert_a_task_is_stopped(aws, rtc, deployed)
