"""The permissions that CloudFormation asks IAM for under a service role.

The source is published by AWS with each resource type: the permissions of its handlers, which cfn-lint carries. They
name all that a type can do. NOT_USED has what this template's properties do not ask for, so no proof here goes further
than that list. Embedded AWS does not ask a service role at all.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, NamedTuple

from ministack.core.iam_evaluator import EvalContext, evaluate, parse_policy_document

from tests.transformed import Place

Properties = Mapping[str, Any]

# By resource type: permissions that its handlers name for properties that the template does not set.
NOT_USED: Mapping[str, Mapping[str, str]] = {
    "AWS::ApiGatewayV2::Api": {"s3:getObject": "Body and BodyS3Location"},
    "AWS::ApiGatewayV2::Integration": {"iam:PassRole": "CredentialsArn"},
    "AWS::ApiGatewayV2::Stage": {
        "apigateway:TagResource": "no action of IAM: tags are PUT and DELETE",
        "apigateway:UntagResource": "no action of IAM: tags are PUT and DELETE",
    },
    "AWS::DynamoDB::Table": {
        **dict.fromkeys(("dynamodb:DescribeImport", "dynamodb:ImportTable"), "ImportSourceSpecification"),
        **dict.fromkeys(("s3:GetObject", "s3:GetObjectMetadata", "s3:ListBucket"), "ImportSourceSpecification"),
        **dict.fromkeys(
            ("logs:CreateLogGroup", "logs:CreateLogStream", "logs:DescribeLogGroups", "logs:DescribeLogStreams"),
            "ImportSourceSpecification",
        ),
        **dict.fromkeys(("logs:PutLogEvents", "logs:PutRetentionPolicy"), "ImportSourceSpecification"),
        **dict.fromkeys(
            (
                "dynamodb:EnableKinesisStreamingDestination",
                "dynamodb:DisableKinesisStreamingDestination",
                "dynamodb:UpdateKinesisStreamingDestination",
                "kinesis:DescribeStream",
                "kinesis:PutRecords",
            ),
            "KinesisStreamSpecification",
        ),
        **dict.fromkeys(("dynamodb:PutResourcePolicy", "dynamodb:DeleteResourcePolicy"), "ResourcePolicy"),
        "dynamodb:UpdateContributorInsights": "ContributorInsightsSpecification",
        **dict.fromkeys(
            (
                *("dynamodb:CreateTableReplica", "dynamodb:AssociateTableReplica", "iam:CreateServiceLinkedRole"),
                *("dynamodb:Scan", "dynamodb:Query", "dynamodb:UpdateItem", "dynamodb:PutItem", "dynamodb:GetItem"),
                *("dynamodb:DeleteItem", "dynamodb:BatchWriteItem"),
            ),
            "replicas of a global table",
        ),
        "kms:ListAliases": "an alias as KMSMasterKeyId, which KmsKeyArn refuses",
    },
    "AWS::Events::Rule": {"iam:PassRole": "a target's RoleArn"},
    "AWS::IAM::Role": {
        "iam:AttachRolePolicy": "ManagedPolicyArns",
        "iam:DetachRolePolicy": "ManagedPolicyArns",
        "iam:DeleteRolePermissionsBoundary": "withheld: a role that has the boundary keeps it",
    },
    "AWS::Lambda::EventSourceMapping": dict.fromkeys(
        ("kms:DescribeKey", "kms:GenerateDataKey", "kms:Decrypt"), "KmsKeyArn of filter criteria"
    ),
    "AWS::Lambda::Function": {
        **dict.fromkeys(
            ("ec2:DescribeSecurityGroups", "ec2:DescribeSubnets", "ec2:DescribeVpcs", "ec2:DescribeNetworkInterfaces"),
            "VpcConfig",
        ),
        **dict.fromkeys(("elasticfilesystem:DescribeMountTargets", "s3files:ListMountTargets"), "FileSystemConfigs"),
        **dict.fromkeys(
            (
                "lambda:GetCodeSigningConfig",
                "lambda:PutFunctionCodeSigningConfig",
                "lambda:DeleteFunctionCodeSigningConfig",
            ),
            "CodeSigningConfigArn",
        ),
        "lambda:GetLayerVersion": "Layers",
        **dict.fromkeys(
            ("lambda:PutFunctionConcurrency", "lambda:DeleteFunctionConcurrency"), "ReservedConcurrentExecutions"
        ),
        "lambda:PutRuntimeManagementConfig": "RuntimeManagementConfig",
        **dict.fromkeys(("lambda:PutFunctionScalingConfig", "lambda:PassCapacityProvider"), "CapacityProviderConfig"),
        "lambda:PublishVersion": "PublishToLatestPublished",
        "s3:GetObjectVersion": "S3ObjectVersion",
    },
    "AWS::Logs::LogGroup": {
        "logs:PutDataProtectionPolicy": "DataProtectionPolicy",
        **dict.fromkeys(
            ("logs:CreateLogDelivery", "s3:REST.PUT.OBJECT", "firehose:TagDeliveryStream"), "DataProtectionPolicy"
        ),
        **dict.fromkeys(("logs:PutResourcePolicy", "logs:DeleteResourcePolicy"), "ResourcePolicyDocument"),
        **dict.fromkeys(("logs:PutIndexPolicy", "logs:DeleteIndexPolicy"), "FieldIndexPolicies"),
        "logs:PutBearerTokenAuthentication": "BearerTokenAuthenticationEnabled",
        "logs:PutLogGroupDeletionProtection": "DeletionProtectionEnabled",
        "logs:DeleteRetentionPolicy": "a RetentionInDays that goes away",
    },
    "AWS::SNS::Subscription": dict.fromkeys(("iam:GetRole", "iam:PassRole"), "SubscriptionRoleArn"),
    "AWS::SecretsManager::Secret": {
        "secretsmanager:GetRandomPassword": "GenerateSecretString",
        "secretsmanager:ReplicateSecretToRegions": "ReplicaRegions",
        "secretsmanager:RemoveRegionsFromReplication": "ReplicaRegions",
    },
}


class Right(NamedTuple):
    """A request to IAM, with its condition keys."""

    action: str
    resource: str
    keys: tuple[tuple[str, str], ...] = ()


@functools.cache
def handlers(resource_type: str) -> Mapping[str, Any]:
    """Return the permissions of a type's handlers, by operation."""
    schemas = files("cfnlint.data.schemas")
    name = json.loads((schemas / "providers" / "us-east-1.json").read_text())[resource_type]
    found = json.loads((schemas / "resources" / f"{name}.json").read_text()).get("handlers", {})
    return {operation: handler["permissions"] for operation, handler in found.items()}


@functools.cache
def _actions() -> Mapping[str, Any]:
    """Return AWS's service authorization reference, as cfn-lint carries it."""
    services = json.loads((files("cfnlint.data") / "AdditionalSpecs" / "Policies.json").read_text())
    return {name: service["Actions"] for name, service in services.items()}


def has_resources(action: str) -> bool:
    """Return whether an action can be limited to resources."""
    service, _, verb = action.partition(":")
    return bool(_actions()[service][verb.lower()].get("Resources"))


@dataclass(frozen=True)
class Deployment:
    """A stack that CloudFormation makes.

    Its resources have the names that CloudFormation generates: the stack's name, the logical id, and twelve characters.
    """

    stack_name: str
    where: Place
    account: str

    def rights(self, operation: str, resource_type: str, logical_id: str, properties: Properties) -> Iterator[Right]:
        """Return the requests to create, update or delete a resource, and to read it afterwards.

        Parameters
        ----------
        properties
            With their intrinsic functions evaluated.
        """
        permissions = handlers(resource_type)
        for action in dict.fromkeys([*permissions.get(operation, ()), *permissions.get("read", ())]):
            without_key = action.startswith("kms:") and not _own_key(properties)
            if action not in NOT_USED.get(resource_type, {}) and not without_key:
                resource = self._resource(action, resource_type, logical_id, properties)
                yield Right(action, resource, tuple(self._keys(action, resource_type, properties).items()))

    def with_names(self, node: Any) -> Any:
        """Put ARNs in the place of resources that are not made yet: <SegmentTable.Arn>."""
        if isinstance(node, list):
            return [self.with_names(one) for one in node]
        return re.sub(r"<(\w+)\.\w+>", lambda found: self._arn_of(found[1]), node)

    def _arn_of(self, logical_id: str) -> str:
        name = self._name(logical_id)
        if logical_id.endswith("Queue"):
            return self._arn("sqs", name)
        if logical_id.endswith("LogGroup"):
            return self._arn("logs", f"log-group:{name}:*")
        if logical_id.endswith("Secret"):
            return self._arn("secretsmanager", f"secret:{logical_id}-A1B2C3D4E5F6-g7H8i9")
        return self._arn("dynamodb", f"table/{name}")

    def _keys(self, action: str, resource_type: str, properties: Properties) -> dict[str, str]:
        if action == "iam:PassRole":
            return {"iam:PassedToService": "lambda.amazonaws.com"}
        if resource_type == "AWS::IAM::Role" and "PermissionsBoundary" in properties:
            return {"iam:PermissionsBoundary": properties["PermissionsBoundary"]}
        if resource_type == "AWS::Lambda::EventSourceMapping":
            return {"lambda:FunctionArn": self._arn("lambda", f"function:{self._named(properties['FunctionName'])}")}
        return {}

    def _named(self, reference: str) -> str:
        """Return the name in a physical id or an ARN, or that of a resource that is not made yet."""
        if reference.startswith("<"):
            return self._name(reference.strip("<>").partition(".")[0])
        return re.split("[/:]", reference)[-1]

    def _name(self, logical_id: str) -> str:
        return f"{self.stack_name}-{logical_id}-A1B2C3D4E5F6"

    def _arn(self, service: str, resource: str) -> str:
        return f"arn:{self.where.partition}:{service}:{self.where.region}:{self.account}:{resource}"

    def _resource(self, action: str, resource_type: str, logical_id: str, properties: Properties) -> str:  # noqa: C901 - a line a type
        service, _, verb = action.partition(":")
        name = self._name(logical_id)
        if not has_resources(action):
            return "*"
        match service, resource_type:
            case "apigateway", "AWS::ApiGatewayV2::Api":
                return f"arn:{self.where.partition}:apigateway:{self.where.region}::/apis"
            case "apigateway", _:
                return f"arn:{self.where.partition}:apigateway:{self.where.region}::/apis/a1b2c3d4/one"
            case "cloudwatch", "AWS::CloudWatch::Dashboard":
                return f"arn:{self.where.partition}:cloudwatch::{self.account}:dashboard/{properties['DashboardName']}"
            case "cloudwatch", _:
                # DescribeAlarms asks about all alarms, whatever names it is given.
                return "*" if verb == "DescribeAlarms" else self._arn("cloudwatch", f"alarm:{name}")
            case "dynamodb", _:
                return self._arn("dynamodb", f"table/{name}")
            case "events", _:
                bus, rule = properties.get("EventBusName", "default"), properties.get("Name", name)
                return self._arn("events", f"rule/{rule}" if bus == "default" else f"rule/{bus}/{rule}")
            case "iam", _:
                role = self._named(properties["Role"]) if action == "iam:PassRole" else name
                return f"arn:{self.where.partition}:iam::{self.account}:role/{role}"
            case "kms", _:
                return str(_own_key(properties))
            case "lambda", "AWS::Lambda::EventSourceMapping":
                return self._arn("lambda", "event-source-mapping:1b2c3d4e")
            case "lambda", "AWS::Lambda::Function":
                return self._arn("lambda", f"function:{name}")
            case "lambda", _:
                return self._arn("lambda", f"function:{self._named(properties['FunctionName'])}")
            case "logs", _:
                return self._arn("logs", f"log-group:{name}:*")
            case "s3", _:
                code = properties["Code"]
                return f"arn:{self.where.partition}:s3:::{code['S3Bucket']}/{code['S3Key']}"
            case "secretsmanager", _:
                return self._arn("secretsmanager", f"secret:{logical_id}-A1B2C3D4E5F6-g7H8i9")
            case "sns", _:
                return str(properties["TopicArn"])
            case "sqs", "AWS::SQS::QueuePolicy":
                return self._arn("sqs", self._named(properties["Queues"][0]))
            case "sqs", _:
                return self._arn("sqs", name)
        raise NotImplementedError(f"{action} of {resource_type}")


def _own_key(properties: Properties) -> str | None:
    found = re.search(r'"(arn:[^:"]+:kms:[^"]+)"', json.dumps(properties))
    return found[1] if found else None


@functools.cache
def _statements(policy: str) -> Any:
    return parse_policy_document(policy)


def allows(policy: Mapping[str, Any], right: Right) -> bool:
    """Return whether a policy allows a request."""
    context = EvalContext(
        principal_arn="arn:aws:sts::111122223333:assumed-role/StackRole/AWSCloudFormation",
        principal_type="AssumedRole",
        principal_account="111122223333",
        action=right.action,
        resource_arn=right.resource,
        region="us-east-1",
        service_context={name.lower(): value for name, value in right.keys},
    )
    return bool(evaluate(context, [_statements(json.dumps(policy))]).decision == "Allow")
