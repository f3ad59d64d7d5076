"""Function environments as Lambda creates them."""

import importlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any
from uuid import uuid4

import pytest

from sandbox.embedded_aws import EmbeddedAws
from segments.times import now_ms
from tests.segment_table import create_segment_table

# The stop function's settings in template.yaml with default parameters.
STOP_SETTINGS = {
    "EVENT_QUEUE_URL": "https://sqs.example/events",
    "DEAD_LETTER_QUEUE_URL": "https://sqs.example/letters",
    "SEGMENT_TABLE_NAME": "segments",
    "RTC_PLATFORM": "volcengine",
    "RTC_ENDPOINT": "",
    "RTC_CREDENTIALS_SECRET_ARN": "arn:aws:secretsmanager:us-east-1:111122223333:secret:rtc",
    "RTC_CONNECT_TIMEOUT_SECONDS": "2",
    "RTC_READ_TIMEOUT_SECONDS": "5",
    "RTC_QPS_LIMIT": "150",
    "MAX_CONCURRENCY": "5",
    "MAX_RECEIVE_COUNT": "6",
    "DUPLICATE_WINDOW_SECONDS": "5",
    "STALE_AFTER_SECONDS": "30",
    "GIVE_UP_AFTER_MINUTES": "60",
    "SWEEP_MINUTES": "5",
    "RECORD_RETENTION_DAYS": "7",
    "MODE": "stop",
}

# Variables of a developer's shell, which name another AWS that does not answer.
OF_A_SHELL = {
    "HTTPS_PROXY": "http://127.0.0.1:9",
    "http_proxy": "http://127.0.0.1:9",
    "NO_PROXY": "",
    "no_proxy": "",
    "AWS_PROFILE": "unknown",
    "AWS_ENDPOINT_URL_SQS": "http://127.0.0.1:9",
    "AWS_CA_BUNDLE": "/nonexistent",
    "AWS_CONFIG_FILE": "/nonexistent",
}


# The content of the secret of the RTC key, and the keys that the RTC API accepts.
RTC_KEY = {"AccessKeyId": "AKLT-one", "SecretAccessKey": "s3cr3t-one"}
ACCEPTED = {RTC_KEY["AccessKeyId"]: RTC_KEY["SecretAccessKey"]}


@contextmanager
def hooked(client: Any, event: str, hook: Callable[..., object]) -> Iterator[None]:
    """Let a hook see or change the requests or answers of a boto3 client."""
    client.meta.events.register(event, hook)
    try:
        yield
    finally:
        client.meta.events.unregister(event, hook)


def taken(sqs: Any, queue: str) -> list[dict[str, Any]]:
    """Receive and delete every message that is on a queue."""
    messages: list[dict[str, Any]] = []
    request = {
        "QueueUrl": queue,
        "MaxNumberOfMessages": 10,
        "MessageAttributeNames": ["All"],
        "AttributeNames": ["All"],
    }
    while received := sqs.receive_message(**request).get("Messages"):
        for message in received:
            sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
        messages += received
    return messages


@dataclass
class Context:
    """The context of an invocation, as Lambda passes it to a function."""

    remaining_ms: int = 60_000
    function_name: str = "function"
    memory_limit_in_mb: int = 512
    invoked_function_arn: str = "arn:aws:lambda:us-east-1:000000000000:function:function"
    aws_request_id: str = "invocation-1"

    def get_remaining_time_in_millis(self) -> int:
        """Return a constant, since the clocks of the tests also stand still."""
        return self.remaining_ms


def import_handler(package: str, also: tuple[str, ...], variables: Mapping[str, str]) -> ModuleType:
    """Import a function's handler as if for the first time, with these environment variables.

    `also` names further modules that read the variables when they are imported; tests share all remaining modules.
    """
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        for module in (f"{package}.handler", *also):
            patch.delitem(sys.modules, module, raising=False)
        return importlib.import_module(f"{package}.handler")


def stop_variables(aws: EmbeddedAws, rtc_url: str) -> dict[str, str]:
    """Create the stop function's resources, and return its environment variables."""
    mark = uuid4().hex
    queues = {
        variable: aws.client("sqs").create_queue(QueueName=f"{variable.lower()}-{mark}")["QueueUrl"]
        for variable in ("EVENT_QUEUE_URL", "DEAD_LETTER_QUEUE_URL")
    }
    create_segment_table(aws.client("dynamodb"), f"segments-{mark}")
    made = aws.client("secretsmanager").create_secret(Name=f"rtc-{mark}", SecretString=json.dumps(RTC_KEY))
    places = {
        "SEGMENT_TABLE_NAME": f"segments-{mark}",
        "RTC_ENDPOINT": rtc_url,
        "RTC_CREDENTIALS_SECRET_ARN": made["ARN"],
    }
    return STOP_SETTINGS | aws.environment | queues | places


def sqs_record(body: str, *, receive_count: int = 1, seconds_ago: int = 0) -> dict[str, Any]:
    """Return a message, sent some seconds ago, as Lambda receives it from SQS."""
    return {
        "messageId": str(uuid4()),
        "receiptHandle": "handle",
        "body": body,
        "attributes": {
            "ApproximateReceiveCount": str(receive_count),
            "SentTimestamp": str(now_ms() - 1000 * seconds_ago),
        },
        "messageAttributes": {},
        "eventSource": "aws:sqs",
    }
