"""The roles in deploy/ have the permissions that a deployment needs, and no others."""

import fnmatch
import itertools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from release.plain import read
from tests.service_role import NOT_USED, Deployment, Right, allows, handlers
from tests.transformed import PARAMETERS, PLACES, Place, Stack, longest, template

ROLES = read(Path(__file__).parents[2] / "deploy" / "roles.yaml")
NAME = "rtc-segment-stopper-prod"
ACCOUNT = "111122223333"


def listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def boundary_arn(where: Place) -> str:
    return f"arn:{where.partition}:iam::{ACCOUNT}:policy/deploy-FunctionBoundary-A1B2C3D4E5F6"


def stacks() -> Iterator[Stack]:
    """Yield, for each place, the stack with every optional part and the stack with none."""
    for where in PLACES:
        everything = {
            name: longest(name, where.partition).replace("ap-southeast-1", where.region) for name in PARAMETERS
        }
        nothing = {name: str(parameter["Default"]) for name, parameter in PARAMETERS.items()}
        for values in (everything, nothing):
            yield Stack(values | {"PermissionsBoundaryArn": boundary_arn(where)}, where, NAME)


def evaluated(stack: Stack, document: Any) -> Any:
    """Evaluate a part of deploy/roles.yaml as if it had been deployed for this stack, with the stack's key."""
    own = {
        "StackName": NAME,
        "Repository": "example/rtc-segment-stopper",
        "Environment": "prod",
        "FunctionBoundary": boundary_arn(stack.place),
        "ReleaseBucket.Arn": f"arn:{stack.place.partition}:s3:::releases",
        "StackRole.Arn": f"arn:{stack.place.partition}:iam::{ACCOUNT}:role/deploy-StackRole-A1B2C3D4E5F6",
        "KmsKeyArn": stack.values["KmsKeyArn"],
    }
    text = json.dumps(document)
    for name, value in own.items():
        text = text.replace(f"${{{name}}}", value).replace(json.dumps({"Ref": name}), json.dumps(value))
        text = text.replace(json.dumps({"Fn::GetAtt": name.split(".")}), json.dumps(value))
    return stack.evaluate(json.loads(text))


def policy_of_the_service_role(stack: Stack) -> Any:
    (policy,) = ROLES["Resources"]["StackRole"]["Properties"]["Policies"]
    return evaluated(stack, policy["PolicyDocument"])


def resources(stack: Stack) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    for logical_id, resource in template()["Resources"].items():
        properties = stack.properties(logical_id)
        if properties is not None:
            if "Code" in properties:
                properties = {**properties, "Code": {"S3Bucket": "releases", "S3Key": "0.3.0/code.zip"}}
            yield logical_id, resource["Type"], properties


def asked(stack: Stack) -> set[tuple[str, Right]]:
    deployment = Deployment(NAME, stack.place, ACCOUNT)
    return {
        (logical_id, right)
        for logical_id, resource_type, properties in resources(stack)
        for operation in ("create", "update", "delete")
        for right in deployment.rights(operation, resource_type, logical_id, properties)
    }


def test_service_role_has_every_right_that_cloudformation_asks_for() -> None:
    for stack in stacks():
        policy = policy_of_the_service_role(stack)
        missing = [f"{right} for {name}" for name, right in asked(stack) if not allows(policy, right)]
        assert sorted(missing) == []


def test_service_role_has_no_right_that_cloudformation_does_not_ask_for() -> None:
    with_everything, with_nothing, *_ = stacks()
    rights = {right for stack in (with_everything, with_nothing) for _, right in asked(stack)}
    for statement in policy_of_the_service_role(with_everything)["Statement"]:
        for action, resource in itertools.product(listed(statement["Action"]), listed(statement["Resource"])):
            alone = {"Statement": [statement | {"Action": action, "Resource": resource}]}
            of_tags = resource.endswith("/tags/*")  # a deployment may give the stack tags
            assert of_tags or any(allows(alone, right) for right in rights), f"{action} on {resource}"


def test_the_unused_permissions_are_permissions_of_cloudformation_s_handlers() -> None:
    for resource_type, properties in NOT_USED.items():
        named = {action for permissions in handlers(resource_type).values() for action in permissions}
        assert [one for patterns in properties.values() for one in patterns if not fnmatch.filter(named, one)] == []


def test_service_role_creates_no_role_without_the_boundary() -> None:
    for stack in stacks():
        policy = policy_of_the_service_role(stack)
        role = f"arn:{stack.place.partition}:iam::{ACCOUNT}:role/{NAME}-SweepRoomsRole-A1B2C3D4E5F6"
        other = (("iam:PermissionsBoundary", f"arn:{stack.place.partition}:iam::aws:policy/AdministratorAccess"),)
        for action in ("iam:CreateRole", "iam:PutRolePolicy", "iam:PutRolePermissionsBoundary"):
            assert not allows(policy, Right(action, role))
            assert not allows(policy, Right(action, role, other))
        assert not allows(policy, Right("iam:DeleteRolePermissionsBoundary", role))
        assert not allows(
            policy, Right("iam:AttachRolePolicy", role, (("iam:PermissionsBoundary", boundary_arn(stack.place)),))
        )


def statements_of_roles(stack: Stack) -> Iterator[Mapping[str, Any]]:
    deployment = Deployment(NAME, stack.place, ACCOUNT)
    for _, resource_type, properties in resources(stack):
        if resource_type == "AWS::IAM::Role":
            for policy in properties["Policies"]:
                for statement in policy["PolicyDocument"]["Statement"]:
                    yield {part: deployment.with_names(statement[part]) for part in ("Action", "Resource")}


def test_boundary_takes_no_right_from_the_stack_s_roles_and_leaves_no_other() -> None:
    for stack in stacks():
        boundary = evaluated(stack, ROLES["Resources"]["FunctionBoundary"]["Properties"]["PolicyDocument"])
        given = set()
        for statement in statements_of_roles(stack):
            for action, resource in itertools.product(listed(statement["Action"]), listed(statement["Resource"])):
                given.add(action)
                assert allows(boundary, Right(action, resource)), f"{action} on {resource}"
        bounded = {action for statement in boundary["Statement"] for action in listed(statement["Action"])}
        if stack.values["OutcomeEventBusName"]:
            assert {action.rstrip("*") for action in bounded} == {action.rstrip("*") for action in given}


def test_only_one_environment_of_one_repository_may_assume_the_pipeline_role() -> None:
    (stack, *_) = stacks()
    trust = evaluated(stack, ROLES["Resources"]["PipelineRole"]["Properties"]["AssumeRolePolicyDocument"])
    (statement,) = trust["Statement"]
    assert statement["Action"] == "sts:AssumeRoleWithWebIdentity"
    assert statement["Condition"] == {
        "StringEquals": {
            "token.actions.githubusercontent.com:aud": "sts.amazonaws.com",
            "token.actions.githubusercontent.com:sub": "repo:example/rtc-segment-stopper:environment:prod",
        }
    }


def test_pipeline_passes_only_the_stack_role_and_only_to_cloudformation() -> None:
    for stack in stacks():
        policy, _ = ROLES["Resources"]["PipelineRole"]["Properties"]["Policies"]
        may = evaluated(stack, policy["PolicyDocument"])
        role = f"arn:{stack.place.partition}:iam::{ACCOUNT}:role/deploy-{{}}-A1B2C3D4E5F6"
        to = {
            service: (("iam:PassedToService", f"{service}.amazonaws.com"),) for service in ("cloudformation", "lambda")
        }
        assert allows(may, Right("iam:PassRole", role.format("StackRole"), to["cloudformation"]))
        assert not allows(may, Right("iam:PassRole", role.format("StackRole"), to["lambda"]))
        assert not allows(may, Right("iam:PassRole", role.format("Admin"), to["cloudformation"]))


def test_the_stack_s_names_are_short_enough_for_the_patterns_of_the_roles() -> None:
    """CloudFormation shortens the names of functions and roles to 64 characters, of which it generates 13."""
    longest_stack_name = 27
    assert ROLES["Parameters"]["StackName"]["AllowedPattern"] == f"^[a-zA-Z][-a-zA-Z0-9]{{0,{longest_stack_name - 1}}}$"
    for logical_id, resource in template()["Resources"].items():
        if resource["Type"] in ("AWS::Lambda::Function", "AWS::IAM::Role"):
            assert longest_stack_name + len(f"-{logical_id}-A1B2C3D4E5F6") <= 64
