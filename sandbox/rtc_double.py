"""A double of the RTC OpenAPI: a real HTTP server on the loopback that knows StopSegment and GetSegmentTask.

It behaves as the StopSegment page and the public error table (document 70426) say: it verifies signatures,
limits the request rate, keeps tasks, and fails on demand.
"""

import asyncio
import json
import math
import re
import socket
import threading
import time
import uuid
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from enum import IntEnum
from types import TracebackType
from typing import Any, Literal, Self, get_args

from aiohttp import web

from sandbox.signature import Refusal, SignedRequest, verify

TaskKey = tuple[str, str, str]
"""(AppId, RoomId, TaskId), which names a task."""

_ID = re.compile(r"[a-zA-Z0-9_@\-\.]{1,128}")
_ILLEGAL_ID_CODES = {
    "AppId": "InvalidParameter.IllegalAppId",
    "RoomId": "InvalidParameter.IllegalRoomID",
    "TaskId": "InvalidParameter.IllegalTaskID",
    "BusinessId": "InvalidParameter.IllegalBusinessID",
}
_REQUIRED_IDS = ("AppId", "RoomId", "TaskId")


@dataclass(frozen=True)
class _Action:
    method: str
    requests_per_second: int


_ACTIONS = {"StopSegment": _Action("POST", 150), "GetSegmentTask": _Action("GET", 60)}


@dataclass(frozen=True)
class _Platform:
    region: str
    stop_segment_versions: tuple[str, ...]
    get_segment_task_versions: tuple[str, ...] = ("2022-06-01", "2023-11-01")

    def knows(self, action: str, version: str) -> bool:
        versions = {"StopSegment": self.stop_segment_versions, "GetSegmentTask": self.get_segment_task_versions}
        return version in versions.get(action, ())


_PLATFORMS = {
    "volcengine": _Platform("cn-north-1", ("2020-12-01", "2023-11-01")),
    "volcengine-ap-singapore": _Platform("ap-singapore-1", ("2020-12-01", "2023-11-01")),
    "byteplus": _Platform("ap-singapore-1", ("2022-06-01",)),
}


class TaskStatus(IntEnum):
    """``Status`` of GetSegmentTask, as far as the double's tasks get."""

    RUNNING = 2
    ENDED = 3


@dataclass(frozen=True)
class Task:
    """One session of a segment task: Unix milliseconds, ``end_time_ms`` 0 while it runs, ``stop_reason`` then empty."""

    start_time_ms: int
    end_time_ms: int = 0
    status: TaskStatus = TaskStatus.RUNNING
    stop_reason: str = ""


@dataclass(frozen=True)
class ApiRequest:
    """A request as it reached the double, and what the double decided.

    ``received_at`` is in Unix seconds. ``body`` is ``None`` when there is no JSON object. ``code`` is empty for a
    success, the error's ``Code``, or the kind of the fault when that has none. ``http_status`` is 0 when
    the connection was dropped without an answer.
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
    def task(self) -> tuple[Any, Any, Any]:
        """The (AppId, RoomId, TaskId) that the request names, ``None`` for each one it leaves out."""
        return _task_key(self.query if self.method == "GET" else self.body or {})


FaultKind = Literal[
    "error",
    "delay",
    "drop",
    "drop_after",
    "html",
    "html_ok",
    "list",
    "null",
    "empty",
    "not_utf8",
    "no_metadata",
    "no_result",
    "empty_result",
    "half_body",
]


@dataclass(frozen=True)
class Fault:
    """A way to fail. Only ``delay`` and ``drop_after`` do what was asked before they trouble the client.

    Parameters
    ----------
    kind
        ``error``: a JSON error, with ``status`` 200 too. ``delay``: the proper answer, late. ``drop``: the connection
        is closed without an answer, ``drop_after``: the same once the task was stopped. The others are raw bodies:
        ``html`` (a gateway's error page), ``html_ok``, ``list``, ``null``, ``empty``, ``not_utf8``, ``no_metadata``,
        ``no_result``, ``empty_result``, ``half_body`` (the connection closes in the middle of the body).
    status
        HTTP status of ``error`` (default 500), ``html`` (502) and the other raw bodies (200).
    code, code_n, message
        ``ResponseMetadata.Error`` of ``error``.
    delay_seconds
        How long the answer, or the end of the connection, is held back; with every kind.
    """

    kind: FaultKind
    status: int | None = None
    code: str = "InternalError"
    code_n: int | None = None
    message: str = "The double was told to fail."
    delay_seconds: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in get_args(FaultKind):
            raise ValueError(f"kind must be one of {', '.join(get_args(FaultKind))}, not {self.kind!r}")
        if self.status is not None and not 200 <= self.status <= 599:
            raise ValueError(f"status must be an HTTP status from 200 to 599, not {self.status}")
        if not 0 <= self.delay_seconds < math.inf:
            raise ValueError(f"delay_seconds must be a number of seconds, not {self.delay_seconds}")


INTERNAL_ERROR = Fault("error", status=500, code="InternalError")
SERVICE_UNAVAILABLE = Fault("error", status=503, code="ServiceUnavailable")
QPS_OVER_LIMIT = Fault("error", status=429, code="FlowLimitExceeded.QPSOverLimit")


@dataclass(frozen=True)
class _RawBody:
    content: bytes
    status: int = 200
    content_type: str = "application/json"


_METADATA = b"<metadata>"  # stands for the ResponseMetadata of the request at hand

_RAW_BODIES: dict[FaultKind, _RawBody] = {
    "html": _RawBody(b"<html><body><h1>502 Bad Gateway</h1></body></html>", 502, "text/html"),
    "html_ok": _RawBody(b"<html><body><h1>Welcome</h1></body></html>", 200, "text/html"),
    "list": _RawBody(b'["ok"]'),
    "null": _RawBody(b"null"),
    "empty": _RawBody(b""),
    "not_utf8": _RawBody(b'{"Result": "\xff\xfe"}'),
    "no_metadata": _RawBody(b'{"Result": "ok"}'),
    "no_result": _RawBody(b'{"ResponseMetadata": <metadata>}'),
    "empty_result": _RawBody(b'{"Result": "", "ResponseMetadata": <metadata>}'),
    "half_body": _RawBody(b'{"Result": "ok", "ResponseMetadata": '),
}


@dataclass(frozen=True)
class _Answer:
    """What goes back. ``sent`` tells how much of it; ``code`` is for the record of the request."""

    status: int
    code: str
    body: bytes = b""
    content_type: str = "application/json"
    sent: Literal["all", "half", "nothing"] = "all"


@dataclass
class _PlannedFault:
    fault: Fault
    next_requests: int | None
    task: TaskKey | None


@dataclass(frozen=True)
class _Call:
    """A request, parsed as far as it can be."""

    received_at: float
    request_id: str
    signed: SignedRequest
    query: dict[str, str]
    body: Any

    @property
    def action(self) -> str:
        return self.query.get("Action", "")

    @property
    def version(self) -> str:
        return self.query.get("Version", "")

    @property
    def parameters(self) -> Any:
        """The ids and whatever else was sent; anything at all when the client posts nonsense."""
        return self.query if self.signed.method == "GET" else self.body


class RtcDouble:
    """The RTC OpenAPI of one account, served on 127.0.0.1 between ``__enter__`` and ``__exit__``.

    Every method may be called from any thread.

    Parameters
    ----------
    secrets
        AccessKeyId to SecretAccessKey of the keys that are accepted; the attribute may be changed at any time.
    platform
        ``volcengine``, ``volcengine-ap-singapore`` or ``byteplus``: the signing region and the API versions.
    app_ids
        The AppIds that exist; ``None`` when all do.
    port
        Where to listen; 0 for a free port.
    answer_after_seconds
        How long every answer takes.
    session_tokens
        AccessKeyId to the session token that must come with it.

    Attributes
    ----------
    url : str
        ``http://127.0.0.1:<port>``, once entered.
    """

    url: str
    _requests: list[ApiRequest]
    _tasks: dict[TaskKey, Task]
    _faults: list[_PlannedFault]
    _arrivals: dict[str, deque[float]]

    def __init__(
        self,
        *,
        secrets: Mapping[str, str],
        platform: str = "volcengine",
        app_ids: Collection[str] | None = None,
        port: int = 0,
        answer_after_seconds: float = 0.0,
        session_tokens: Mapping[str, str] | None = None,
    ) -> None:
        self.platform = platform
        self.secrets = dict(secrets)
        self._session_tokens = dict(session_tokens or {})
        self._facts = _PLATFORMS[platform]
        self._app_ids = app_ids
        self._port = port
        self._answer_after_seconds = answer_after_seconds
        self._lock = threading.RLock()
        self.forget()

    def __enter__(self) -> Self:
        listener = socket.create_server(("127.0.0.1", self._port))
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        self._loop = asyncio.new_event_loop()
        self._stopping = asyncio.Event()
        self._thread = threading.Thread(target=self._run, args=(listener,), name="rtc-double", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()

    @property
    def requests(self) -> list[ApiRequest]:
        """A copy of all requests so far, the refused ones too, in the order in which their answers were decided."""
        with self._lock:
            return list(self._requests)

    def requests_for(
        self,
        app_id: str | None = None,
        room_id: str | None = None,
        task_id: str | None = None,
        action: str | None = "StopSegment",
    ) -> list[ApiRequest]:
        """Return the requests that name these ids; ``None`` matches every one."""
        wanted = (app_id, room_id, task_id)
        return [
            request
            for request in self.requests
            if action in (None, request.action)
            and all(want in (None, named) for want, named in zip(wanted, request.task, strict=True))
        ]

    def busiest_second(self, action: str | None = None) -> int:
        """Return the most requests that arrived within any second, of one action or of all."""
        times = sorted(request.received_at for request in self.requests if action in (None, request.action))
        busiest = first = 0
        for last, received_at in enumerate(times):
            while times[first] <= received_at - 1:
                first += 1
            busiest = max(busiest, last - first + 1)
        return busiest

    def start_task(self, app_id: str, room_id: str, task_id: str, *, start_time_ms: int | None = None) -> None:
        """Let a task run since ``start_time_ms`` (Unix ms, default now); a new session if the id was used before."""
        with self._lock:
            self._tasks[app_id, room_id, task_id] = Task(_now_ms() if start_time_ms is None else start_time_ms)

    def end_task(self, app_id: str, room_id: str, task_id: str) -> None:
        """Let a running task end by itself, as when its streams fell silent."""
        self._end((app_id, room_id, task_id), "IdleTimeOut")

    def task(self, app_id: str, room_id: str, task_id: str) -> Task | None:
        """Return the last session of a task; ``None`` when it never ran."""
        with self._lock:
            return self._tasks.get((app_id, room_id, task_id))

    def is_running(self, app_id: str, room_id: str, task_id: str) -> bool:
        """Tell whether a task runs."""
        task = self.task(app_id, room_id, task_id)
        return task is not None and task.status is TaskStatus.RUNNING

    def fail(self, fault: Fault, *, next_requests: int | None = None, task: TaskKey | None = None) -> None:
        """Answer with a fault, once signature and rate are in order.

        A task's own fault goes before a general one, a counted one before one that lasts, an earlier before a later.

        Parameters
        ----------
        fault
            What goes wrong.
        next_requests
            For how many requests; ``None`` until healed or replaced by another lasting fault.
        task
            Only for requests, of either action, that name this (AppId, RoomId, TaskId).
        """
        with self._lock:
            if next_requests is None:
                self._faults = [p for p in self._faults if p.next_requests is not None or p.task != task]
            self._faults.append(_PlannedFault(fault, next_requests, task))

    def heal(self) -> None:
        """Drop all faults."""
        with self._lock:
            self._faults = []

    def forget(self) -> None:
        """Drop the recorded requests, the tasks and the faults, and start counting the rate afresh."""
        with self._lock:
            self._requests = []
            self._tasks = {}
            self._arrivals = {action: deque() for action in _ACTIONS}
            self.heal()

    def _run(self, listener: socket.socket) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve(listener))

    async def _serve(self, listener: socket.socket) -> None:
        app = web.Application()
        app.router.add_route("*", "/_control/{command}", _Control(self).handle)
        app.router.add_route("*", "/{path:.*}", self._handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.SockSite(runner, listener, backlog=1024).start()
        await self._stopping.wait()
        await runner.cleanup()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        call = await _parse(request)
        answer, delay_seconds = self._decide(call)
        await asyncio.sleep(self._answer_after_seconds + delay_seconds)
        return await _send(answer, request)

    def _decide(self, call: _Call) -> tuple[_Answer, float]:
        """Answer and record a request; the second value is for how many seconds to hold the answer back."""
        with self._lock:
            refusal = self._refuse(call)
            if refusal is not None:
                answer, delay_seconds = self._refusal_answer(call, refusal), 0.0
            else:
                fault = self._next_fault(_task_key(call.parameters))
                answer = self._perform(call) if fault is None else self._fault_answer(call, fault)
                delay_seconds = 0.0 if fault is None else fault.delay_seconds
            self._record(call, answer)
            return answer, delay_seconds

    def _refuse(self, call: _Call) -> Refusal | None:
        """Check what the gateway checks: action, method, signature, rate."""
        if call.signed.path != "/" or not self._facts.knows(call.action, call.version):
            message = f"There is no action {call.action!r} of version {call.version!r}."
            return Refusal("InvalidActionOrVersion", message, 100008, 404)
        action = _ACTIONS[call.action]
        if call.signed.method != action.method:
            return Refusal("MethodNotAllowed", f"{call.action} wants {action.method}.", http_status=405)
        return verify(
            call.signed,
            secrets=dict(self.secrets),
            region=self._facts.region,
            service="rtc",
            now=datetime.fromtimestamp(call.received_at, UTC),
            session_tokens=self._session_tokens,
        ) or self._limit_rate(call, action.requests_per_second)

    def _limit_rate(self, call: _Call, requests_per_second: int) -> Refusal | None:
        arrivals = self._arrivals[call.action]
        arrivals.append(call.received_at)
        while arrivals[0] <= call.received_at - 1:
            arrivals.popleft()
        if len(arrivals) <= requests_per_second:
            return None
        message = f"More than {requests_per_second} {call.action} requests in a second."
        return Refusal("FlowLimitExceeded.QPSOverLimit", message, http_status=429)

    def _next_fault(self, task: tuple[Any, Any, Any]) -> Fault | None:
        matching = [planned for planned in self._faults if planned.task in (None, task)]
        if not matching:
            return None
        planned = min(matching, key=lambda p: (p.task is None, p.next_requests is None))
        if planned.next_requests is not None:
            planned.next_requests -= 1
            if planned.next_requests <= 0:
                self._faults.remove(planned)
        return planned.fault

    def _fault_answer(self, call: _Call, fault: Fault) -> _Answer:
        match fault.kind:
            case "error":
                refusal = Refusal(fault.code, fault.message, fault.code_n, fault.status or 500)
                return self._refusal_answer(call, refusal)
            case "delay":
                return self._perform(call)
            case "drop_after":
                self._perform(call)
                return _Answer(0, fault.kind, sent="nothing")
            case "drop":
                return _Answer(0, fault.kind, sent="nothing")
            case kind:
                raw = _RAW_BODIES[kind]
                body = raw.content.replace(_METADATA, json.dumps(self._metadata(call)).encode())
                sent: Literal["half", "all"] = "half" if kind == "half_body" else "all"
                return _Answer(fault.status or raw.status, kind, body, raw.content_type, sent)

    def _perform(self, call: _Call) -> _Answer:
        """Do what the service does behind the gateway."""
        refusal = self._refuse_parameters(call.parameters)
        if refusal is not None:
            return self._refusal_answer(call, refusal)
        key = _task_key(call.parameters)
        if call.action == "GetSegmentTask":
            task = self._tasks.get(key)
            return self._task_not_found(call) if task is None else self._success(call, _segment_task(key, task))
        return self._success(call, "ok") if self._end(key, "StopByAPI") else self._task_not_found(call)

    def _refuse_parameters(self, parameters: Any) -> Refusal | None:
        if not isinstance(parameters, dict):
            return Refusal("InvalidParameter.Unmarshal", "The body is not a JSON object.", http_status=400)
        for name, code in _ILLEGAL_ID_CODES.items():
            if (name in parameters or name in _REQUIRED_IDS) and not _is_id(parameters.get(name)):
                return Refusal(code, f"{name} does not match {_ID.pattern}.", http_status=400)
        if self._app_ids is not None and parameters["AppId"] not in self._app_ids:
            return Refusal("InvalidParameter.NotExistAppId", "The AppId does not exist.", http_status=400)
        return None

    def _end(self, key: TaskKey, stop_reason: str) -> bool:
        with self._lock:
            task = self._tasks.get(key)
            if task is None or task.status is not TaskStatus.RUNNING:
                return False
            ended = replace(task, end_time_ms=_now_ms(), status=TaskStatus.ENDED, stop_reason=stop_reason)
            self._tasks[key] = ended
            return True

    def _task_not_found(self, call: _Call) -> _Answer:
        message = "The task does not exist or has stopped."
        return self._refusal_answer(call, Refusal("InvalidParameter.ErrorActiveTaskNotFound", message, http_status=400))

    def _success(self, call: _Call, result: object) -> _Answer:
        return _Answer(200, "", _json_bytes({"Result": result, "ResponseMetadata": self._metadata(call)}))

    def _refusal_answer(self, call: _Call, refusal: Refusal) -> _Answer:
        error: dict[str, str | int] = {"Code": refusal.code, "Message": refusal.message}
        if refusal.code_n is not None:
            error["CodeN"] = refusal.code_n
        body = {"Result": "", "ResponseMetadata": {**self._metadata(call), "Error": error}}
        return _Answer(refusal.http_status, refusal.code, _json_bytes(body))

    def _metadata(self, call: _Call) -> dict[str, str]:
        return {
            "RequestId": call.request_id,
            "Action": call.action,
            "Version": call.version,
            "Service": "rtc",
            "Region": self._facts.region,
        }

    def _record(self, call: _Call, answer: _Answer) -> None:
        self._requests.append(
            ApiRequest(
                received_at=call.received_at,
                action=call.action,
                version=call.version,
                method=call.signed.method,
                query=call.query,
                body=call.body if isinstance(call.body, dict) else None,
                http_status=answer.status,
                code=answer.code,
                request_id=call.request_id,
            )
        )


class _Control:
    """The unsigned way in, for people with curl: ``/_control/tasks``, ``requests``, ``fail`` and ``heal``."""

    def __init__(self, double: RtcDouble) -> None:
        self._double = double
        self._commands: dict[tuple[str, str], Callable[[web.Request], Awaitable[object]]] = {
            ("POST", "tasks"): self._start_task,
            ("GET", "requests"): self._list_requests,
            ("POST", "fail"): self._fail,
            ("POST", "heal"): self._heal,
        }

    async def handle(self, request: web.Request) -> web.Response:
        command = self._commands.get((request.method, request.match_info["command"]))
        if command is None:
            known = ", ".join(f"{method} /_control/{name}" for method, name in self._commands)
            return web.json_response({"error": f"There is only {known}."}, status=404)
        try:
            return web.json_response(await command(request))
        except ValueError as error:
            return web.json_response({"error": f"{error}."}, status=400)

    async def _start_task(self, request: web.Request) -> object:
        fields = await _control_fields(request, dict.fromkeys(_REQUIRED_IDS, (str,)) | {"StartTime": (int,)})
        for name in _REQUIRED_IDS:
            if not _is_id(fields.get(name)):
                raise ValueError(f"{name} is required and must match {_ID.pattern}")
        key = _task_key(fields)
        self._double.start_task(*key, start_time_ms=fields.get("StartTime"))
        task = self._double.task(*key)
        return None if task is None else _segment_task(key, task)

    async def _list_requests(self, _: web.Request) -> object:
        return [asdict(request) for request in self._double.requests]

    async def _fail(self, request: web.Request) -> object:
        fields = await _control_fields(request, _FAIL_FIELDS)
        if "kind" not in fields:
            raise ValueError(f"kind is required: one of {', '.join(get_args(FaultKind))}")
        next_requests, task = fields.pop("next_requests", None), fields.pop("task", None)
        if next_requests is not None and next_requests < 1:
            raise ValueError("next_requests must be 1 or more")
        if task is not None and not (len(task) == 3 and all(map(_is_id, task))):
            raise ValueError("task must be [AppId, RoomId, TaskId]")
        fault = Fault(**fields)
        self._double.fail(fault, next_requests=next_requests, task=None if task is None else tuple(task))
        return {**asdict(fault), "next_requests": next_requests, "task": task}

    async def _heal(self, _: web.Request) -> object:
        self._double.heal()
        return {}


_FAIL_FIELDS: dict[str, tuple[type, ...]] = {
    "kind": (str,),
    "status": (int,),
    "code": (str,),
    "code_n": (int,),
    "message": (str,),
    "delay_seconds": (int, float),
    "next_requests": (int,),
    "task": (list,),
}


async def _control_fields(request: web.Request, types: Mapping[str, tuple[type, ...]]) -> dict[str, Any]:
    """Read a JSON object of known fields; those that are null are left out."""
    fields = _parse_json(await request.read())
    if not isinstance(fields, dict):
        raise ValueError("The body must be a JSON object")  # noqa: TRY004 - the sender's mistake, not ours
    given = {name: value for name, value in fields.items() if value is not None}
    for name, value in given.items():
        if name not in types:
            raise ValueError(f"{name} is not known here, only {', '.join(types)}")
        if type(value) not in types[name]:
            raise ValueError(f"{name} must be of type {types[name][-1].__name__}, not {type(value).__name__}")
    return given


async def _parse(request: web.Request) -> _Call:
    received_at = time.time()
    body = await request.read()
    return _Call(
        received_at=received_at,
        request_id=f"{datetime.fromtimestamp(received_at, UTC):%Y%m%d%H%M%S}{uuid.uuid4().hex[:20].upper()}",
        signed=SignedRequest(
            method=request.method,
            path=request.rel_url.raw_path,
            query=tuple(request.query.items()),
            headers={name.lower(): value for name, value in request.headers.items()},
            body=body,
        ),
        query=dict(request.query),
        body=_parse_json(body),
    )


async def _send(answer: _Answer, request: web.Request) -> web.StreamResponse:
    headers = {"Content-Type": answer.content_type}
    if answer.sent == "all":
        return web.Response(status=answer.status, body=answer.body, headers=headers)
    response = web.StreamResponse(status=answer.status or 200, headers=headers)
    if answer.sent == "half":
        response.content_length = 2 * len(answer.body)
        await response.prepare(request)
        await response.write(answer.body)
    if request.transport is not None:
        request.transport.close()
    return response


def _parse_json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _task_key(parameters: Any) -> tuple[Any, Any, Any]:
    named = parameters if isinstance(parameters, dict) else {}
    return named.get("AppId"), named.get("RoomId"), named.get("TaskId")


def _is_id(value: object) -> bool:
    return isinstance(value, str) and _ID.fullmatch(value) is not None


def _segment_task(key: TaskKey, task: Task) -> dict[str, Any]:
    return {
        "SegmentTask": {
            **dict(zip(_REQUIRED_IDS, key, strict=True)),
            "StartTime": task.start_time_ms,
            "EndTime": task.end_time_ms,
            "Status": task.status,
            "StopReason": task.stop_reason,
        }
    }


def _json_bytes(value: object) -> bytes:
    return json.dumps(value).encode()


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
