"""What CloudFormation would find out only when it deploys."""

from pathlib import Path
from typing import Any

from cfnlint.decode import cfn_yaml

TEMPLATE: dict[str, Any] = cfn_yaml.load(str(Path(__file__).parents[2] / "template.yaml"))
PARAMETERS: dict[str, dict[str, Any]] = TEMPLATE["Parameters"]


def test_each_of_the_two_limits_alone_leaves_a_function_a_request_a_second() -> None:
    limit, concurrency = PARAMETERS["RtcQpsLimit"], PARAMETERS["MaxConcurrency"]
    assert limit["MinValue"] >= concurrency["Default"]
    assert limit["Default"] >= concurrency["MaxValue"]
