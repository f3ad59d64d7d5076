"""The built functions after a freeze during which their kept-alive connections broke."""

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import uuid4

import pytest

from sandbox.callbacks import callback
from sandbox.embedded_aws import EmbeddedAws
from sandbox.environments import Environment, environment
from sandbox.rtc_double import RtcDouble
from tests.environments import ACCEPTED, sqs_record, stop_variables
from tests.thawing import Death, Middlebox

APP_ID = "661e"
KEY = "callback-key"
NEXT_KEY = "callback-key-of-tomorrow"
A_MINUTE = 60
DEATHS = pytest.mark.parametrize("death", ["reset", "closed"])


@dataclass
class Receiver:
    """An environment of the callback function, and the proxy between it and AWS."""

    environment: Environment
    way: Middlebox
    aws: EmbeddedAws
    secret: str
    queue: str

    def status(self, key: str = KEY, *, frozen_seconds: float = 0) -> int:
        """Send a signed callback and return the answer's status."""
        body = json.dumps(callback("RoomDestroy", {"RoomId": "room-1"}, datetime.now(UTC).isoformat(), key=key))
        event = {"requestContext": {"http": {"method": "POST"}}, "body": body, "isBase64Encoded": False}
        answer = self.environment.invoke(event, remaining_ms=10_000, frozen_seconds=frozen_seconds)
        status: int = answer["statusCode"]
        return status

    def queued(self) -> int:
        names = ["ApproximateNumberOfMessages"]
        answer = self.aws.client("sqs").get_queue_attributes(QueueUrl=self.queue, AttributeNames=names)
        return int(answer["Attributes"]["ApproximateNumberOfMessages"])

    def count(self, metric: str) -> int:
        return sum(line[metric][0] for line in self.environment.log_lines() if metric in line)


@contextlib.contextmanager
def receiving(aws: EmbeddedAws) -> Iterator[Receiver]:
    mark = uuid4().hex
    queue = aws.client("sqs").create_queue(QueueName=f"events-{mark}")["QueueUrl"]
    secret = aws.client("secretsmanager").create_secret(Name=f"callback-{mark}", SecretString=KEY)["ARN"]
    way = Middlebox(aws.endpoint)
    with way.running() as url:
        variables = aws.environment | {
            "AWS_ENDPOINT_URL": url,
            "EVENT_QUEUE_URL": queue,
            "CALLBACK_SECRET_ARN": secret,
            "URL_SUFFIX": "amazonaws.com",
        }
        with environment("ReceiveCallbackFunction", variables) as made:
            yield Receiver(made, way, aws, secret, queue)


@DEATHS
def test_a_callback_is_queued_though_the_connection_to_the_queue_has_broken(aws: EmbeddedAws, death: Death) -> None:
    with receiving(aws) as receiver:
        for number in range(3):
            receiver.way.forget(death)
            assert receiver.status() == 200
            assert receiver.way.deaths == number
        assert receiver.queued() == 3
        assert receiver.count("CallbackNotQueued") == 0


def test_a_new_key_is_read_though_the_connection_to_the_secret_has_broken(aws: EmbeddedAws) -> None:
    with receiving(aws) as receiver:
        assert receiver.status() == 200
        aws.client("secretsmanager").put_secret_value(SecretId=receiver.secret, SecretString=NEXT_KEY)
        receiver.way.forget("reset")
        assert receiver.status(NEXT_KEY, frozen_seconds=A_MINUTE) == 200
        assert receiver.way.deaths == 1


def test_a_request_without_an_answer_in_time_is_not_repeated(aws: EmbeddedAws) -> None:
    with receiving(aws) as receiver:
        assert receiver.status() == 200
        receiver.way.forget("silent")
        assert receiver.status() == 503
        assert (receiver.way.connections, receiver.way.deaths) == (1, 1)
        assert receiver.count("CallbackNotQueued") == 1


@DEATHS
def test_a_task_is_stopped_though_every_connection_has_broken(aws: EmbeddedAws, death: Death) -> None:
    with RtcDouble(secrets=ACCEPTED) as rtc, contextlib.ExitStack() as stack:
        to_aws, to_rtc = Middlebox(aws.endpoint), Middlebox(rtc.url)
        aws_url, rtc_url = (stack.enter_context(way.running()) for way in (to_aws, to_rtc))
        variables = stop_variables(aws, rtc_url) | {"AWS_ENDPOINT_URL": aws_url}
        stopper = stack.enter_context(environment("StopSegmentFunction", variables))
        for room in ("room-1", "room-2"):
            to_aws.forget(death)
            to_rtc.forget(death)
            rtc.start_task(APP_ID, room, "audio")
            event = {"EventType": "RoomEnded", "AppId": APP_ID, "RoomId": room, "TaskId": "audio"}
            assert stopper.invoke({"Records": [sqs_record(json.dumps(event))]}) == {"batchItemFailures": []}
            assert not rtc.is_running(APP_ID, room, "audio")
        assert to_aws.deaths >= 1
        assert to_rtc.deaths == 1
        assert len(rtc.requests) == 2
