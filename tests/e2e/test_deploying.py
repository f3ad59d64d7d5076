"""The workflow deploys a release with the roles of deploy/, while IAM is enforced."""

import base64
import contextlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from botocore.exceptions import ClientError

from sandbox.embedded_aws import REGION, EmbeddedAws, embedded_aws
from sandbox.stack import ROOT

pytestmark = pytest.mark.long

STACK = "rtc-segment-stopper-prod"
OIDC = "token.actions.githubusercontent.com"
REPOSITORY = "example/rtc-segment-stopper"


@dataclass(frozen=True)
class Account:
    """An account in which an administrator has deployed deploy/roles.yaml.

    Parameters
    ----------
    dist
        The folder of a release.
    roles
        The outputs of deploy/roles.yaml.
    """

    aws: EmbeddedAws
    dist: Path
    roles: Mapping[str, str]

    def become_pipeline(self, subject: str = f"repo:{REPOSITORY}:environment:prod") -> Mapping[str, str]:
        """Act as aws-actions/configure-aws-credentials, with a token as the code host would sign it."""
        claims = {"iss": f"https://{OIDC}", "aud": "sts.amazonaws.com", "sub": subject}
        parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in ({}, claims)]
        answer = self.aws.client("sts").assume_role_with_web_identity(
            RoleArn=self.roles["PipelineRoleArn"], RoleSessionName="deploy", WebIdentityToken=".".join([*parts, ""])
        )
        credentials: Mapping[str, str] = answer["Credentials"]
        return credentials

    def environment_of_the_pipeline(self) -> dict[str, str]:
        credentials = self.become_pipeline()
        return self.aws.environment | {
            "AWS_ACCESS_KEY_ID": credentials["AccessKeyId"],
            "AWS_SECRET_ACCESS_KEY": credentials["SecretAccessKey"],
            "AWS_SESSION_TOKEN": credentials["SessionToken"],
        }

    def let_the_pipeline_read_logs(self) -> None:
        """Grant the pipeline the log groups of embedded AWS, which are not named after the stack as on AWS."""
        statement = {
            "Effect": "Allow",
            "Action": "logs:FilterLogEvents",
            "Resource": f"arn:aws:logs:{REGION}:000000000000:log-group:/aws/cloudformation/{STACK}/*",
        }
        self.aws.client("iam").put_role_policy(
            RoleName=self.roles["PipelineRoleArn"].rpartition("/")[2],
            PolicyName="ReadLogsOfEmbeddedAws",
            PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [statement]}),
        )

    def delete(self) -> None:
        client = self.aws.client("cloudformation")
        client.delete_stack(StackName=STACK)
        wait(client, "stack_delete_complete", StackName=STACK)

    @contextlib.contextmanager
    def without(self, action: str) -> Iterator[None]:
        """Remove an action from the pipeline's policy, and put it back at the end."""
        iam = self.aws.client("iam")
        of_pipeline = {"RoleName": self.roles["PipelineRoleArn"].rpartition("/")[2], "PolicyName": "Deploy"}
        policy = iam.get_role_policy(**of_pipeline)["PolicyDocument"]
        less = json.loads(json.dumps(policy))
        for statement in less["Statement"]:
            actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
            statement["Action"] = [one for one in actions if one != action]
        less["Statement"] = [statement for statement in less["Statement"] if statement["Action"]]
        assert less != policy, action
        iam.put_role_policy(**of_pipeline, PolicyDocument=json.dumps(less))
        try:
            yield
        finally:
            iam.put_role_policy(**of_pipeline, PolicyDocument=json.dumps(policy))


class Runner:
    """Runs the steps of deploy.yml in their order, as the code host's runner does.

    Stand-ins play the host's part. The checkout is this repository. `gh` delivers the account's release, and records
    each request to verify it. The credentials come from a token, signed as the host would sign it.
    """

    def __init__(self, account: Account, folder: Path) -> None:
        self.account = account
        self.workspace = folder / "workspace"
        self.verified = folder / "verified"
        self.workspace.mkdir()
        for path in ROOT.iterdir():
            if path.name not in (".git", "dist"):
                (self.workspace / path.name).symlink_to(path)
        bin_folder = folder / "bin"
        bin_folder.mkdir()
        gh = bin_folder / "gh"
        gh.write_text(GH.format(dist=account.dist, verified=self.verified))
        gh.chmod(0o700)
        self.environment = {
            "HOME": str(folder),
            "PATH": f"{bin_folder}{os.pathsep}{ROOT / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}",
        }

    def run(self, **variables: str) -> tuple[str, str]:
        """Run the steps, and return the name of the one that failed, or nothing, and their output."""
        printed = failed = ""
        job = DEPLOY["jobs"]["deploy"]
        given = {
            "inputs.release": "v1.2.3",
            "github.repository": REPOSITORY,
            "github.token": "token",
            "vars.STACK_NAME": STACK,
            "vars.RELEASE_BUCKET": self.account.roles["ReleaseBucket"],
            "vars.STACK_ROLE_ARN": self.account.roles["StackRoleArn"],
            "vars.FUNCTION_BOUNDARY_ARN": self.account.roles["FunctionBoundaryArn"],
            "vars.PARAMETERS": "",
            **variables,
        }

        def filled(environment: Mapping[str, str]) -> dict[str, str]:
            return {
                name: re.sub(r"\$\{\{ (.*?) \}\}", lambda found: given[found[1]], text)
                for name, text in environment.items()
            }

        for step in job["steps"]:
            due = f"failure() && steps.{failed.lower()}.conclusion == 'failure'" if failed else None
            if step.get("if") != due:
                continue
            if "uses" in step:
                if step["uses"].startswith("aws-actions/configure-aws-credentials@"):
                    self.environment |= self.account.environment_of_the_pipeline()
                continue
            done = subprocess.run(
                ["/bin/bash", "--noprofile", "--norc", "-e", "-o", "pipefail", "-c", step["run"]],
                cwd=self.workspace / step.get("working-directory", "."),
                env=self.environment | filled(job["env"]) | filled(step.get("env", {})),
                capture_output=True,
                text=True,
                check=False,
            )
            printed += done.stdout + done.stderr
            failed = failed or (step["name"] if done.returncode else "")
        return failed, printed


DEPLOY = yaml.safe_load((ROOT / ".github" / "workflows" / "deploy.yml").read_text())
GH = """#!/bin/sh -e
case "$1 $2" in
"release download") cp -R {dist} "$5" ;;
"attestation verify") test -f "$3" && echo "$@" >> {verified} ;;
*) exit 64 ;;
esac
"""


def wait(client: Any, waiter: str, **of: str) -> None:
    client.get_waiter(waiter).wait(**of, WaiterConfig={"Delay": 0.2, "MaxAttempts": 300})


@pytest.fixture(scope="module")
def account(dist: Path) -> Iterator[Account]:
    with embedded_aws() as aws:
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
        made.let_the_pipeline_read_logs()

        yield made


def test_first_run_of_the_workflow_succeeds_without_an_rtc_key(account: Account, tmp_path: Path) -> None:
    runner = Runner(account, tmp_path)
    failed, printed = runner.run(**{"vars.PARAMETERS": "LogLevel=DEBUG SweepMinutes=7"})
    assert not failed, printed
    assert re.search(r"RTC key +waiting +no call has used it", printed)
    assert "Nothing is wrong." in printed
    (stack,) = account.aws.client("cloudformation").describe_stacks(StackName=STACK)["Stacks"]
    parameters = {one["ParameterKey"]: one["ParameterValue"] for one in stack["Parameters"]}
    assert (parameters["LogLevel"], parameters["SweepMinutes"]) == ("DEBUG", "7")

    verified = runner.verified.read_text().splitlines()
    sums = (account.dist / "SHA256SUMS").read_text().splitlines()
    assert [line.split()[2] for line in verified] == [line.split()[1] for line in sums]
    for line in verified:
        assert f"--repo {REPOSITORY} --signer-workflow {REPOSITORY}/.github/workflows/release.yml" in line
        assert line.endswith("--source-ref refs/tags/v1.2.3")
    account.delete()


def test_workflow_prints_why_the_deployment_failed(account: Account, tmp_path: Path) -> None:
    elsewhere = {"LocationConstraint": "eu-west-1"}
    account.aws.client("s3").create_bucket(Bucket="elsewhere", CreateBucketConfiguration=elsewhere)
    failed, printed = Runner(account, tmp_path).run(**{"vars.PARAMETERS": "CodeBucket=elsewhere"})
    assert failed == "Deploy"
    assert re.search(r"StopSegmentFunction\s.*PermanentRedirect", printed)
    account.delete()


def test_workflow_refuses_a_changed_file(account: Account, tmp_path: Path) -> None:
    changed = tmp_path / "changed"
    shutil.copytree(account.dist, changed)
    (changed / "cloudformation.json").write_text("{}")
    failed, printed = Runner(replace(account, dist=changed), tmp_path).run()
    assert failed == "Check the checksums"
    assert "cloudformation.json: FAILED" in printed


def test_job_of_a_branch_may_not_assume_the_pipeline_s_role(account: Account) -> None:
    with pytest.raises(ClientError, match="Not authorized to perform sts:AssumeRoleWithWebIdentity"):
        account.become_pipeline(f"repo:{REPOSITORY}:ref:refs/heads/main")


@pytest.mark.parametrize(
    ("action", "failed_step"),
    [
        ("s3:PutObject", "Put the code where CloudFormation finds it"),
        ("cloudformation:DescribeStacks", "Deploy"),
        ("cloudformation:CreateChangeSet", "Deploy"),
        ("cloudformation:DescribeChangeSet", "Deploy"),
        ("cloudformation:ExecuteChangeSet", "Deploy"),
    ],
)
def test_workflow_without_a_permission_fails_and_names_it(
    account: Account, tmp_path: Path, action: str, failed_step: str
) -> None:
    with account.without(action):
        failed, printed = Runner(account, tmp_path).run()
    assert failed == failed_step
    # The AWS CLI does not say why it cannot wait for a change set.
    assert action == "cloudformation:DescribeChangeSet" or f"not authorized to perform: {action}" in printed
    account.delete()
