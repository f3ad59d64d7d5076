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


def refused_by(values: dict[str, int]) -> list[str]:
    """Give what the rules say against these parameters, as CloudFormation would: it knows numbers as texts."""

    def holds(expression: dict[str, Any]) -> bool:
        allowed, reference = expression["Fn::Contains"]
        return str(values[reference["Ref"]]) in allowed

    return [
        assertion["AssertDescription"]
        for name, rule in TEMPLATE["Rules"].items()
        if name.startswith("RtcQpsLimit") and holds(rule["RuleCondition"])
        for assertion in rule["Assertions"]
        if not holds(assertion["Assert"])
    ]


def test_no_function_s_share_of_the_limit_can_be_less_than_a_request_a_second() -> None:
    limit, concurrency = PARAMETERS["RtcQpsLimit"], PARAMETERS["MaxConcurrency"]
    functions = range(concurrency["MinValue"], concurrency["MaxValue"] + 1)
    for qps in range(limit["MinValue"], 2 * concurrency["MaxValue"]):
        refused = {count for count in functions if refused_by({"RtcQpsLimit": qps, "MaxConcurrency": count})}
        assert refused >= {count for count in functions if count > qps}
        assert not refused if qps >= concurrency["MaxValue"] else min(functions) not in refused


def test_a_rule_says_what_it_allows() -> None:
    for qps, most in ((4, 2), (9, 5), (19, 10), (39, 20)):
        assert not refused_by({"RtcQpsLimit": qps, "MaxConcurrency": most})
        (why,) = refused_by({"RtcQpsLimit": qps, "MaxConcurrency": most + 1})
        assert re.fullmatch(rf"With an RtcQpsLimit of \d+ to {qps}, MaxConcurrency must be at most {most}: .+", why)


def told_by(part: Any) -> list[str]:
    """Give the parameters that a part of the version's description tells of."""
    match part:
        case {"Fn::If": [condition, str(), str()]}:
            return named_in(TEMPLATE["Conditions"][condition])
    return named_in(part)


def test_a_parameter_that_changes_the_stop_function_replaces_its_version() -> None:
    variables = STOP_SEGMENT["Environment"]["Variables"]
    globally = TEMPLATE["Globals"]["Function"]
    uses = {name for name in named_in([variables, globally]) if name in PARAMETERS}
    _, parts = STOP_SEGMENT["VersionDescription"]["Fn::Join"]
    told = {name for part in parts for name in told_by(part)}
    assert uses | {"EnableSnapStart", "OutcomeEventBusName"} <= told
