"""With a customer KMS key: everything that can be encrypted names it, and the main job goes on."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from sandbox.callbacks import callback
from sandbox.stack import STACK_NAME, Sandbox, deploy, sandbox
from tests.e2e.observer import APP_ID, Observer, Role, Room

pytestmark = pytest.mark.long

KEY_POLICY = (Path(__file__).parents[2] / "deploy" / "key-policy.json").read_text()
ROLES = ("StopSegmentRole", "ReceiveCallbackRole", "PublishOutcomeRole")


def documented_key_policy() -> str:
    """Return the policy that docs/security.md shows, for the sandbox's account."""
    return KEY_POLICY.replace("111122223333", "000000000000").replace("ap-southeast-1", "us-east-1")


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    with sandbox(key_policy=documented_key_policy(), app_ids={APP_ID}) as running:
        yield running


@pytest.fixture(scope="module")
def key_arn(box: Sandbox) -> str:
    (stack,) = box.client("cloudformation").describe_stacks(StackName=STACK_NAME)["Stacks"]
    values = {parameter["ParameterKey"]: parameter["ParameterValue"] for parameter in stack["Parameters"]}
    return str(values["KmsKeyArn"])


def keys(observer: Observer) -> set[object]:
    """Read what a queue, a secret and a log group are encrypted with, as far as embedded AWS keeps it."""
    box, log_group = observer.box, observer.resource("StopSegmentLogGroup")
    queue = box.client("sqs").get_queue_attributes(QueueUrl=box.outputs["EventQueueUrl"], AttributeNames=["All"])
    secret = box.client("secretsmanager").describe_secret(SecretId=box.outputs["RtcCredentialsSecretArn"])
    (group,) = box.client("logs").describe_log_groups(logGroupNamePrefix=log_group)["logGroups"]
    return {queue["Attributes"].get("KmsMasterKeyId"), secret.get("KmsKeyId"), group.get("kmsKeyId")}


# The place of the key in each type.
KEY_PROPERTIES = {
    "AWS::DynamoDB::Table": ("SSESpecification", "KMSMasterKeyId"),
    "AWS::Lambda::Function": ("KmsKeyArn",),
    "AWS::Logs::LogGroup": ("KmsKeyId",),
    "AWS::SQS::Queue": ("KmsMasterKeyId",),
    "AWS::SecretsManager::Secret": ("KmsKeyId",),
}


def test_no_resource_of_the_deployed_template_is_without_the_key(box: Sandbox) -> None:
    answer = box.client("cloudformation").get_template(StackName=STACK_NAME, TemplateStage="Processed")
    resources = answer["TemplateBody"]["Resources"]
    keys = {}
    for logical_id, resource in resources.items():
        if resource["Type"] in KEY_PROPERTIES:
            value = resource["Properties"]
            for name in KEY_PROPERTIES[resource["Type"]]:
                value = value.get(name, {})
            keys[logical_id] = value
    own_key = {"Fn::If": ["HasOwnKey", {"Ref": "KmsKeyArn"}, {"Ref": "AWS::NoValue"}]}
    assert {resources[logical_id]["Type"] for logical_id in keys} == set(KEY_PROPERTIES)
    assert [logical_id for logical_id, key in keys.items() if key != own_key] == []


def test_stop_works_from_its_event_to_its_outcome_event(room: Room) -> None:
    room.start("audio")
    assert room.end_of("RoomEnded", TaskId="audio") == ["stopped"]
    assert not room.is_running("audio")
    (event,) = room.outcome_events(1)
    assert event["detail"]["TaskId"] == "audio"


def test_callback_and_dead_letter_work(box: Sandbox, observer: Observer, room: Room) -> None:
    assert box.call_back(callback("RoomDestroy", {"RoomId": room.id}, "2026-11-22T06:12:00Z")) == 200
    (message_id,) = box.send(["no JSON"])
    assert observer.ends([message_id]) == {message_id: ["invalid_message"]}
    assert observer.letter(message_id).body == "no JSON"


@pytest.mark.parametrize("role", ROLES)
def test_role_may_use_the_key_and_do_nothing_else_with_it(observer: Observer, key_arn: str, role: str) -> None:
    kms = Role(observer, role).client("kms")
    data_key = kms.generate_data_key(KeyId=key_arn, KeySpec="AES_256")
    assert kms.decrypt(CiphertextBlob=data_key["CiphertextBlob"])["Plaintext"] == data_key["Plaintext"]
    others: dict[str, dict[str, Any]] = {
        "encrypt": {"KeyId": key_arn, "Plaintext": b"anything"},
        "describe_key": {"KeyId": key_arn},
        "get_key_policy": {"KeyId": key_arn},
        "disable_key": {"KeyId": key_arn},
        "schedule_key_deletion": {"KeyId": key_arn},
        "create_grant": {
            "KeyId": key_arn,
            "GranteePrincipal": "arn:aws:iam::000000000000:root",
            "Operations": ["Decrypt"],
        },
    }
    for method, arguments in others.items():
        assert is_denied(getattr(kms, method), **arguments), method


SECRETS = [
    ("StopSegmentRole", "DecryptTheRtcKey", "RtcCredentialsSecretArn"),
    ("SweepRoomsRole", "DecryptTheRtcKey", "RtcCredentialsSecretArn"),
    ("ReceiveCallbackRole", "DecryptTheCallbackKey", "CallbackSecretArn"),
]


@pytest.mark.parametrize(("role", "sid", "secret"), SECRETS)
def test_role_may_decrypt_its_secret_under_any_key_and_nothing_else(
    box: Sandbox, observer: Observer, role: str, sid: str, secret: str
) -> None:
    """Secrets Manager encrypts with the secret's ARN as context (its guide, "Secret encryption and decryption").

    Embedded AWS knows no conditions on a context, so the test takes the condition out where AWS finds it met.
    """
    kms, iam = box.client("kms"), box.client("iam")
    (stack,) = box.client("cloudformation").describe_stacks(StackName=STACK_NAME)["Stacks"]
    arns = {one["ParameterKey"]: one["ParameterValue"] for one in stack["Parameters"]}
    arns |= box.outputs
    name = observer.resource(role)
    policies = [policy for policy in iam.list_role_policies(RoleName=name)["PolicyNames"] if policy != "UseOwnKey"]
    document = iam.get_role_policy(RoleName=name, PolicyName=policies[0])["PolicyDocument"]
    (allowed,) = [statement for statement in document["Statement"] if statement["Sid"] == sid]
    assert allowed["Condition"] == {"StringEquals": {"kms:EncryptionContext:SecretARN": arns[secret]}}

    key_id = kms.create_key()["KeyMetadata"]["KeyId"]  # with the policy that KMS gives a key by itself
    call: dict[str, Any] = {"EncryptionContext": {"SecretARN": arns[secret], "SecretVersionId": "1"}}
    call["CiphertextBlob"] = kms.encrypt(KeyId=key_id, Plaintext=b"key", **call)["CiphertextBlob"]
    assert is_denied(Role(observer, role).client("kms").decrypt, **call)
    unconditional = {**document, "Statement": [{k: v for k, v in allowed.items() if k != "Condition"}]}
    iam.put_role_policy(RoleName=name, PolicyName="as-AWS-finds-it-met", PolicyDocument=json.dumps(unconditional))
    try:
        role_kms = Role(observer, role).client("kms")
        assert role_kms.decrypt(**call)["Plaintext"] == b"key"
        assert is_denied(role_kms.encrypt, KeyId=key_id, Plaintext=b"anything")
        assert is_denied(role_kms.generate_data_key, KeyId=key_id, KeySpec="AES_256")
    finally:
        iam.delete_role_policy(RoleName=name, PolicyName="as-AWS-finds-it-met")


def is_denied(call: Callable[..., object], **arguments: Any) -> bool:
    try:
        call(**arguments)
    except ClientError as error:
        return error.response["Error"]["Code"] in ("AccessDenied", "AccessDeniedException")
    return False


def test_stack_goes_back_to_the_keys_of_aws(box: Sandbox, observer: Observer, key_arn: str, room: Room) -> None:
    assert keys(observer) == {key_arn}
    deploy(box.aws, {"KmsKeyArn": '""'})  # SAM CLI wants quotes around nothing
    assert key_arn not in keys(observer)
    room.start("audio")
    assert room.end_of("RoomEnded", TaskId="audio") == ["stopped"]
