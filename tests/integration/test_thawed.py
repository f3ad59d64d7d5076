"""The built functions in environments that lost their kept-alive connections while frozen."""

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
    """An environment of the callback function, and the way from it to AWS."""

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

    def fill_in(self, key: str) -> None:
        self.aws.client("secretsmanager").put_secret_value(SecretId=self.secret, SecretString=key)

    def queued(self) -> int:
        names = ["ApproximateNumberOfMessages"]
        answer = self.aws.client("sqs").get_queue_attributes(QueueUrl=self.queue, AttributeNames=names)
        return int(answer["Attributes"]["ApproximateNumberOfMessages"])

    def count(self, metric: str) -> int:
        return sum(line[metric][0] for line in self.environment.log_lines() if metric in line)


@contextlib.contextmanager
def receiving(aws: EmbeddedAws, key: str) -> Iterator[Receiver]:
    mark = uuid4().hex
    queue = aws.client("sqs").create_queue(QueueName=f"events-{mark}")["QueueUrl"]
    secret = aws.client("secretsmanager").create_secret(Name=f"callback-{mark}", SecretString=key)["ARN"]
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
def test_a_callback_is_queued_though_the_connection_to_the_queue_is_dead(aws: EmbeddedAws, death: Death) -> None:
    with receiving(aws, KEY) as receiver:
        for number in range(3):
            receiver.way.forget(death)
            assert receiver.status() == 200
            assert receiver.way.deaths == number
        assert receiver.queued() == 3
        assert receiver.count("CallbackNotQueued") == 0


def test_a_new_key_is_read_though_the_connection_to_the_secret_is_dead(aws: EmbeddedAws) -> None:
    with receiving(aws, KEY) as receiver:
        assert receiver.status() == 200
        receiver.fill_in(NEXT_KEY)
        receiver.way.forget("reset")
        assert receiver.status(NEXT_KEY, frozen_seconds=A_MINUTE) == 200
        assert receiver.way.deaths == 1


def test_a_callback_that_aws_does_not_answer_in_time_is_not_sent_twice(aws: EmbeddedAws) -> None:
    with receiving(aws, KEY) as receiver:
        assert receiver.status() == 200
        receiver.way.forget("silent")
        assert receiver.status() == 503
        assert (receiver.way.connections, receiver.way.deaths) == (1, 1)
        assert receiver.count("CallbackNotQueued") == 1


@dataclass
class Stopper:
    """An environment of the stop function, the ways from it to AWS and to the RTC API, and that API."""

    environment: Environment
    ways: tuple[Middlebox, Middlebox]
    rtc: RtcDouble

    def stop(self, room: str) -> bool:
        """Let a task run and end its room, and return whether it was stopped."""
        self.rtc.start_task(APP_ID, room, "audio")
        event = {"EventType": "RoomEnded", "AppId": APP_ID, "RoomId": room, "TaskId": "audio"}
        answer = self.environment.invoke({"Records": [sqs_record(json.dumps(event))]})
        return answer == {"batchItemFailures": []} and not self.rtc.is_running(APP_ID, room, "audio")

    def forget(self, death: Death) -> None:
        for way in self.ways:
            way.forget(death)

    def deaths(self) -> list[int]:
        return [way.deaths for way in self.ways]


@contextlib.contextmanager
def stopping(aws: EmbeddedAws) -> Iterator[Stopper]:
    with RtcDouble(secrets=ACCEPTED) as rtc:
        ways = (Middlebox(aws.endpoint), Middlebox(rtc.url))
        with ways[0].running() as aws_url, ways[1].running() as rtc_url:
            variables = stop_variables(aws, rtc_url) | {"AWS_ENDPOINT_URL": aws_url}
            with environment("StopSegmentFunction", variables) as made:
                yield Stopper(made, ways, rtc)


@DEATHS
def test_a_task_is_stopped_though_every_connection_is_dead(aws: EmbeddedAws, death: Death) -> None:
    with stopping(aws) as stopper:
        assert stopper.stop("room-1")
        stopper.forget(death)
        assert stopper.stop("room-2")
        deaths_at_aws, deaths_at_rtc = stopper.deaths()
        assert deaths_at_aws >= 1
        assert deaths_at_rtc == 1
        assert len(stopper.rtc.requests) == 2
