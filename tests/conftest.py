"""Fixtures that tests of several kinds share."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import settings

import tests.examples  # noqa: F401 - registers the profiles
from sandbox.embedded_aws import EmbeddedAws, embedded_aws, shielded

settings.load_profile("quick")  # unless --hypothesis-profile says otherwise


@pytest.fixture(scope="session", autouse=True)
def _shielded() -> Iterator[None]:
    """Keep a developer's proxy and AWS settings out of every test."""
    with shielded():
        yield


@pytest.fixture(scope="session")
def aws() -> Iterator[EmbeddedAws]:
    """Run one AWS per test process. Tests create resources with unique names in this AWS."""
    with embedded_aws() as running:
        yield running


@pytest.fixture(scope="session")
def aws_away(aws: EmbeddedAws) -> EmbeddedAws:
    """Return an AWS whose endpoint does not answer."""
    return replace(aws, endpoint="https://127.0.0.1:1")


@pytest.fixture(scope="session")
def secrets_manager(aws: EmbeddedAws) -> Iterator[Any]:
    """Create a client of Secrets Manager."""
    client = aws.client("secretsmanager")
    yield client
    client.close()
