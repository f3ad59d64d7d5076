"""Changes to the parameters of a deployed stack, without changes to its template or code."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from tools.deployment import Deployment

if TYPE_CHECKING:
    from mypy_boto3_cloudformation import CloudFormationClient

_POLL_SECONDS, _MOST_POLLS = 2, 900


def read(assignments: Sequence[str], cleared: Sequence[str]) -> dict[str, str]:
    """Read the new values of parameters from PARAMETER=VALUE. The value of each parameter to clear is empty.

    Raises
    ------
    ValueError
        No parameter is named, a parameter is named twice, or an assignment has another form or no value.
    """
    pairs = [one.partition("=") for one in assignments]
    wanted = {name: value for name, equals, value in pairs if equals}
    if len(wanted) < len(pairs) or not (pairs or cleared) or {*wanted} & {*cleared}:
        raise ValueError(
            "the parameters are missing, repeated or malformed: write each parameter once, as PARAMETER=VALUE"
        )
    for name, value in wanted.items():
        if not value.strip():
            # A shell variable that is empty by mistake would remove a callback URL or the alarms.
            raise ValueError(
                f"{name} has no value: write {name}=VALUE, or remove the parameter's feature with --clear {name}"
            )
    return wanted | dict.fromkeys(cleared, "")


def unlike(deployment: Deployment, wanted: Mapping[str, str]) -> dict[str, str]:
    """Return the wanted values that differ from the stack's values.

    Raises
    ------
    ValueError
        The stack has no parameter of a wanted name.
    """
    for name in wanted:
        if name not in deployment.parameters:
            near = difflib.get_close_matches(name, deployment.parameters, n=1)
            advice = f"did you mean {near[0]}?" if near else f"use one of {', '.join(sorted(deployment.parameters))}"
            raise ValueError(f"{name} is not a parameter: {advice}")
    return {name: value for name, value in wanted.items() if deployment.parameters[name] != value}


def change(client: CloudFormationClient, deployment: Deployment, values: Mapping[str, str]) -> None:
    """Change parameters without changing the deployed template and code, and wait for the end of the update."""
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
