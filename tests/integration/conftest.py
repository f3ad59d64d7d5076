"""Fixtures that several integration tests share."""

import io
import json
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest

from segments.credentials import Credentials
from tests.environments import RTC_KEY, hooked


@pytest.fixture
def log() -> io.StringIO:
    """Hold the log lines that a function writes in this test."""
    return io.StringIO()


class Secret:
    """The RTC key's secret in Secrets Manager, its reader, and a clock that the test sets."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.arn: str = client.create_secret(Name=f"rtc-{uuid4().hex}", SecretString=json.dumps(RTC_KEY))["ARN"]
        self.now = 1_000.0
        self.reads = 0
        self.credentials = Credentials(client, self.arn, lambda: self.now)

    def note_read(self, params: dict[str, str], **_: object) -> None:
        self.reads += params["SecretId"] == self.arn

    def put(self, content: object) -> None:
        text = content if isinstance(content, str) else json.dumps(content)
        self.client.put_secret_value(SecretId=self.arn, SecretString=text)


@pytest.fixture
def secret(secrets_manager: Any) -> Iterator[Secret]:
    made = Secret(secrets_manager)
    with hooked(secrets_manager, "provide-client-params.secretsmanager.GetSecretValue", made.note_read):
        yield made
