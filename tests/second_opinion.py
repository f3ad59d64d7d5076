"""moto, a second double of AWS: a result on both doubles is less likely to be a fault of one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import boto3
from moto import mock_aws

from sandbox.embedded_aws import REGION


@contextlib.contextmanager
def moto_client(service: str) -> Iterator[Any]:
    """Create a boto3 client of moto's AWS, which lives in this process."""
    with mock_aws():
        client = boto3.session.Session().client(service, region_name=REGION)  # type: ignore[call-overload]
        yield client
        client.close()
