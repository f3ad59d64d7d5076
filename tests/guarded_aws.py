"""An embedded AWS in which CloudFormation acts under a service role: python -m tests.guarded_aws.

ministack makes a stack's resources itself and asks IAM nothing about them. On AWS, CloudFormation asks whether the role
that it was handed may do it, and keeps that role for the stack's later changes (CloudFormation guide, "service role").
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qs

from ministack.app import main
from ministack.core.iam_evaluator import EvalResult, enforce
from ministack.core.responses import get_account_id, get_region
from ministack.core.router import extract_access_key_id
from ministack.services import cloudformation, iam
from ministack.services.cloudformation import stacks
from ministack.services.cloudformation.helpers import _error

from tests.service_role import Deployment, Properties, allows
from tests.transformed import place

_roles: dict[str, str] = {}  # by stack
_make, _change, _remove = stacks._provision_resource, stacks._update_resource, stacks._delete_resource
_answer = cloudformation.handle_request


async def handle_request(
    method: str, path: str, headers: Mapping[str, str], body: bytes, query: Mapping[str, Any]
) -> Any:
    """Note the role that a request hands over, if its caller may hand it over."""
    sent = {**query, **parse_qs(body.decode())}
    role, stack = (sent.get(name, [""])[0] for name in ("RoleARN", "StackName"))
    if role:
        denied = enforce(
            extract_access_key_id(headers, query),
            "iam:PassRole",
            "iam",
            get_region(),
            role,
            {"iam:PassedToService": "cloudformation.amazonaws.com"},
        )
        if denied is not None:
            who = denied.principal_arn if isinstance(denied, EvalResult) else ""
            return _error("AccessDenied", f"User: {who} is not authorized to perform: iam:PassRole on resource: {role}")
        _roles[stack] = role
    return await _answer(method, path, headers, body, query)


def ask(operation: str, resource_type: str, logical_id: str, properties: Properties, stack_name: str) -> None:
    """Fail as CloudFormation does, if the stack's role lacks a right."""
    if stack_name not in _roles:
        return
    role = iam._roles.get(_roles[stack_name].rpartition("/")[2])
    policy = {"Statement": [one for text in role["InlinePolicies"].values() for one in _statements(text)]}
    deployment = Deployment(stack_name, place(get_region()), get_account_id())
    for right in deployment.rights(operation, resource_type, logical_id, properties):
        if not allows(policy, right):
            raise ValueError(
                f"User: {_roles[stack_name]} is not authorized to perform: {right.action} on resource: {right.resource}"
            )


def _statements(text: Any) -> list[Any]:
    policy = json.loads(text) if isinstance(text, str) else text
    statements: list[Any] = policy["Statement"]
    return statements


def make(resource_type: str, logical_id: str, properties: Properties, stack_name: str) -> Any:
    """Create a resource, if the role may."""
    ask("create", resource_type, logical_id, properties, stack_name)
    return _make(resource_type, logical_id, properties, stack_name)


def change(
    resource_type: str, physical_id: str, old: Properties, new: Properties, stack_name: str, logical_id: str, *more: Any
) -> Any:
    """Update a resource, if the role may."""
    if old != new:
        ask("update", resource_type, logical_id, new, stack_name)
    return _change(resource_type, physical_id, old, new, stack_name, logical_id, *more)


def remove(resource_type: str, physical_id: str, properties: Properties, stack_name: str, logical_id: str) -> Any:
    """Delete a resource, if the role may."""
    ask("delete", resource_type, logical_id, properties, stack_name)
    return _remove(resource_type, physical_id, properties, stack_name, logical_id)


if __name__ == "__main__":
    replaced: dict[str, Callable[..., Any]] = {
        "_provision_resource": make,
        "_update_resource": change,
        "_delete_resource": remove,
    }
    for name, function in replaced.items():
        setattr(stacks, name, function)
    cloudformation.handle_request = handle_request
    main()
