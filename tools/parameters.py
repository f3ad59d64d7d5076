"""Changing a deployed stack's parameters, and nothing else of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from tools.deployment import Deployment

if TYPE_CHECKING:
    from mypy_boto3_cloudformation import CloudFormationClient

_POLL_SECONDS, _MOST_POLLS = 2, 900


def unlike(deployment: Deployment, wanted: Mapping[str, str]) -> dict[str, str]:
    """Return those of the values that the stack does not have yet.

    Raises
    ------
    ValueError
        The stack has no such parameter.
    """
    for name in wanted:
        if name not in deployment.parameters:
            raise ValueError(f"{name} is no parameter, only {', '.join(sorted(deployment.parameters))}")
    return {name: value for name, value in wanted.items() if deployment.parameters[name] != value}


def change(client: CloudFormationClient, deployment: Deployment, values: Mapping[str, str]) -> None:
    """Give parameters new values, with the template and the code that are deployed, and wait until that is done."""
    client.update_stack(
        StackName=deployment.stack_name,
        UsePreviousTemplate=True,
        Parameters=[
            {"ParameterKey": name, "ParameterValue": values[name]}
            if name in values
            else {"ParameterKey": name, "UsePreviousValue": True}
            for name in deployment.parameters
        ],
        Capabilities=["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"],
    )
    client.get_waiter("stack_update_complete").wait(
        StackName=deployment.stack_name, WaiterConfig={"Delay": _POLL_SECONDS, "MaxAttempts": _MOST_POLLS}
    )
