"""The permissions that CloudFormation needs from a service role.

AWS publishes the permissions of each resource type's handlers, and cfn-lint carries them. These permissions cover every
property of a type. NOT_USED lists the permissions for properties that this template does not set, so these proofs are
only as good as that list. Embedded AWS does not check a service role at all.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from importlib.resources import files
from typing import Any, NamedTuple

from ministack.core.iam_evaluator import EvalContext, evaluate, parse_policy_document

from tests.transformed import Place

Properties = Mapping[str, Any]

# By resource type and property: permissions that its handlers need for a property that the template does not set.
NOT_USED: Mapping[str, Mapping[str, Sequence[str]]] = {
    "AWS::ApiGatewayV2::Api": {"Body and BodyS3Location": ["s3:*"]},
    "AWS::ApiGatewayV2::Integration": {"CredentialsArn": ["iam:PassRole"]},
    "AWS::ApiGatewayV2::Stage": {
        "no action of IAM: tags are PUT and DELETE": ["apigateway:TagResource", "apigateway:UntagResource"]
    },
    "AWS::DynamoDB::Table": {
        "ImportSourceSpecification": ["dynamodb:DescribeImport", "dynamodb:ImportTable", "logs:*", "s3:*"],
        "KinesisStreamSpecification": [
            "dynamodb:EnableKinesisStreamingDestination",
            "dynamodb:DisableKinesisStreamingDestination",
            "dynamodb:UpdateKinesisStreamingDestination",
            "kinesis:*",
        ],
        "ResourcePolicy": ["dynamodb:PutResourcePolicy", "dynamodb:DeleteResourcePolicy"],
        "ContributorInsightsSpecification": ["dynamodb:UpdateContributorInsights"],
        "Replicas": ["dynamodb:*TableReplica", "dynamodb:*Item", "dynamodb:Scan", "dynamodb:Query", "iam:*Role"],
        "an alias as KMSMasterKeyId, which KmsKeyArn refuses": ["kms:ListAliases"],
    },
    "AWS::Events::Rule": {"RoleArn of a target": ["iam:PassRole"]},
    "AWS::IAM::Role": {
        "ManagedPolicyArns": ["iam:AttachRolePolicy", "iam:DetachRolePolicy"],
        "withheld: a role that has the boundary keeps it": ["iam:DeleteRolePermissionsBoundary"],
    },
    "AWS::Lambda::EventSourceMapping": {"KmsKeyArn of filter criteria": ["kms:*"]},
    "AWS::Lambda::Function": {
        "CapacityProviderConfig": ["lambda:PutFunctionScalingConfig", "lambda:PassCapacityProvider"],
        "CodeSigningConfigArn": [
            "lambda:GetCodeSigningConfig",
            "lambda:PutFunctionCodeSigningConfig",
            "lambda:DeleteFunctionCodeSigningConfig",
        ],
        "FileSystemConfigs": ["elasticfilesystem:*", "s3files:*"],
        "Layers": ["lambda:GetLayerVersion"],
        "PublishToLatestPublished": ["lambda:PublishVersion"],
        "ReservedConcurrentExecutions": ["lambda:PutFunctionConcurrency", "lambda:DeleteFunctionConcurrency"],
        "RuntimeManagementConfig": ["lambda:PutRuntimeManagementConfig"],
        "S3ObjectVersion": ["s3:GetObjectVersion"],
        "VpcConfig": ["ec2:*"],
    },
    "AWS::Logs::LogGroup": {
        "BearerTokenAuthenticationEnabled": ["logs:PutBearerTokenAuthentication"],
        "DataProtectionPolicy": ["logs:PutDataProtectionPolicy", "logs:CreateLogDelivery", "s3:*", "firehose:*"],
        "DeletionProtectionEnabled": ["logs:PutLogGroupDeletionProtection"],
        "FieldIndexPolicies": ["logs:*IndexPolicy"],
        "ResourcePolicyDocument": ["logs:*ResourcePolicy"],
        "RetentionInDays that is removed": ["logs:DeleteRetentionPolicy"],
    },
    "AWS::SNS::Subscription": {"SubscriptionRoleArn": ["iam:GetRole", "iam:PassRole"]},
    "AWS::SecretsManager::Secret": {
        "GenerateSecretString": ["secretsmanager:GetRandomPassword"],
        "ReplicaRegions": ["secretsmanager:ReplicateSecretToRegions", "secretsmanager:RemoveRegionsFromReplication"],
    },
}


class Right(NamedTuple):
    """An action on a resource that IAM must allow, with the condition keys of the request."""

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


def is_used(resource_type: str, action: str) -> bool:
    """Return whether a handler needs a permission for a property that the template sets."""
    unused = NOT_USED.get(resource_type, {}).values()
    return not any(fnmatch(action, pattern) for patterns in unused for pattern in patterns)


@functools.cache
def _actions() -> Mapping[str, Any]:
    """Return AWS's service authorization reference, as cfn-lint carries it."""
    services = json.loads((files("cfnlint.data") / "AdditionalSpecs" / "Policies.json").read_text())
    return {name: service["Actions"] for name, service in services.items()}


def has_resources(action: str) -> bool:
    """Return whether IAM can limit an action to resources."""
    service, _, verb = action.partition(":")
    return bool(_actions()[service][verb.lower()].get("Resources"))


@dataclass(frozen=True)
class Deployment:
    """A stack that CloudFormation creates.

    CloudFormation names its resources after the stack, the logical id, and twelve characters.
    """

    stack_name: str
    where: Place
    account: str

    def rights(self, operation: str, resource_type: str, logical_id: str, properties: Properties) -> Iterator[Right]:
        """Yield the rights to create, update or delete a resource, and to read it afterwards.

        Parameters
        ----------
        properties
            The resource's properties, with their intrinsic functions evaluated.
        """
        permissions = handlers(resource_type)
        for action in dict.fromkeys([*permissions.get(operation, ()), *permissions.get("read", ())]):
            without_key = action.startswith("kms:") and not _own_key(properties)
            if is_used(resource_type, action) and not without_key:
                resource = self._resource(action, resource_type, logical_id, properties)
                yield Right(action, resource, tuple(self._keys(action, resource_type, properties).items()))

    def with_names(self, node: Any) -> Any:
        """Replace references to resources that do not exist yet, such as <SegmentTable.Arn>, by ARNs."""
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
        """Return the name in a physical id, in an ARN, or in a reference to a resource that does not exist yet."""
        if reference.startswith("<"):
            return self._name(reference.strip("<>").partition(".")[0])
        return re.split("[/:]", reference)[-1]

    def _name(self, logical_id: str) -> str:
        return f"{self.stack_name}-{logical_id}-A1B2C3D4E5F6"

    def _arn(self, service: str, resource: str) -> str:
        return f"arn:{self.where.partition}:{service}:{self.where.region}:{self.account}:{resource}"

    def _resource(self, action: str, resource_type: str, logical_id: str, properties: Properties) -> str:  # noqa: C901 - one case per type
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
                # IAM checks DescribeAlarms against all alarms, whatever names the request has.
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
