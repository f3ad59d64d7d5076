"""The deployed stack, found by its name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

if TYPE_CHECKING:
    from mypy_boto3_cloudformation import CloudFormationClient

DEFAULT_STACK_NAME = "rtc-segment-stopper"
_NEEDED = ("EventQueueUrl", "EventQueueArn", "DeadLetterQueueUrl", "SegmentTableName", "StopSegmentFunctionName")


class NotDeployed(Exception):
    """No stack has this name, or the stack belongs to another application."""


@dataclass(frozen=True)
class Deployment:
    """A deployed stack, with its outputs and parameters by their names in template.yaml.

    Parameters
    ----------
    changed_at_ms
        The time of the last deployment, in Unix ms.
    """

    stack_name: str
    outputs: Mapping[str, str]
    parameters: Mapping[str, str]
    changed_at_ms: int


def find_deployment(client: CloudFormationClient, stack_name: str) -> Deployment:
    """Read a stack's outputs and parameters.

    Raises
    ------
    NotDeployed
        The region has no stack of this name, or the stack lacks this application's outputs.
    """
    try:
        stack = client.describe_stacks(StackName=stack_name)["Stacks"][0]
    except ClientError as error:
        if error.response["Error"]["Code"] != "ValidationError":
            raise
        raise NotDeployed(
            f"there is no stack {stack_name!r} in {client.meta.region_name}: give the stack's name in STACK or with "
            "--stack-name, and check that AWS_PROFILE and AWS_REGION name the stack's account and region"
        ) from None
    outputs = {output["OutputKey"]: output["OutputValue"] for output in stack.get("Outputs", [])}
    missing = [name for name in _NEEDED if name not in outputs]
    if missing:
        raise NotDeployed(
            f"the stack {stack_name!r} is not an RTC segment stopper, because the output {missing[0]} is missing: "
            "give another stack name"
        )
    parameters = {one["ParameterKey"]: one["ParameterValue"] for one in stack.get("Parameters", [])}
    changed_at = stack.get("LastUpdatedTime", stack["CreationTime"])
    return Deployment(stack_name, outputs, parameters, int(changed_at.timestamp() * 1000))
