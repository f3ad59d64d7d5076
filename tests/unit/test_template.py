"""Rules of template.yaml that would otherwise fail only during a deployment."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from cfnlint.decode import cfn_yaml

from release.plain import read, transformed
from tests.transformed import PLACES, longest, stacks

TEMPLATE: dict[str, Any] = cfn_yaml.load(str(Path(__file__).parents[2] / "template.yaml"))
PARAMETERS: dict[str, dict[str, Any]] = TEMPLATE["Parameters"]


def test_either_limit_may_be_set_alone() -> None:
    limit, concurrency = PARAMETERS["RtcQpsLimit"], PARAMETERS["MaxConcurrency"]
    assert limit["MinValue"] >= concurrency["Default"]
    assert limit["Default"] >= concurrency["MaxValue"]


def test_plain_template_fixes_no_parameter_to_its_default() -> None:
    """SAM's transformation inserts the values of parameters, and `make release` knows only their defaults."""
    source = read(Path(__file__).parents[2] / "template.yaml")
    others = json.loads(json.dumps(source))
    for parameter in others["Parameters"].values():
        parameter["Default"] = "another"
    assert transformed(others)["Resources"] == transformed(source)["Resources"]


def test_only_tokens_of_the_named_state_machines_may_be_answered() -> None:
    arns = set()
    for stack in stacks("PublishOutcomeRole"):
        role = stack.properties("PublishOutcomeRole") or {"Policies": []}
        for statement in (one for policy in role["Policies"] for one in policy["PolicyDocument"]["Statement"]):
            if statement["Sid"] == "AnswerWorkflows":
                assert statement["Action"] == ["states:SendTaskSuccess", "states:SendTaskFailure"]
                assert statement["Resource"] == stack.values["WorkflowArn"]
                arns.add(statement["Resource"])
    assert arns == {longest("WorkflowArn", place.partition) for place in PLACES}


@pytest.mark.parametrize(
    ("arn", "is_accepted"),
    [
        ("", True),
        ("arn:aws-cn:states:cn-north-1:123456789012:stateMachine:close-*", True),
        ("arn:aws:states:us-east-1:123456789012:stateMachine:" + "x" * 80, True),
        ("arn:aws:states:us-east-1:123456789012:stateMachine:" + "x" * 81, False),
        ("arn:aws:states:*:*:stateMachine:*", False),
        ("arn:aws:states:us-east-1:*:stateMachine:close-room", False),
        ("arn:aws:states:us-east-1:123456789012:express:close-room:1", False),
        ("arn:aws:states:us-east-1:123456789012:stateMachine:close-room:1", False),
    ],
)
def test_a_workflow_arn_names_state_machines_of_one_account(arn: str, is_accepted: bool) -> None:
    assert bool(re.match(PARAMETERS["WorkflowArn"]["AllowedPattern"], arn)) is is_accepted
