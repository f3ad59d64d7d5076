"""The gateway of the RTC API double, which refuses unknown actions, wrong signatures and excess requests."""

from __future__ import annotations

import time
import uuid
from collections import defaultdict, deque
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from sandbox.rtc_tasks import json_object, task_key
from sandbox.signature import Refusal, SignedRequest, verify

_METHODS = {"StopSegment": "POST", "GetSegmentTask": "GET", "GetRoomOnlineUsers": "GET"}
_REQUESTS_PER_SECOND = {"StopSegment": 150, "GetSegmentTask": 60, "GetRoomOnlineUsers": 40}
# The signing region and the versions of StopSegment by platform.
_PLATFORMS: dict[str, tuple[str, tuple[str, ...]]] = {
    "volcengine": ("cn-north-1", ("2020-12-01", "2023-11-01")),
    "volcengine-ap-singapore": ("ap-singapore-1", ("2020-12-01", "2023-11-01")),
    "byteplus": ("ap-singapore-1", ("2022-06-01",)),
}


@dataclass(frozen=True)
class ApiRequest:
    """A request to the double, and the decision about the request.

    `received_at` is in Unix seconds. `body` is None if the body is not a JSON object. `code` is the error's `Code`, or
    the kind of a fault that has no `Code`, or empty for a success. `http_status` is 0 if the connection was closed
    without an answer.
    """

    received_at: float
    action: str
    version: str
    method: str
    query: dict[str, str]
    body: dict[str, Any] | None
    http_status: int
    code: str
    request_id: str

    @property
    def parameters(self) -> dict[str, Any] | None:
        """The ids and other parameters of the request. None if the body that holds them is not a JSON object."""
        return self.query if self.method == "GET" else self.body

    @property
    def task(self) -> tuple[Any, Any, Any]:
        """The (AppId, RoomId, TaskId) of the request, with None for each missing id."""
        return task_key(self.parameters or {})


async def read(request: web.Request) -> tuple[ApiRequest, SignedRequest]:
    """Read an HTTP request as a request to the double, without a decision, and as a signed request."""
    received_at = time.time()
    body = await request.read()
    headers = {name.lower(): value for name, value in request.headers.items()}
    signed = SignedRequest(request.method, request.rel_url.raw_path, tuple(request.query.items()), headers, body)
    undecided = ApiRequest(
        received_at=received_at,
        action=request.query.get("Action", ""),
        version=request.query.get("Version", ""),
        method=request.method,
        query=dict(request.query),
        body=json_object(body),
        http_status=0,
        code="",
        request_id=f"{datetime.fromtimestamp(received_at, UTC):%Y%m%d%H%M%S}{uuid.uuid4().hex[:20].upper()}",
    )
    return undecided, signed


class Gateway:
    """The checks for every request. `arrivals` holds the times of the latest signed requests by action."""

    def __init__(self, platform: str, session_tokens: Mapping[str, str]) -> None:
        self.region, stop_segment_versions = _PLATFORMS[platform]
        self.arrivals: defaultdict[str, deque[float]] = defaultdict(deque)
        self._session_tokens = session_tokens
        self._versions = {
            "StopSegment": stop_segment_versions,
            "GetSegmentTask": ("2022-06-01", "2023-11-01"),
            "GetRoomOnlineUsers": ("2023-11-01",),
        }

    def refuse(self, request: ApiRequest, signed: SignedRequest, secrets: Mapping[str, str]) -> Refusal | None:
        """Check the action, method, signature and rate of a request. Return None if the request is accepted."""
        action, version = request.action, request.version
        if signed.path != "/" or version not in self._versions.get(action, ()):
            message = f"There is no action {action!r} of version {version!r}."
            return Refusal("InvalidActionOrVersion", message, 100008, 404)
        if request.method != _METHODS[action]:
            return Refusal("MethodNotAllowed", f"{action} needs the method {_METHODS[action]}.", http_status=405)
        return verify(
            signed,
            secrets=secrets,
            region=self.region,
            service="rtc",
            now=datetime.fromtimestamp(request.received_at, UTC),
            session_tokens=self._session_tokens,
        ) or self._limit_rate(action, request.received_at)

    def _limit_rate(self, action: str, now: float) -> Refusal | None:
        arrivals, limit = self.arrivals[action], _REQUESTS_PER_SECOND[action]
        arrivals.append(now)
        while arrivals[0] <= now - 1:
            arrivals.popleft()
        if len(arrivals) <= limit:
            return None
        message = f"More than {limit} {action} requests in a second."
        return Refusal("FlowLimitExceeded.QPSOverLimit", message, http_status=429)
