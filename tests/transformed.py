"""template.yaml as CloudFormation sees it: transformed by SAM's own translator and evaluated for a stack."""

from __future__ import annotations

import functools
import itertools
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from uuid import NAMESPACE_DNS, uuid5

from release.plain import read, transformed

SOURCE = read(Path(__file__).parents[1] / "template.yaml")
PARAMETERS: Mapping[str, Mapping[str, Any]] = SOURCE["Parameters"]
REGIONS: list[str] = SOURCE["Metadata"]["cfn-lint"]["config"]["regions"]
_NO_VALUE = object()

Properties = dict[str, Any]


class Place(NamedTuple):
    """A region, its partition, and the domain of its endpoints."""

    region: str
    partition: str
    suffix: str


def place(region: str) -> Place:
    """Return a region with its partition and domain."""
    if region.startswith("cn-"):
        return Place(region, "aws-cn", "amazonaws.com.cn")
    if region.startswith("eusc-"):
        return Place(region, "aws-eusc", "amazonaws.eu")
    return Place(region, "aws-us-gov" if region.startswith("us-gov-") else "aws", "amazonaws.com")


PLACES = [place(region) for region in [*REGIONS, "eusc-de-east-1"]]  # cfn-lint does not know the last one


def longest(name: str, partition: str = "aws") -> str:
    """Return the longest value that a parameter accepts."""
    arn = f"arn:{partition}:{{}}:ap-southeast-1:111122223333:"
    free = {
        "RtcEndpoint": "https://" + "h" * 40,
        "RtcCredentialsSecretArn": arn.format("secretsmanager") + "secret:" + "n" * 66 + "-sUffix",
        "EventBusName": "b" * 256,
        "OutcomeEventBusName": "b" * 256,
        "HeartbeatAppId": "a" * 128,
        "SourceTopicArn": arn.format("sns") + "t" * 256 + ".fifo",
        "AlarmTopicArn": arn.format("sns") + "t" * 256,
        "CallbackSecretArn": arn.format("secretsmanager") + "secret:" + "n" * 512 + "-sUffix",
        "WorkflowArn": arn.format("states") + "stateMachine:" + "w" * 80,
        "PermissionsBoundaryArn": f"arn:{partition}:iam::111122223333:policy/" + "p" * 512,
        "KmsKeyArn": arn.format("kms") + "key/mrk-" + "0" * 32,
    }
    parameter = PARAMETERS[name]
    values: list[str] = parameter.get("AllowedValues", [str(parameter.get("MaxValue", ""))])
    return free[name] if name in free else max(values, key=len)


@functools.cache
def template() -> Mapping[str, Any]:
    """Transform template.yaml."""
    return transformed(SOURCE)


def of_type(resource_type: str) -> list[str]:
    """Return the logical ids of a type's resources."""
    return [name for name, resource in template()["Resources"].items() if resource["Type"] == resource_type]


@dataclass(frozen=True)
class Stack:
    """The template with its intrinsic functions evaluated.

    Values that exist only after a resource is created stay names: ``<EventQueue>`` for a Ref, ``<EventQueue.Arn>`` for
    an attribute.
    """

    values: Mapping[str, str]
    place: Place
    name: str = "stack"

    def has(self, condition: str) -> bool:
        """Return whether a condition of the template holds."""
        return bool(self.evaluate(template()["Conditions"][condition]))

    def properties(self, logical_id: str) -> Properties | None:
        """Return a resource's properties, or None if the stack does not have it."""
        resource = template()["Resources"][logical_id]
        if "Condition" in resource and not self.has(resource["Condition"]):
            return None
        properties: Properties = self.evaluate(resource.get("Properties", {}))
        return properties

    def _pseudo(self) -> Mapping[str, object]:
        return {
            "AWS::NoValue": _NO_VALUE,
            "AWS::Region": self.place.region,
            "AWS::Partition": self.place.partition,
            "AWS::URLSuffix": self.place.suffix,
            "AWS::AccountId": "111122223333",
            "AWS::StackName": self.name,
            "AWS::StackId": f"arn:{self.place.partition}:cloudformation:{self.place.region}:111122223333:stack/"
            f"{self.name}/{uuid5(NAMESPACE_DNS, self.name)}",
        }

    def _ref(self, name: str) -> object:
        if name in self._pseudo():
            return self._pseudo()[name]
        return self.values[name] if name in PARAMETERS else f"<{name}>"

    def _sub(self, text: str, given: Mapping[str, str]) -> str:
        def value(found: re.Match[str]) -> str:
            name = found[1]
            return str(given[name] if name in given else f"<{name}>" if "." in name else self._ref(name))

        return re.sub(r"\$\{([\w.:]+)\}", value, text)

    def evaluate(self, node: Any) -> Any:  # noqa: C901 - one case per function
        """Evaluate intrinsic functions at any depth."""
        match node:
            case {"Ref": str(name)}:
                return self._ref(name)
            case {"Condition": str(name)} if len(node) == 1:
                return self.has(name)
            case {"Fn::GetAtt": attribute}:
                return f"<{attribute if isinstance(attribute, str) else '.'.join(attribute)}>"
            case {"Fn::If": [condition, yes, no]}:
                return self.evaluate(yes if self.has(condition) else no)
            case {"Fn::Sub": str(text)}:
                return self._sub(text, {})
            case {"Fn::Sub": [text, given]}:
                return self._sub(text, self.evaluate(given))
            case {"Fn::Join": [separator, parts]}:
                return separator.join(str(part) for part in self.evaluate(parts))
            case {"Fn::Split": [separator, text]}:
                return self.evaluate(text).split(separator)
            case {"Fn::Select": [index, parts]}:
                return self.evaluate(parts)[int(index)]
            case {"Fn::Equals": pair}:
                left, right = self.evaluate(pair)
                return left == right
            case {"Fn::Not": [condition]}:
                return not self.evaluate(condition)
            case {"Fn::Or": conditions}:
                return any(self.evaluate(conditions))
            case {"Fn::And": conditions}:
                return all(self.evaluate(conditions))
            case dict():
                values = {name: self.evaluate(value) for name, value in node.items()}
                return {name: value for name, value in values.items() if value is not _NO_VALUE}
            case list():
                return [value for value in map(self.evaluate, node) if value is not _NO_VALUE]
            case _:
                return node


def stacks(*logical_ids: str, name: str = "stack") -> Iterator[Stack]:
    """Yield a stack for every combination of parameters that changes these resources.

    All other parameters have their longest values.
    """
    nodes = [template()["Resources"][logical_id] for logical_id in logical_ids]
    concerned = sorted({parameter for node in nodes for parameter in _decided_by(node)})
    for somewhere in PLACES:
        given = {parameter: longest(parameter, somewhere.partition) for parameter in PARAMETERS}
        choices = [sorted({given[parameter], *_compared(parameter)}) for parameter in concerned]
        for chosen in itertools.product(*choices):
            yield Stack(given | dict(zip(concerned, chosen, strict=True)), somewhere, name)


def _decided_by(node: object) -> set[str]:
    """Return the parameters that decide the conditions in a node."""
    conditions: Mapping[str, Any] = template()["Conditions"]
    text = json.dumps(node)
    names = {name for name in conditions if re.search(rf'"(Condition|Fn::If)": \[?"{name}"', text)}
    parameters = set(re.findall(r'"Ref": "(\w+)"', json.dumps([conditions[name] for name in names])))
    return parameters.union(*(_decided_by(conditions[name]) for name in names))


def _compared(parameter: str) -> list[str]:
    """Return the first value with which each condition compares a parameter."""
    pattern = rf'\[{{"Ref": "{parameter}"}}, "([^"]*)"\]'
    found = [re.search(pattern, json.dumps(condition)) for condition in template()["Conditions"].values()]
    return [comparison[1] for comparison in found if comparison]
