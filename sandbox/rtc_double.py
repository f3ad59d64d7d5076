"""A double of the RTC OpenAPI: an HTTP server on the loopback interface with the actions that the functions call.

The double follows the StopSegment page and the public error table (document 70426). It verifies signatures, limits the
rate of requests, keeps tasks, and fails on demand.
"""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from bisect import bisect_right
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

from aiohttp import web

from sandbox.faults import METADATA, RAW_BODIES, Fault, FaultPlan
from sandbox.rtc_control import Control
from sandbox.rtc_gateway import ApiRequest, Gateway, read
from sandbox.rtc_tasks import REQUIRED_IDS, ROOM_IDS, Task, TaskKey, refuse_parameters
from sandbox.signature import Refusal, SignedRequest


@dataclass(frozen=True)
class _Answer:
    """The answer to a request. No answer is sent if `status` is 0. `code` is for the record of the request."""

    status: int
    code: str
    body: bytes = b""
    half: bool = False


class RtcDouble:
    """The RTC OpenAPI of one account, served on 127.0.0.1 between `__enter__` and `__exit__`.

    Every method may be called from any thread. `__enter__` sets `url` to `http://127.0.0.1:<port>`.

    Parameters
    ----------
    secrets
        The SecretAccessKey of each accepted key, by AccessKeyId. The attribute may be changed at any time.
    platform
        `volcengine`, `volcengine-ap-singapore` or `byteplus`. The platform decides the signing region and the API
        versions.
    app_ids
        The AppIds that exist. None means that every AppId exists.
    answer_after_seconds
        The delay of every answer. The attribute may be changed at any time.
    session_tokens
        The session token that a request must carry, by AccessKeyId.
    port
        The port of the server, by default any free port.
    """

    def __init__(
        self,
        *,
        secrets: Mapping[str, str],
        platform: str = "volcengine",
        app_ids: Collection[str] | None = None,
        answer_after_seconds: float = 0.0,
        session_tokens: Mapping[str, str] | None = None,
        port: int = 0,
    ) -> None:
        self.platform = platform
        self.secrets = dict(secrets)
        self._app_ids = app_ids
        self._port = port
        self.answer_after_seconds = answer_after_seconds
        self._gateway = Gateway(platform, dict(session_tokens or {}))
        self._lock = threading.RLock()
        self.forget()

    def __enter__(self) -> Self:
        listener = socket.create_server(("127.0.0.1", self._port))
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        # The thread creates the loop, because Ctrl-C interrupts the main thread, and would leave a loop half created.
        serving = threading.Event()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._serve(listener, serving)), name="rtc-double", daemon=True
        )
        self._thread.start()
        serving.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()

    @property
    def requests(self) -> list[ApiRequest]:
        """A copy of all requests so far, including refused ones, in the order of the decisions about them."""
        with self._lock:
            return list(self._requests)

    def requests_for(
        self,
        app_id: str | None = None,
        room_id: str | None = None,
        task_id: str | None = None,
        action: str | None = "StopSegment",
    ) -> list[ApiRequest]:
        """Return the requests that name these ids. None matches every id."""
        wanted = (action, app_id, room_id, task_id)
        return [
            request
            for request in self.requests
            if all(want in (None, had) for want, had in zip(wanted, (request.action, *request.task), strict=True))
        ]

    def busiest_second(self, action: str | None = None) -> int:
        """Return the highest number of requests within any second, of one action or of all actions."""
        times = sorted(request.received_at for request in self.requests if action in (None, request.action))
        return max((count - bisect_right(times, last - 1) for count, last in enumerate(times, 1)), default=0)

    def start_task(self, app_id: str, room_id: str, task_id: str, *, start_time_ms: int | None = None) -> None:
        """Start a task at `start_time_ms` (Unix ms, default now), in a room that exists from now on.

        The task is a new session if its id was used before.
        """
        with self._lock:
            self._rooms.add((app_id, room_id))
            self._tasks[app_id, room_id, task_id] = Task(_now_ms() if start_time_ms is None else start_time_ms)

    def close_room(self, app_id: str, room_id: str) -> None:
        """Remove a room. The room's tasks run on until `end_task`. On the service, tasks run on until MaxIdleTime."""
        with self._lock:
            self._rooms.discard((app_id, room_id))

    def end_task(self, app_id: str, room_id: str, task_id: str) -> bool:
        """End a task, as the service does after the task's streams end. Return whether the task was running."""
        with self._lock:
            task = self.task(app_id, room_id, task_id)
            if task is None or not task.is_running:
                return False
            self._tasks[app_id, room_id, task_id] = replace(task, end_time_ms=_now_ms())
            return True

    def task(self, app_id: str, room_id: str, task_id: str) -> Task | None:
        """Return the last session of a task. None if the task never ran."""
        with self._lock:
            return self._tasks.get((app_id, room_id, task_id))

    def is_running(self, app_id: str, room_id: str, task_id: str) -> bool:
        """Return whether a task runs."""
        task = self.task(app_id, room_id, task_id)
        return task is not None and task.is_running

    def fail(self, fault: Fault, *, next_requests: int | None = None, task: TaskKey | None = None) -> None:
        """Answer requests with a fault, if their signature and rate are accepted.

        Parameters
        ----------
        next_requests
            The number of requests that get the fault. None means all requests until `heal` or another lasting fault.
        task
            Limits the fault to requests that name this (AppId, RoomId, TaskId).
        """
        with self._lock:
            self._faults.add(fault, next_requests, task)

    def heal(self) -> None:
        """Drop all faults."""
        with self._lock:
            self._faults = FaultPlan()

    def forget(self) -> None:
        """Forget the recorded requests, the tasks, the rooms and the faults, and reset the request rate."""
        with self._lock:
            self._requests: list[ApiRequest] = []
            self._tasks: dict[TaskKey, Task] = {}
            self._rooms: set[tuple[str, str]] = set()
            self._gateway.arrivals.clear()
            self.heal()

    async def _serve(self, listener: socket.socket, serving: threading.Event) -> None:
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        serving.set()
        app = web.Application()
        app.router.add_route("*", "/_control/{command}", Control(self).handle)
        app.router.add_route("*", "/{path:.*}", self._handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.SockSite(runner, listener, backlog=1024).start()
        await self._stopping.wait()
        await runner.cleanup()

    async def _handle(self, http_request: web.Request) -> web.StreamResponse:
        answer, delay_seconds = self._decide(*await read(http_request))
        await asyncio.sleep(self.answer_after_seconds + delay_seconds)
        return await _send(answer, http_request)

    def _decide(self, request: ApiRequest, signed: SignedRequest) -> tuple[_Answer, float]:
        """Decide the answer to a request and record the request. Return the answer, and its delay in seconds."""
        with self._lock:
            refusal = self._gateway.refuse(request, signed, self.secrets)
            fault = None if refusal else self._faults.take(request.task)
            answer = self._fault(request, fault) if fault else self._answer(request, refusal or self._perform(request))
            self._requests.append(replace(request, http_status=answer.status, code=answer.code))
        return answer, fault.delay_seconds if fault else 0.0

    def _perform(self, request: ApiRequest) -> object:
        """Carry out an accepted request, and return its Result or a Refusal."""
        required = ROOM_IDS if request.action == "GetRoomOnlineUsers" else REQUIRED_IDS
        if refusal := refuse_parameters(request.parameters, self._app_ids, required):
            return refusal
        if request.action == "GetRoomOnlineUsers":
            return self._room(request.task[:2])
        task = self._tasks.get(request.task)
        if request.action == "GetSegmentTask" and task is not None:
            return task.result(request.task)
        if request.action == "StopSegment" and self.end_task(*request.task):
            return "ok"
        message = "The task does not exist or has stopped."
        return Refusal("InvalidParameter.ErrorActiveTaskNotFound", message, http_status=400)

    def _room(self, room: tuple[str, str]) -> dict[str, Any]:
        name = "RoomExist" if self.platform == "byteplus" else "RoomExists"
        if room not in self._rooms:
            return {name: False}
        return {
            name: True,
            "TotalUser": 1,
            "TotalInvisibleUser": 0,
            "VisibleUserList": ["user-1"],
            "InvisibleUserList": [],
        }

    def _fault(self, request: ApiRequest, fault: Fault) -> _Answer:
        match fault.kind:
            case "error":
                return self._answer(request, Refusal(fault.code, fault.message, fault.number, fault.http_status))
            case "delay":
                return self._answer(request, self._perform(request))
            case "drop_after":
                self._perform(request)
                return _Answer(0, fault.kind)
            case "drop":
                return _Answer(0, fault.kind)
            case kind:
                body = RAW_BODIES[kind].replace(METADATA, json.dumps(self._metadata(request)).encode())
                return _Answer(fault.http_status, kind, body, half=kind == "half_body")

    def _answer(self, request: ApiRequest, result: object) -> _Answer:
        status, code, metadata = 200, "", self._metadata(request)
        if isinstance(result, Refusal):
            status, code = result.http_status, result.code
            metadata["Error"] = {"Code": code, "Message": result.message}
            if result.code_n is not None:
                metadata["Error"]["CodeN"] = result.code_n
            result = ""
        return _Answer(status, code, json.dumps({"Result": result, "ResponseMetadata": metadata}).encode())

    def _metadata(self, request: ApiRequest) -> dict[str, Any]:
        return {
            "RequestId": request.request_id,
            "Action": request.action,
            "Version": request.version,
            "Service": "rtc",
            "Region": self._gateway.region,
        }


async def _send(answer: _Answer, request: web.Request) -> web.StreamResponse:
    headers = {"Content-Type": "text/html" if answer.body.startswith(b"<html>") else "application/json"}
    if answer.status and not answer.half:
        return web.Response(status=answer.status, body=answer.body, headers=headers)
    response = web.StreamResponse(status=answer.status or 200, headers=headers)
    if answer.half:
        response.content_length = 2 * len(answer.body)
        await response.prepare(request)
        await response.write(answer.body)
    if request.transport is not None:
        request.transport.close()
    return response


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
