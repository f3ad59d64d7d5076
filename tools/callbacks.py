"""The test of the callback URL with a GET, a forged and a signed callback, in the form of the RTC server's requests."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import certifi
import urllib3

from receive_callback.signature import sign
from segments.events import Room, Task
from segments.ledger import ROOM_ITEM
from segments.times import to_rfc3339
from tools.rooms import read_fields

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

# No application has this id, so the test ends no real room.
TEST_ROOM = Room("rtc-segment-stopper", "rtc-segment-stopper")
ANSWER_SECONDS = 5  # the RTC server's time-out
ARRIVAL_SECONDS = 30
_REDIRECTS = (301, 302, 303, 307, 308)
_SENTENCES = {
    400: "the server at the URL does not understand callbacks. Check that the URL is the stack's output CallbackUrl",
    401: (
        "the signature is refused: this key differs from the key in the secret. Check that the RTC console and the "
        "secret hold the same key. A new key in the secret takes effect within 1 minute"
    ),
    403: "a web ACL or another server refused the request before it reached the function",
    404: "the server does not know this URL. Check its spelling, and whether a later deployment removed it",
    429: "throttled: the URL receives too many callbacks, or its function has no concurrency left",
}


@dataclass(frozen=True)
class Answer:
    """The answer to a request, or the reason for a missing answer.

    Parameters
    ----------
    status
        The HTTP status, or 0 if no answer arrived.
    result
        The callback function's result, the target of a redirect, or the reason for a missing answer.
    """

    status: int
    result: str
    seconds: float = 0.0

    @property
    def is_taken(self) -> bool:
        """Whether the callback was put on the queue."""
        return (self.status, self.result) == (200, "queued")

    @property
    def is_refused(self) -> bool:
        """Whether the callback was refused for its signature."""
        return self.status == 401


def make_callback(now_ms: int, name: str, key: str) -> dict[str, str]:
    """Create the callback that ends the test room, signed with a key."""
    callback = {
        "EventType": "RoomDestroy",
        "EventData": json.dumps({"RoomId": TEST_ROOM.room_id}),
        "EventTime": to_rfc3339(now_ms),
        "EventId": f"callback-test-{name}-{now_ms}",
        "AppId": TEST_ROOM.app_id,
        "Version": "2020-12-01",
        "Nonce": f"{now_ms % 10_000:04}",
    }
    return callback | {"Signature": sign(callback, key)}


def forge(callback: Mapping[str, str], now_ms: int) -> dict[str, str]:
    """Change a signed callback without a new signature, as an attacker without the key would."""
    return {**callback, "EventId": f"callback-test-forged-{now_ms}"}


def send_get(url: str) -> Answer:
    """Send the GET with which the RTC server checks a URL that is entered in the console."""
    return _request("GET", url)


def send(url: str, callback: Mapping[str, str]) -> Answer:
    """Send a callback as the RTC server does."""
    return _request("POST", url, body=json.dumps(callback), headers={"Content-Type": "application/json"})


def _request(method: str, url: str, **content: Any) -> Answer:
    """Send a request as the RTC server does: wait at most 5 seconds, and follow no redirect."""
    began = time.monotonic()
    authorities = os.environ.get("AWS_CA_BUNDLE") or certifi.where()
    with urllib3.PoolManager(ca_certs=authorities, timeout=ANSWER_SECONDS, retries=False) as pool:
        try:
            response = pool.request(method, url, redirect=False, **content)
        except (urllib3.exceptions.HTTPError, ValueError) as error:
            return Answer(0, _why_none(error), time.monotonic() - began)
    result = response.headers.get("Location", "") if response.status in _REDIRECTS else _said(response.data)
    return Answer(response.status, result, time.monotonic() - began)


def _why_none(error: Exception) -> str:
    if isinstance(error, urllib3.exceptions.NameResolutionError):
        return "this machine has no network, or the URL's host does not exist"
    if isinstance(error, urllib3.exceptions.SSLError):
        return f"the certificate of the server is not valid on this machine ({error})"
    if isinstance(error, urllib3.exceptions.TimeoutError) and not isinstance(
        error, urllib3.exceptions.NewConnectionError
    ):
        return "the answer took too long"
    return f"{type(error).__name__}: {error}"


def _said(body: bytes) -> str:
    try:
        content = json.loads(body)
    except ValueError:
        return body[:200].decode(errors="replace")
    if not isinstance(content, dict):
        return ""
    return str(content.get("result") or content.get("message", ""))


def describe_get(answer: Answer) -> str:
    """Describe the answer to the GET."""
    if answer.status == 200:
        return "answered with 200, so the RTC console accepts the URL"
    if answer.status in (0, 404, *_REDIRECTS):
        return describe_signed(answer)
    return (
        f"{answer.status}, not 200: the RTC console refuses the URL. Let every server before the function forward GET"
    )


def describe_signed(answer: Answer) -> str:
    """Describe the answer to the signed callback."""
    if answer.is_taken:
        return f"accepted and queued after {answer.seconds:.1f} s"
    if answer.status == 0:
        return f"no answer within {ANSWER_SECONDS} s: {answer.result}"
    if answer.status in _REDIRECTS:
        return (
            f"{answer.status}: a redirect to {answer.result}, which the RTC server does not follow. "
            "Enter the final URL in the console"
        )
    if answer.status in _SENTENCES:
        return f"{answer.status}: {_SENTENCES[answer.status]}"
    return f"{answer.status}: {answer.result or 'no reason given'}. See the log of ReceiveCallbackFunction"


def describe_forged(answer: Answer) -> str:
    """Describe the answer to the forged callback."""
    if answer.is_refused:
        return "refused with 401, as required"
    if answer.status == 0:
        return describe_signed(answer)
    if answer.status == 200:
        return "ACCEPTED: anyone who knows this URL can end rooms. Check that it leads to this stack's function"
    return f"{answer.status}, not 401: the signature was not checked"


def read_last_end(client: DynamoDBClient, table_name: str) -> str | None:
    """Read from the table the EventId of the last callback that ended the test room."""
    item = read_fields(client, table_name, Task(TEST_ROOM, ROOM_ITEM))
    return item["event_id"]["S"] if "event_id" in item else None
