"""What CloudFormation would find out only when it deploys."""

import re
from pathlib import Path
from typing import Any

from cfnlint.decode import cfn_yaml

TEMPLATE: dict[str, Any] = cfn_yaml.load(str(Path(__file__).parents[2] / "template.yaml"))
PARAMETERS: dict[str, dict[str, Any]] = TEMPLATE["Parameters"]
STOP_SEGMENT: dict[str, Any] = TEMPLATE["Resources"]["StopSegmentFunction"]["Properties"]


def named_in(value: object) -> list[str]:
    """Give the parameters that an expression refers to."""
    return re.findall(r"'Ref': '(\w+)'", str(value))


def test_a_parameter_that_changes_the_stop_function_replaces_its_version() -> None:
    variables = STOP_SEGMENT["Environment"]["Variables"]
    globally = TEMPLATE["Globals"]["Function"]
    uses = {name for name in named_in([variables, globally]) if name in PARAMETERS}
    assert uses | {"EnableSnapStart"} <= set(named_in(STOP_SEGMENT["VersionDescription"]))
