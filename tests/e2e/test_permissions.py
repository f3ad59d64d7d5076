"""With IAM enforced: each role has the permissions of its function and no others, and a missing one fails visibly."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from botocore.exceptions import ClientError

from sandbox.embedded_aws import REGION
from sandbox.stack import OUTCOME_BUS, SECRET_ACCESS_KEY, Sandbox, sandbox, wait_for
from tests.e2e.observer import APP_ID, Observer, Role, Room
from tests.segment_table import create_segment_table


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    """Deploy a stack that may lose permissions, with the most detailed log."""
    workflows = f"arn:aws:states:{REGION}:000000000000:stateMachine:close-room-*"
    with sandbox({"LogLevel": "DEBUG", "WorkflowArn": workflows}, app_ids={APP_ID}) as running:
        yield running


@pytest.fixture(scope="module")
def roles(observer: Observer) -> dict[str, Role]:
    names = ("StopSegmentRole", "ReceiveCallbackRole", "PublishOutcomeRole", "SweepRoomsRole")
    return {name: Role(observer, name) for name in names}


@dataclass(frozen=True)
class Resources:
    """The resources that a role tries to use."""

    observer: Observer
    another_secret: str
    another_table: str
    kms_key: str

    @property
    def outputs(self) -> Any:
        return self.observer.box.outputs

    @property
    def key(self) -> dict[str, Any]:
        return {"room": {"S": f"{APP_ID}#room"}, "task_id": {"S": "audio"}}

    def queue(self, logical_id: str) -> str:
        return self.observer.resource(logical_id)


@pytest.fixture(scope="module")
def resources(box: Sandbox, observer: Observer) -> Resources:
    another_secret = box.client("secretsmanager").create_secret(Name="another", SecretString="{}")["ARN"]
    create_segment_table(box.client("dynamodb"), "another")
    kms_key = box.client("kms").create_key()["KeyMetadata"]["Arn"]
    return Resources(observer, another_secret, "another", kms_key)


Try = Callable[[Role, Resources], object]


def send_to(queue: str) -> Try:
    return lambda role, on: role.client("sqs").send_message(QueueUrl=on.queue(queue), MessageBody="{}")


def receive_from(queue: str) -> Try:
    return lambda role, on: role.client("sqs").receive_message(QueueUrl=on.queue(queue))


def purge(queue: str) -> Try:
    return lambda role, on: role.client("sqs").purge_queue(QueueUrl=on.queue(queue))


def get_secret(arn: Callable[[Resources], str]) -> Try:
    return lambda role, on: role.client("secretsmanager").get_secret_value(SecretId=arn(on))


def put_secret(arn: Callable[[Resources], str]) -> Try:
    return lambda role, on: role.client("secretsmanager").put_secret_value(SecretId=arn(on), SecretString="{}")


def on_table(method: str, table: Callable[[Resources], str], **more: Any) -> Try:
    return lambda role, on: getattr(role.client("dynamodb"), method)(TableName=table(on), Key=on.key, **more)


def put_item(role: Role, on: Resources) -> object:
    return role.client("dynamodb").put_item(TableName=segment_table(on), Item=on.key)


def query(role: Role, on: Resources) -> object:
    return role.client("dynamodb").query(
        TableName=segment_table(on),
        IndexName="OpenTasks",
        KeyConditionExpression="room = :room",
        ExpressionAttributeValues={":room": {"S": "nobody's"}},
    )


def scan(role: Role, on: Resources) -> object:
    return role.client("dynamodb").scan(TableName=segment_table(on))


def batch_get(table: Callable[[Resources], str]) -> Try:
    return lambda role, on: role.client("dynamodb").batch_get_item(RequestItems={table(on): {"Keys": [on.key]}})


def put_events(bus: str) -> Try:
    def put(role: Role, _: Resources) -> object:
        entry = {"Source": "e2e", "DetailType": "e2e", "Detail": "{}", "EventBusName": bus}
        return role.client("events").put_events(Entries=[entry])

    return put


def invoke(function: str) -> Try:
    return lambda role, on: role.client("lambda").invoke(FunctionName=on.observer.resource(function), Payload=b"{}")


def make_data_key(role: Role, on: Resources) -> object:
    return role.client("kms").generate_data_key(KeyId=on.kms_key, KeySpec="AES_256")


def answer_workflow(role: Role, _: Resources) -> None:
    """Answer a workflow with a role's permissions: no workflow waits with this token."""
    client = role.client("stepfunctions")
    with contextlib.suppress(client.exceptions.TaskDoesNotExist):
        client.send_task_success(taskToken="nobody's", output="{}")
    with contextlib.suppress(client.exceptions.TaskDoesNotExist):
        client.send_task_failure(taskToken="nobody's", error="e", cause="c")


def start_workflow(role: Role, _: Resources) -> object:
    arn = f"arn:aws:states:{REGION}:000000000000:stateMachine:close-room-1"
    return role.client("stepfunctions").start_execution(stateMachineArn=arn)


def change_own_policy(role: Role, on: Resources) -> object:
    return role.client("iam").put_role_policy(
        RoleName=on.observer.resource("StopSegmentRole"), PolicyName="more", PolicyDocument="{}"
    )


def rtc_key(on: Resources) -> str:
    return str(on.outputs["RtcCredentialsSecretArn"])


def callback_key(_: Resources) -> str:
    return "sandbox-callback"


def another_secret(on: Resources) -> str:
    return on.another_secret


def segment_table(on: Resources) -> str:
    return str(on.outputs["SegmentTableName"])


def another_table(on: Resources) -> str:
    return on.another_table


def query_watched(role: Role, on: Resources) -> object:
    return role.client("dynamodb").query(
        TableName=segment_table(on),
        IndexName="WatchedTasks",
        KeyConditionExpression="watch = :watched",
        ExpressionAttributeValues={":watched": {"S": "1"}},
        Limit=1,
    )


STOP, CALLBACK, PUBLISH = "StopSegmentRole", "ReceiveCallbackRole", "PublishOutcomeRole"
SWEEP = "SweepRoomsRole"
UPDATE = {"UpdateExpression": "SET open_since = :n", "ExpressionAttributeValues": {":n": {"N": "1"}}}

ALLOWED: list[tuple[str, str, Try]] = [
    (STOP, "receives from the event queue", receive_from("EventQueue")),
    (STOP, "sends to the dead-letter queue", send_to("DeadLetterQueue")),
    (STOP, "sends later copies to the event queue", send_to("EventQueue")),
    (STOP, "finds the room's open tasks", query),
    (STOP, "reads records", batch_get(segment_table)),
    (STOP, "writes a record", on_table("update_item", segment_table, **UPDATE)),
    (STOP, "reads the RTC key", get_secret(rtc_key)),
    (CALLBACK, "sends to the event queue", send_to("EventQueue")),
    (CALLBACK, "reads the callback key", get_secret(callback_key)),
    (STOP, "tells of failed stops", send_to("FailedStopQueue")),
    (PUBLISH, "takes failed stops", receive_from("FailedStopQueue")),
    (PUBLISH, "answers a workflow", answer_workflow),
    (PUBLISH, "puts events on the outcome bus", put_events(OUTCOME_BUS)),
    (PUBLISH, "sends to the queue of what was not published", send_to("UnpublishedOutcomeQueue")),
    (SWEEP, "finds the watched rooms", query_watched),
    (SWEEP, "forgets that a room was gone", on_table("delete_item", segment_table)),
    (SWEEP, "writes a record", on_table("update_item", segment_table, **UPDATE)),
    (SWEEP, "sends to the event queue", send_to("EventQueue")),
    (SWEEP, "reads the RTC key", get_secret(rtc_key)),
]

DENIED: list[tuple[str, str, Try]] = [
    (STOP, "delete a record", on_table("delete_item", segment_table)),
    (STOP, "replace a record", put_item),
    (STOP, "read the whole table", scan),
    (STOP, "write to another table", on_table("update_item", another_table, **UPDATE)),
    (STOP, "read from another table", batch_get(another_table)),
    (STOP, "purge the event queue", purge("EventQueue")),
    (STOP, "receive from the dead-letter queue", receive_from("DeadLetterQueue")),
    (STOP, "receive what it told", receive_from("FailedStopQueue")),
    (STOP, "read the callback key", get_secret(callback_key)),
    (STOP, "read another secret", get_secret(another_secret)),
    (STOP, "write the RTC key", put_secret(rtc_key)),
    (STOP, "answer a workflow", answer_workflow),
    (STOP, "put events on the outcome bus", put_events(OUTCOME_BUS)),
    (STOP, "invoke a function", invoke("StopSegmentFunction")),
    (STOP, "use a KMS key", make_data_key),
    (STOP, "change its own policy", change_own_policy),
    (CALLBACK, "receive from the event queue", receive_from("EventQueue")),
    (CALLBACK, "purge the event queue", purge("EventQueue")),
    (CALLBACK, "send to the dead-letter queue", send_to("DeadLetterQueue")),
    (CALLBACK, "read the table", on_table("get_item", segment_table)),
    (CALLBACK, "write to the table", on_table("update_item", segment_table, **UPDATE)),
    (CALLBACK, "read the RTC key", get_secret(rtc_key)),
    (CALLBACK, "read another secret", get_secret(another_secret)),
    (CALLBACK, "write the callback key", put_secret(callback_key)),
    (CALLBACK, "invoke a function", invoke("StopSegmentFunction")),
    (CALLBACK, "use a KMS key", make_data_key),
    (PUBLISH, "read the table", on_table("get_item", segment_table)),
    (PUBLISH, "write to the table", on_table("update_item", segment_table, **UPDATE)),
    (PUBLISH, "delete a record", on_table("delete_item", segment_table)),
    (PUBLISH, "put events on another bus", put_events("default")),
    (PUBLISH, "send to the event queue", send_to("EventQueue")),
    (PUBLISH, "receive from the event queue", receive_from("EventQueue")),
    (PUBLISH, "tell of failed stops", send_to("FailedStopQueue")),
    (PUBLISH, "receive what was not published", receive_from("UnpublishedOutcomeQueue")),
    (PUBLISH, "start a workflow", start_workflow),
    (PUBLISH, "read the RTC key", get_secret(rtc_key)),
    (PUBLISH, "read the callback key", get_secret(callback_key)),
    (PUBLISH, "invoke a function", invoke("StopSegmentFunction")),
    (PUBLISH, "use a KMS key", make_data_key),
    (SWEEP, "replace a record", put_item),
    (SWEEP, "read the whole table", scan),
    (SWEEP, "write to another table", on_table("update_item", another_table, **UPDATE)),
    (SWEEP, "read from another table", batch_get(another_table)),
    (SWEEP, "receive from the event queue", receive_from("EventQueue")),
    (SWEEP, "purge the event queue", purge("EventQueue")),
    (SWEEP, "send to the dead-letter queue", send_to("DeadLetterQueue")),
    (SWEEP, "read the callback key", get_secret(callback_key)),
    (SWEEP, "read another secret", get_secret(another_secret)),
    (SWEEP, "write the RTC key", put_secret(rtc_key)),
    (SWEEP, "put events on the outcome bus", put_events(OUTCOME_BUS)),
    (SWEEP, "invoke a function", invoke("StopSegmentFunction")),
    (SWEEP, "use a KMS key", make_data_key),
]


def cases(rows: list[tuple[str, str, Try]]) -> list[Any]:
    return [pytest.param(role, attempt, id=f"{role} {what}") for role, what, attempt in rows]


@pytest.mark.parametrize(("role", "attempt"), cases(ALLOWED))
def test_role_may(roles: dict[str, Role], resources: Resources, role: str, attempt: Try) -> None:
    attempt(roles[role], resources)


@pytest.mark.parametrize(("role", "attempt"), cases(DENIED))
def test_role_may_not(roles: dict[str, Role], resources: Resources, role: str, attempt: Try) -> None:
    with pytest.raises(ClientError) as denied:
        attempt(roles[role], resources)
    assert denied.value.response["Error"]["Code"] in ("AccessDenied", "AccessDeniedException")


def test_stop_without_the_table_is_tried_later_and_the_next_one_works_once_it_is_back(
    box: Sandbox, observer: Observer, room: Room
) -> None:
    room.start("audio")
    with observer.without_permission("StopSegmentRole", "RememberTasks"):
        (message_id,) = box.send([room.event("RoomEnded", TaskId="audio")])
        assert observer.ends([message_id]) == {message_id: ["requeued"]}
    assert room.is_running("audio")

    assert room.end_of("RoomEnded", TaskId="audio") == ["stopped"]


def test_message_that_cannot_be_kept_as_a_dead_letter_stays_on_the_queue(
    box: Sandbox, observer: Observer, room: Room
) -> None:
    body = room.event("RoomEnd", TaskId="audio")
    with observer.without_permission("StopSegmentRole", "KeepFailures"):
        (message_id,) = box.send([body])
        assert observer.retried(message_id)["message"] == "dead letter not sent"
        assert message_id not in observer.letters()

    assert observer.ends([message_id]) == {message_id: ["invalid_message"]}
    assert observer.letter(message_id).body == body


def test_stop_waits_for_the_rtc_key_to_be_readable(box: Sandbox, observer: Observer, room: Room) -> None:
    room.start("audio")
    with observer.without_permission("StopSegmentRole", "ReadTheRtcKey"):
        observer.renew_function("StopSegmentFunction")
        (message_id,) = box.send([room.event("RoomEnded", TaskId="audio")])
        assert observer.retried(message_id)["error_code"] == "SecretUnavailable"
        assert room.requests() == []

    assert observer.ends([message_id]) == {message_id: ["stopped"]}


def test_answer_that_may_not_be_given_is_counted_and_its_room_is_served(
    box: Sandbox, observer: Observer, room: Room
) -> None:
    room.start("audio")
    with observer.without_permission("PublishOutcomeRole", "AnswerWorkflows"):
        assert room.end_of("RoomEnded", TaskId="audio", TaskToken="nobody's") == ["stopped"]
        lines = wait_for(
            lambda: [
                line
                for line in box.log_lines("PublishOutcomeLogGroup")
                if line.get("message") == "workflow not answered"
            ],
            "an answer that is refused",
        )
    assert "AccessDenied" in lines[0]["reason"]


def test_function_that_knows_the_rtc_key_goes_on_without_the_permission_to_read_it(
    observer: Observer, room: Room
) -> None:
    room.start("audio", "screen")
    assert room.end_of("RoomEnded", TaskId="audio") == ["stopped"]
    with observer.without_permission("StopSegmentRole", "ReadTheRtcKey"):
        assert room.end_of("RoomEnded", TaskId="screen") == ["stopped"]


def test_debug_log_holds_no_key_and_no_signature(observer: Observer, room: Room) -> None:
    assert room.end_of("RoomEnded", TaskId="audio") == ["already_stopped"]
    written = observer.everything_written()
    assert room.id in written
    assert SECRET_ACCESS_KEY not in written
    assert "Signature=" not in written
