"""With a customer KMS key, everything that can be encrypted uses the key, and stops work as without a key."""

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
# The property of each type that names the key, and its value.
KEY_PROPERTY = {
    "AWS::DynamoDB::Table": "KMSMasterKeyId",
    "AWS::Lambda::Function": "KmsKeyArn",
    "AWS::Logs::LogGroup": "KmsKeyId",
    "AWS::SQS::Queue": "KmsMasterKeyId",
    "AWS::SecretsManager::Secret": "KmsKeyId",
}
OWN_KEY = '{"Fn::If": ["HasOwnKey", {"Ref": "KmsKeyArn"}, {"Ref": "AWS::NoValue"}]}'


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    """Deploy a stack with a key that has the policy of docs/security.md."""
    policy = KEY_POLICY.replace("111122223333", "000000000000").replace("ap-southeast-1", "us-east-1")
    with sandbox(key_policy=policy, app_ids={APP_ID}) as running:
        yield running


@pytest.fixture(scope="module")
def parameters(box: Sandbox) -> dict[str, str]:
    (stack,) = box.client("cloudformation").describe_stacks(StackName=STACK_NAME)["Stacks"]
    return {parameter["ParameterKey"]: parameter["ParameterValue"] for parameter in stack["Parameters"]}


def keys(observer: Observer) -> set[object]:
    """Return the keys of a queue, a secret and a log group, the only ones that embedded AWS describes."""
    box, log_group = observer.box, observer.resource("StopSegmentLogGroup")
    queue = box.client("sqs").get_queue_attributes(QueueUrl=box.outputs["EventQueueUrl"], AttributeNames=["All"])
    secret = box.client("secretsmanager").describe_secret(SecretId=box.outputs["RtcCredentialsSecretArn"])
    (group,) = box.client("logs").describe_log_groups(logGroupNamePrefix=log_group)["logGroups"]
    return {queue["Attributes"].get("KmsMasterKeyId"), secret.get("KmsKeyId"), group.get("kmsKeyId")}


def test_no_resource_of_the_deployed_template_is_without_the_key(box: Sandbox) -> None:
    answer = box.client("cloudformation").get_template(StackName=STACK_NAME, TemplateStage="Processed")
    encrypted = [one for one in answer["TemplateBody"]["Resources"].items() if one[1]["Type"] in KEY_PROPERTY]
    assert {resource["Type"] for _, resource in encrypted} == KEY_PROPERTY.keys()
    for logical_id, resource in encrypted:
        assert f'"{KEY_PROPERTY[resource["Type"]]}": {OWN_KEY}' in json.dumps(resource["Properties"]), logical_id


def test_stop_callback_and_dead_letter_work_with_the_key(box: Sandbox, observer: Observer, room: Room) -> None:
    room.start("audio")
    assert room.end_of("RoomEnded", TaskId="audio") == ["stopped"]
    assert not room.is_running("audio")
    (event,) = room.outcome_events(1)
    assert event["detail"]["TaskId"] == "audio"

    assert box.call_back(callback("RoomDestroy", {"RoomId": room.id}, "2026-11-22T06:12:00Z")) == 200
    (message_id,) = box.send(["no JSON"])
    assert observer.ends([message_id]) == {message_id: ["invalid_message"]}
    assert observer.letter(message_id).body == "no JSON"


@pytest.mark.parametrize("role", ["StopSegmentRole", "ReceiveCallbackRole", "PublishOutcomeRole", "SweepRoomsRole"])
def test_role_may_use_the_key_and_do_nothing_else_with_it(
    observer: Observer, parameters: dict[str, str], role: str
) -> None:
    kms, key_arn = Role(observer, role).client("kms"), parameters["KmsKeyArn"]
    data_key = kms.generate_data_key(KeyId=key_arn, KeySpec="AES_256")
    assert kms.decrypt(CiphertextBlob=data_key["CiphertextBlob"])["Plaintext"] == data_key["Plaintext"]
    assert is_denied(kms.encrypt, KeyId=key_arn, Plaintext=b"anything")
    assert is_denied(kms.describe_key, KeyId=key_arn)
    assert is_denied(kms.get_key_policy, KeyId=key_arn)
    assert is_denied(kms.disable_key, KeyId=key_arn)
    assert is_denied(kms.schedule_key_deletion, KeyId=key_arn)
    root = "arn:aws:iam::000000000000:root"
    assert is_denied(kms.create_grant, KeyId=key_arn, GranteePrincipal=root, Operations=["Decrypt"])


@pytest.mark.parametrize(
    ("role", "sid", "secret"),
    [
        ("StopSegmentRole", "DecryptTheRtcKey", "RtcCredentialsSecretArn"),
        ("SweepRoomsRole", "DecryptTheRtcKey", "RtcCredentialsSecretArn"),
        ("ReceiveCallbackRole", "DecryptTheCallbackKey", "CallbackSecretArn"),
    ],
)
def test_role_may_decrypt_its_secret_under_any_key_and_nothing_else(
    box: Sandbox, observer: Observer, parameters: dict[str, str], role: str, sid: str, secret: str
) -> None:
    """Secrets Manager encrypts with the secret's ARN as context (its guide, "Secret encryption and decryption").

    Embedded AWS denies every condition on a context, so the test removes the condition where AWS would find it met.
    """
    kms, iam = box.client("kms"), box.client("iam")
    arn = {**parameters, **box.outputs}[secret]
    name = observer.resource(role)
    policies = [policy for policy in iam.list_role_policies(RoleName=name)["PolicyNames"] if policy != "UseOwnKey"]
    document = iam.get_role_policy(RoleName=name, PolicyName=policies[0])["PolicyDocument"]
    (allowed,) = [statement for statement in document["Statement"] if statement["Sid"] == sid]
    assert allowed.pop("Condition") == {"StringEquals": {"kms:EncryptionContext:SecretARN": arn}}

    key_id = kms.create_key()["KeyMetadata"]["KeyId"]  # with the default key policy
    call: dict[str, Any] = {"EncryptionContext": {"SecretARN": arn, "SecretVersionId": "1"}}
    call["CiphertextBlob"] = kms.encrypt(KeyId=key_id, Plaintext=b"key", **call)["CiphertextBlob"]
    assert is_denied(Role(observer, role).client("kms").decrypt, **call)
    unconditional = json.dumps({**document, "Statement": [allowed]})
    iam.put_role_policy(RoleName=name, PolicyName="unconditional", PolicyDocument=unconditional)
    try:
        role_kms = Role(observer, role).client("kms")
        assert role_kms.decrypt(**call)["Plaintext"] == b"key"
        assert is_denied(role_kms.encrypt, KeyId=key_id, Plaintext=b"anything")
        assert is_denied(role_kms.generate_data_key, KeyId=key_id, KeySpec="AES_256")
    finally:
        iam.delete_role_policy(RoleName=name, PolicyName="unconditional")


def is_denied(call: Callable[..., object], **arguments: Any) -> bool:
    try:
        call(**arguments)
    except ClientError as error:
        return error.response["Error"]["Code"] in ("AccessDenied", "AccessDeniedException")
    return False


def test_stack_goes_back_to_the_keys_of_aws(
    box: Sandbox, observer: Observer, parameters: dict[str, str], room: Room
) -> None:
    assert keys(observer) == {parameters["KmsKeyArn"]}
    deploy(box.aws, {"KmsKeyArn": '""'})  # SAM CLI takes an empty value only in quotes
    assert parameters["KmsKeyArn"] not in keys(observer)
    room.start("audio")
    assert room.end_of("RoomEnded", TaskId="audio") == ["stopped"]
