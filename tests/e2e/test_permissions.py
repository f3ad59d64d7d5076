"""With IAM enforced: each role has the permissions of its function and no others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import pytest
from botocore.exceptions import ClientError

from sandbox.embedded_aws import REGION
from sandbox.stack import OUTCOME_BUS, Sandbox
from tests.e2e.observer import APP_ID, Observer, Role
from tests.segment_table import create_segment_table

STOP, CALLBACK, PUBLISH, SWEEP = "StopSegmentRole", "ReceiveCallbackRole", "PublishOutcomeRole", "SweepRoomsRole"
KEY = {"room": {"S": f"{APP_ID}#room"}, "task_id": {"S": "audio"}}
UPDATE = {
    "Key": KEY,
    "UpdateExpression": "SET open_since = :n",
    "ExpressionAttributeValues": {":n": {"N": "1"}},
}


class Try(NamedTuple):
    """A request, and the roles that may make it. {Name} in an argument stands for the physical id of a resource."""

    method: str
    allowed: tuple[str, ...]
    arguments: Mapping[str, Any]


def index(name: str, key: str) -> dict[str, Any]:
    condition = {"KeyConditionExpression": f"{key} = :key", "ExpressionAttributeValues": {":key": {"S": "1"}}}
    return {"TableName": "{SegmentTable}", "IndexName": name, **condition}


def queue(name: str, *, send: tuple[str, ...] = (), receive: tuple[str, ...] = ()) -> dict[str, Try]:
    url = {"QueueUrl": f"{{{name}}}"}
    return {
        f"send to {name}": Try("sqs send_message", send, url | {"MessageBody": "{}"}),
        f"receive from {name}": Try("sqs receive_message", receive, url),
        f"purge {name}": Try("sqs purge_queue", (), url),
    }


def table(name: str, *, read: tuple[str, ...] = (), write: tuple[str, ...] = ()) -> dict[str, Try]:
    return {
        f"read {name}": Try("dynamodb batch_get_item", read, {"RequestItems": {name: {"Keys": [KEY]}}}),
        f"update {name}": Try("dynamodb update_item", write, {"TableName": name, **UPDATE}),
    }


def secret(name: str, *, read: tuple[str, ...] = ()) -> dict[str, Try]:
    return {
        f"read secret {name}": Try("secretsmanager get_secret_value", read, {"SecretId": name}),
        f"write secret {name}": Try("secretsmanager put_secret_value", (), {"SecretId": name, "SecretString": "{}"}),
    }


def put_event(bus: str) -> dict[str, Any]:
    return {"Entries": [{"Source": "e2e", "DetailType": "e2e", "Detail": "{}", "EventBusName": bus}]}


TRIES = {
    **queue("EventQueue", send=(STOP, CALLBACK, SWEEP), receive=(STOP,)),
    **queue("DeadLetterQueue", send=(STOP,)),
    **queue("FailedStopQueue", send=(STOP,), receive=(PUBLISH,)),
    **queue("UnpublishedOutcomeQueue", send=(PUBLISH,)),
    **table("{SegmentTable}", read=(STOP,), write=(STOP, SWEEP)),
    **table("another"),
    **secret("{RtcCredentialsSecret}", read=(STOP, SWEEP)),
    **secret("sandbox-callback", read=(CALLBACK,)),
    **secret("another"),
    "read an item": Try("dynamodb get_item", (), {"TableName": "{SegmentTable}", "Key": KEY}),
    "replace an item": Try("dynamodb put_item", (), {"TableName": "{SegmentTable}", "Item": KEY}),
    "delete an item": Try("dynamodb delete_item", (SWEEP,), {"TableName": "{SegmentTable}", "Key": KEY}),
    "read the whole table": Try("dynamodb scan", (), {"TableName": "{SegmentTable}"}),
    "find a room's open tasks": Try("dynamodb query", (STOP,), index("OpenTasks", "room")),
    "find the watched rooms": Try("dynamodb query", (SWEEP,), index("WatchedTasks", "watch")),
    "put an event on the outcome bus": Try("events put_events", (PUBLISH,), put_event(OUTCOME_BUS)),
    "put an event on another bus": Try("events put_events", (), put_event("default")),
    "answer a workflow": Try("stepfunctions send_task_success", (PUBLISH,), {"taskToken": "unknown", "output": "{}"}),
    "fail a workflow": Try("stepfunctions send_task_failure", (PUBLISH,), {"taskToken": "unknown", "error": "e"}),
    "start a workflow": Try(
        "stepfunctions start_execution",
        (),
        {"stateMachineArn": f"arn:aws:states:{REGION}:000000000000:stateMachine:rtc-close-1"},
    ),
    "invoke a function": Try("lambda invoke", (), {"FunctionName": "{StopSegmentFunction}", "Payload": b"{}"}),
    "use a KMS key": Try("kms generate_data_key", (), {"KeyId": "alias/another", "KeySpec": "AES_256"}),
    "change its policy": Try(
        "iam put_role_policy",
        (),
        {"RoleName": "{StopSegmentRole}", "PolicyName": "more", "PolicyDocument": "{}"},
    ),
}


@pytest.fixture(scope="module")
def roles(box: Sandbox, observer: Observer) -> dict[str, Role]:
    """Return the roles, and create resources that none of them may use."""
    box.client("secretsmanager").create_secret(Name="another", SecretString="{}")
    create_segment_table(box.client("dynamodb"), "another")
    key = box.client("kms").create_key()["KeyMetadata"]["KeyId"]
    box.client("kms").create_alias(AliasName="alias/another", TargetKeyId=key)
    return {name: Role(observer, name) for name in (STOP, CALLBACK, PUBLISH, SWEEP)}


def with_ids(observer: Observer, value: Any) -> Any:
    """Replace {Name} at any depth by the physical id of that resource."""
    if isinstance(value, dict):
        return {with_ids(observer, key): with_ids(observer, one) for key, one in value.items()}
    if isinstance(value, list):
        return [with_ids(observer, one) for one in value]
    is_named = isinstance(value, str) and value.startswith("{") and len(value) > len("{}")
    return observer.resource(value.strip("{}")) if is_named else value


@pytest.mark.parametrize("name", TRIES)
def test_request_is_allowed_to_the_listed_roles_only(observer: Observer, roles: dict[str, Role], name: str) -> None:
    service, _, method = TRIES[name].method.partition(" ")
    arguments = with_ids(observer, TRIES[name].arguments)
    answers = {role: answer(getattr(assumed.client(service), method), arguments) for role, assumed in roles.items()}
    # No workflow waits for the token of the request.
    assert set(answers.values()) <= {"", "TaskDoesNotExist", "AccessDenied", "AccessDeniedException"}
    assert {role for role, code in answers.items() if "AccessDenied" not in code} == set(TRIES[name].allowed)


def answer(call: Callable[..., object], arguments: Mapping[str, Any]) -> str:
    """Make a request, and return the error's code, or nothing."""
    try:
        call(**arguments)
    except ClientError as error:
        return str(error.response["Error"]["Code"])
    return ""
