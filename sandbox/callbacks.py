"""Callbacks with the RTC server's signature, sent to an HTTP API of the embedded AWS.

`python -m sandbox.callbacks EVENT_TYPE EVENT_DATA` prints a callback with the present time.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import urllib3

from sandbox.embedded_aws import EmbeddedAws

SECRET_KEY = "sandbox-callback-key"  # noqa: S105 # nosec B105 # only of the sandbox
_numbers = itertools.count(1)


def callback(
    event_type: str,
    data: Mapping[str, Any],
    event_time: str,
    *,
    app_id: str = "661e",
    key: str = SECRET_KEY,
    nonce: str = "Nonce",
) -> dict[str, str]:
    """Create a callback as the RTC server does (API documents 69820 and 75124).

    Parameters
    ----------
    data
        The content of EventData.
    event_time
        The time of the event in RFC 3339.
    key
        The callback secret key that signs the callback.
    nonce
        The name of the nonce's field, which is Nonce, or Noce on BytePlus.
    """
    number = next(_numbers)
    values = {
        "EventType": event_type,
        "EventData": json.dumps(data),
        "EventTime": event_time,
        "EventId": f"callback-{number}",
        "AppId": app_id,
        "Version": "2020-12-01",
        nonce: f"{number % 10_000:04}",
    }
    strings = sorted(text.encode() for text in (*values.values(), key))
    return values | {"Signature": hashlib.sha256(b"".join(strings)).hexdigest()}


def post(aws: EmbeddedAws, url: str, body: str | bytes, *, method: str = "POST") -> tuple[int, str]:
    """Send a request to an HTTP API and return the answer's status and body."""
    with urllib3.PoolManager(ca_certs=str(aws.ca_bundle)) as pool:
        headers = {"Content-Type": "application/json"}
        answer = pool.request(method, local(aws, url), body=body, headers=headers, timeout=30, retries=False)
        return answer.status, answer.data.decode()


def local(aws: EmbeddedAws, url: str) -> str:
    """Return the embedded AWS's URL of an HTTP API, given the API's URL on AWS."""
    host, path = urlsplit(url).netloc, urlsplit(url).path
    return f"{aws.endpoint}/_aws/execute-api/{host.partition('.')[0]}/$default{path}"


if __name__ == "__main__":
    event_type, event_data = sys.argv[1:]
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    sys.stdout.write(json.dumps(callback(event_type, json.loads(event_data), now)) + "\n")
