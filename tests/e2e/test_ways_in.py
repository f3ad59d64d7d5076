"""The ways into the stack: an event bus, a topic, a sender with a key, and the RTC server's callbacks over HTTPS."""

import json
import re
import subprocess
import sys
from collections.abc import Mapping

import pytest
from botocore.exceptions import ClientError

from sandbox.callbacks import callback, post
from sandbox.stack import EVENT_BUS, ROOT, SOURCE_TOPIC, Sandbox
from tests.e2e.observer import APP_ID, Observer, Room, now_ms, rfc3339
from tests.e2e.operator import environment

MOST_BYTES = 64 * 1024


def put_event(observer: Observer, event_type: str, detail: Mapping[str, object]) -> None:
    entry = {
        "Source": "com.example.rooms",
        "DetailType": event_type,
        "EventBusName": EVENT_BUS,
        "Detail": json.dumps(detail),
    }
    answer = observer.box.client("events").put_events(Entries=[entry])
    assert answer["FailedEntryCount"] == 0


def test_events_on_the_bus_reach_the_event_queue(observer: Observer, room: Room) -> None:
    room.start("audio")
    ids = {"AppId": APP_ID, "RoomId": room.id}

    put_event(observer, "SegmentStarted", {**ids, "TaskId": "audio", "EventTime": rfc3339(now_ms() - 5_000)})
    assert room.outcomes(1) == ["known"]
    put_event(observer, "ModerationViolation", ids)

    assert room.outcomes(2) == ["known", "stopped"]
    assert room.records["audio"]["event_type"] == "ModerationViolation"
    assert not room.is_running("audio")


def test_messages_to_the_topic_reach_the_event_queue(observer: Observer, room: Room) -> None:
    room.start("audio")
    sns = observer.box.client("sns")
    topic_arn = sns.create_topic(Name=SOURCE_TOPIC)["TopicArn"]
    # More than ten attributes: SNS would drop such a message if it were delivered raw.
    attributes = {f"Name{number}": {"DataType": "String", "StringValue": "value"} for number in range(11)}
    body = room.event("RoomEnded", TaskId="audio")
    sns.publish(TopicArn=topic_arn, Message=body, MessageAttributes=attributes)

    assert room.outcomes(1) == ["stopped"]
    assert not room.is_running("audio")


def test_another_topic_may_not_send_to_the_event_queue(observer: Observer, room: Room) -> None:
    room.start("audio")
    sns = observer.box.client("sns")
    topic_arn = sns.create_topic(Name="another")["TopicArn"]
    sns.subscribe(TopicArn=topic_arn, Protocol="sqs", Endpoint=observer.box.outputs["EventQueueArn"])
    sns.publish(TopicArn=topic_arn, Message=room.event("RoomEnded", TaskId="audio", EventId="forged"))
    # A message from the topic would be served before the next message, or together with it.
    assert room.end_of("SegmentStarted", TaskId="other") == ["known"]
    assert room.is_running("audio")
    assert room.outcomes(1) == ["known"]


def test_event_of_another_type_on_the_bus_does_not_reach_the_event_queue(observer: Observer, room: Room) -> None:
    room.start("audio")
    ids = {"AppId": APP_ID, "RoomId": room.id, "TaskId": "audio"}
    put_event(observer, "RoomOpened", ids)
    put_event(observer, "RoomEnded", ids)
    assert room.outcomes(1) == ["stopped"]
    assert not [letter for letter in observer.letters().values() if room.id in letter.body]


def test_sender_with_the_documented_policy_and_sample_can_stop_a_task_and_nothing_else(
    box: Sandbox, room: Room
) -> None:
    page = (ROOT / "docs" / "events.md").read_text()
    blocks: list[tuple[str, str]] = re.findall(r"^```(\w+)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    (policy,) = [text for language, text in blocks if language == "json" and "Statement" in text]
    (sample,) = [text for language, text in blocks if language == "python" and "EVENT_QUEUE_URL" in text]
    room.start("audio")
    statements = json.loads(policy)["Statement"]
    for statement in statements:
        statement["Resource"] = box.outputs["EventQueueArn"]
    iam = box.client("iam")
    iam.create_user(UserName=room.id)
    document = json.dumps({"Version": "2012-10-17", "Statement": statements})
    iam.put_user_policy(UserName=room.id, PolicyName="sender", PolicyDocument=document)
    key = iam.create_access_key(UserName=room.id)["AccessKey"]
    secrets = {"AWS_ACCESS_KEY_ID": key["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"]}

    subprocess.run(
        [sys.executable, "-c", sample.replace("room-1", room.id)],
        env=environment(box, secrets | {"EVENT_QUEUE_URL": box.outputs["EventQueueUrl"]}),
        check=True,
    )

    assert room.outcomes(1) == ["stopped"]
    sender = box.aws.client("sqs", key)
    for url in (box.outputs["EventQueueUrl"], box.outputs["DeadLetterQueueUrl"]):
        with pytest.raises(ClientError, match="AccessDenied"):
            sender.receive_message(QueueUrl=url)
    with pytest.raises(ClientError, match="AccessDenied"):
        sender.send_message(QueueUrl=box.outputs["DeadLetterQueueUrl"], MessageBody="{}")


def test_signed_callbacks_are_queued_and_stop_the_room_s_tasks(box: Sandbox, room: Room) -> None:
    def call_back(event_type: str, data: dict[str, str]) -> tuple[int, str]:
        body = json.dumps(callback(event_type, data, rfc3339(now_ms()), app_id=APP_ID))
        status, text = post(box.aws, box.outputs["CallbackUrl"], body)
        return status, json.loads(text)["result"]

    room.start("audio")
    ids = {"AppId": APP_ID, "BusinessId": "biz-1", "RoomId": room.id, "TaskId": "audio"}
    assert call_back("SegmentRealTimeData", ids) == (200, "queued")
    assert room.outcomes(1) == ["known"]
    assert call_back("RoomDestroy", {"RoomId": room.id}) == (200, "queued")
    assert room.outcomes(2) == ["known", "stopped"]
    assert [request.body for request in room.requests()] == [ids]


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "", "", 200),
        ("HEAD", "", "", 200),
        ("POST", "", "RoomDestroy", 400),
        ("POST", "", b"\xff\xfe", 400),
        ("POST", "", " " * MOST_BYTES, 400),
        ("POST", "", " " * (MOST_BYTES + 1), 413),
        ("PUT", "", "{}", 405),
        ("POST", "favicon.ico", "{}", 404),
    ],
)
def test_callback_url_answers_other_requests_with_their_status(
    box: Sandbox, method: str, path: str, body: str | bytes, status: int
) -> None:
    assert post(box.aws, box.outputs["CallbackUrl"] + path, body, method=method)[0] == status
