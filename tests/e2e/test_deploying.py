"""A release is deployed, updated and deleted by the roles of deploy/, with IAM enforced."""

import base64
import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError, WaiterError

from sandbox.embedded_aws import REGION, EmbeddedAws, embedded_aws
from sandbox.stack import ROOT
from tests.e2e.test_release import release

STACK = "rtc-segment-stopper-prod"
OIDC = "token.actions.githubusercontent.com"
REPOSITORY = "example/rtc-segment-stopper"


@dataclass(frozen=True)
class Account:
    """An account whose administrator has deployed deploy/roles.yaml.

    Parameters
    ----------
    dist
        A release.
    roles
        The outputs of deploy/roles.yaml.
    """

    aws: EmbeddedAws
    dist: Path
    roles: Mapping[str, str]

    def become_pipeline(self, subject: str = f"repo:{REPOSITORY}:environment:prod") -> Mapping[str, str]:
        """Do what aws-actions/configure-aws-credentials does, with a token as the code host would sign it."""
        claims = {"iss": f"https://{OIDC}", "aud": "sts.amazonaws.com", "sub": subject}
        parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in ({}, claims)]
        answer = self.aws.client("sts").assume_role_with_web_identity(
            RoleArn=self.roles["PipelineRoleArn"], RoleSessionName="deploy", WebIdentityToken=".".join([*parts, ""])
        )
        credentials: Mapping[str, str] = answer["Credentials"]
        return credentials

    def pipeline(self, service: str) -> Any:
        credentials = self.become_pipeline()
        return boto3.session.Session().client(
            service,  # type: ignore[call-overload]
            endpoint_url=self.aws.endpoint,
            verify=str(self.aws.ca_bundle),
            region_name=REGION,
            aws_access_key_id=credentials["AccessKeyId"],
            aws_secret_access_key=credentials["SecretAccessKey"],
            aws_session_token=credentials["SessionToken"],
        )

    def upload(self) -> None:
        s3 = self.pipeline("s3")
        for path in (*self.dist.glob("*.zip"), self.dist / "cloudformation.json"):
            s3.upload_file(str(path), self.roles["ReleaseBucket"], path.name)

    def change(self, kind: str, **parameters: str) -> str:
        """Create or update the stack by a change set, and return why it failed, or nothing."""
        client = self.pipeline("cloudformation")
        given = {
            "CodeBucket": self.roles["ReleaseBucket"],
            "PermissionsBoundaryArn": self.roles["FunctionBoundaryArn"],
            **parameters,
        }
        client.create_change_set(
            StackName=STACK,
            ChangeSetName="deploy",
            ChangeSetType=kind,
            TemplateURL=f"{self.aws.endpoint}/{self.roles['ReleaseBucket']}/cloudformation.json",
            RoleARN=self.roles["StackRoleArn"],
            Capabilities=["CAPABILITY_IAM"],
            Parameters=[{"ParameterKey": name, "ParameterValue": value} for name, value in given.items()],
        )
        wait(client, "change_set_create_complete", StackName=STACK, ChangeSetName="deploy")
        client.execute_change_set(StackName=STACK, ChangeSetName="deploy")
        return self.outcome(f"stack_{kind.lower()}_complete")

    def delete(self) -> str:
        self.aws.client("cloudformation").delete_stack(StackName=STACK)
        return self.outcome("stack_delete_complete")

    def outcome(self, waiter: str) -> str:
        try:
            wait(self.pipeline("cloudformation"), waiter, StackName=STACK)
        except WaiterError:
            events = self.pipeline("cloudformation").describe_stack_events(StackName=STACK)["StackEvents"]
            return " ".join(event.get("ResourceStatusReason", "") for event in events)
        return ""

    @contextlib.contextmanager
    def without(self, role: str, action: str) -> Iterator[None]:
        """Take a right away from a role."""
        iam = self.aws.client("iam")
        role_name = self.roles[f"{role}Arn"].rpartition("/")[2]
        (policy_name, *_) = iam.list_role_policies(RoleName=role_name)["PolicyNames"]
        policy = iam.get_role_policy(RoleName=role_name, PolicyName=policy_name)["PolicyDocument"]
        less = json.loads(json.dumps(policy))
        for statement in less["Statement"]:
            actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
            statement["Action"] = [one for one in actions if one != action]
        less["Statement"] = [statement for statement in less["Statement"] if statement["Action"]]
        assert less != policy, action
        iam.put_role_policy(RoleName=role_name, PolicyName=policy_name, PolicyDocument=json.dumps(less))
        try:
            yield
        finally:
            iam.put_role_policy(RoleName=role_name, PolicyName=policy_name, PolicyDocument=json.dumps(policy))


def wait(client: Any, waiter: str, **of: str) -> None:
    client.get_waiter(waiter).wait(**of, WaiterConfig={"Delay": 0.2, "MaxAttempts": 300})


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    dist = tmp_path_factory.mktemp("release") / "dist"
    assert release(dist).returncode == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{ROOT / 'functions'}")
        with embedded_aws(program="tests.guarded_aws") as aws:
            client = aws.client("cloudformation")
            given = {
                "StackName": STACK,
                "Repository": REPOSITORY,
                "OidcProviderArn": f"arn:aws:iam::000000000000:oidc-provider/{OIDC}",
            }
            client.create_stack(
                StackName="deploy",
                TemplateBody=(ROOT / "deploy" / "roles.yaml").read_text(),
                Capabilities=["CAPABILITY_IAM"],
                Parameters=[{"ParameterKey": name, "ParameterValue": value} for name, value in given.items()],
            )
            wait(client, "stack_create_complete", StackName="deploy")
            outputs = client.describe_stacks(StackName="deploy")["Stacks"][0]["Outputs"]
            made = Account(aws, dist, {output["OutputKey"]: output["OutputValue"] for output in outputs})
            made.upload()
            yield made


def test_stack_is_deployed_updated_and_deleted_under_the_shipped_roles(account: Account) -> None:
    assert account.change("CREATE") == ""
    assert account.change("UPDATE", LogLevel="DEBUG", SweepMinutes="7", DuplicateWindowSeconds="6") == ""
    assert account.delete() == ""


@pytest.mark.parametrize(
    "subject",
    [
        f"repo:{REPOSITORY}:environment:staging",
        f"repo:{REPOSITORY}:ref:refs/heads/main",
        "repo:example/another:environment:prod",
    ],
)
def test_no_other_job_becomes_the_pipeline(account: Account, subject: str) -> None:
    with pytest.raises(ClientError, match="Not authorized to perform sts:AssumeRoleWithWebIdentity"):
        account.become_pipeline(subject)


MAKING = [
    "apigateway:POST",
    "cloudwatch:PutDashboard",
    "cloudwatch:PutMetricAlarm",
    "dynamodb:CreateTable",
    "dynamodb:UpdateTimeToLive",
    "events:PutTargets",
    "iam:CreateRole",
    "iam:PassRole",
    "lambda:AddPermission",
    "lambda:CreateEventSourceMapping",
    "lambda:CreateFunction",
    "logs:PutRetentionPolicy",
    "s3:GetObject",
    "secretsmanager:CreateSecret",
    "sqs:CreateQueue",
    "sqs:SetQueueAttributes",
]


@pytest.mark.parametrize("action", MAKING)
def test_deployment_without_a_right_fails_with_its_name(account: Account, action: str) -> None:
    secret = "arn:aws:secretsmanager:us-east-1:000000000000:secret:callback-A1b2C3"
    with account.without("StackRole", action):
        assert f"not authorized to perform: {action} on resource" in account.change("CREATE", CallbackSecretArn=secret)
    assert account.delete() == ""
