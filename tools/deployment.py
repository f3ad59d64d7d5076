"""The stack that the tools work on, found by its name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

if TYPE_CHECKING:
    from mypy_boto3_cloudformation import CloudFormationClient

DEFAULT_STACK_NAME = "rtc-segment-stopper"
_OUTPUTS = ("EventQueueUrl", "DeadLetterQueueUrl", "SegmentTableName")


class NotDeployed(Exception):
    """There is no such stack, or it is not one of ours."""


@dataclass(frozen=True)
class Deployment:
    """What the tools need to know of a deployed stack."""

    event_queue_url: str
    dead_letter_queue_url: str
    segment_table_name: str


def find_deployment(client: CloudFormationClient, stack_name: str) -> Deployment:
    """Read a stack's outputs.

    Raises
    ------
    NotDeployed
        The region has no stack of that name, or one without our outputs.
    """
    try:
        stack = client.describe_stacks(StackName=stack_name)["Stacks"][0]
    except ClientError as error:
        if error.response["Error"]["Code"] != "ValidationError":
            raise
        raise NotDeployed(
            f"there is no stack {stack_name!r} in {client.meta.region_name}: give its name with --stack-name, "
            "and check that AWS_PROFILE and AWS_REGION name its account and region"
        ) from None
    outputs = {output["OutputKey"]: output["OutputValue"] for output in stack.get("Outputs", [])}
    missing = [name for name in _OUTPUTS if name not in outputs]
    if missing:
        raise NotDeployed(f"the stack {stack_name!r} is not an RTC segment stopper: it has no output {missing[0]}")
    return Deployment(*(outputs[name] for name in _OUTPUTS))
