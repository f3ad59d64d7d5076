"""What CloudFormation would find out only when it deploys."""

import re
from pathlib import Path
from typing import Any

import pytest
from cfnlint.decode import cfn_yaml

TEMPLATE: dict[str, Any] = cfn_yaml.load(str(Path(__file__).parents[2] / "template.yaml"))
PARAMETERS: dict[str, dict[str, Any]] = TEMPLATE["Parameters"]
STOP_SEGMENT: dict[str, Any] = TEMPLATE["Resources"]["StopSegmentFunction"]["Properties"]
MOST_CHARACTERS = 256  # of a version's description

# Of these the description holds the last part: name or id.
LONGEST_PARTS = {
    "RtcCredentialsSecretArn": ("arn:aws:secretsmanager:us-east-1:111122223333:secret:", "n" * 66 + "-sUffix"),
    "KmsKeyArn": ("arn:aws:kms:us-east-1:111122223333:key/", "mrk-" + "0" * 32),
}


def longest(name: str) -> int:
    """Give how many characters a parameter's longest value takes in the description."""
    parameter = PARAMETERS[name]
    if name in LONGEST_PARTS:
        return len(LONGEST_PARTS[name][1])
    if name == "RtcApiVersion":
        return len("2020-12-01")
    lengths = [len(value) for value in parameter.get("AllowedValues", [])]
    lengths += [parameter["MaxLength"]] if "MaxLength" in parameter else []
    lengths += [len(str(parameter["MaxValue"]))] if "MaxValue" in parameter else []
    return max(lengths)


def named_in(value: object) -> list[str]:
    """Give the parameters that an expression refers to."""
    return re.findall(r"'Ref': '(\w+)'", str(value))


def test_a_version_s_description_is_short_enough_whatever_the_parameters_are() -> None:
    separator, parts = STOP_SEGMENT["VersionDescription"]["Fn::Join"]
    names = [name for part in parts for name in named_in(part)]
    assert len(names) == len(parts)
    assert sum(map(longest, names)) + len(separator) * (len(parts) - 1) <= MOST_CHARACTERS


def test_a_parameter_that_changes_the_stop_function_replaces_its_version() -> None:
    variables = STOP_SEGMENT["Environment"]["Variables"]
    globally = TEMPLATE["Globals"]["Function"]
    uses = {name for name in named_in([variables, globally]) if name in PARAMETERS}
    assert uses | {"EnableSnapStart"} <= set(named_in(STOP_SEGMENT["VersionDescription"]))


@pytest.mark.parametrize("name", LONGEST_PARTS)
def test_a_name_that_is_too_long_is_refused_by_its_parameter(name: str) -> None:
    pattern = PARAMETERS[name]["AllowedPattern"]
    assert re.fullmatch(pattern, "".join(LONGEST_PARTS[name]))
    assert not re.fullmatch(pattern, "".join(LONGEST_PARTS[name]) + "0")
