"""What CloudFormation would find out only when it deploys."""

import json
from pathlib import Path
from typing import Any

from cfnlint.decode import cfn_yaml

from release.plain import read, transformed

TEMPLATE: dict[str, Any] = cfn_yaml.load(str(Path(__file__).parents[2] / "template.yaml"))
PARAMETERS: dict[str, dict[str, Any]] = TEMPLATE["Parameters"]


def test_each_of_the_two_limits_alone_leaves_a_function_a_request_a_second() -> None:
    limit, concurrency = PARAMETERS["RtcQpsLimit"], PARAMETERS["MaxConcurrency"]
    assert limit["MinValue"] >= concurrency["Default"]
    assert limit["Default"] >= concurrency["MaxValue"]


def test_plain_template_fixes_no_parameter_to_its_default() -> None:
    """SAM puts the values of parameters into what it transforms, and `make release` knows only the defaults."""
    source = read(Path(__file__).parents[2] / "template.yaml")
    others = json.loads(json.dumps(source))
    for parameter in others["Parameters"].values():
        parameter["Default"] = "another"
    assert transformed(others)["Resources"] == transformed(source)["Resources"]
