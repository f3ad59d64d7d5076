"""Commands for the RTC API double that need no signature, for people with curl."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Protocol

from aiohttp import web

from sandbox.faults import KINDS, Fault
from sandbox.rtc_gateway import ApiRequest
from sandbox.rtc_tasks import (
    ID_PATTERN,
    REQUIRED_IDS,
    Task,
    TaskKey,
    illegal_id,
    is_id,
    json_object,
    task_key,
)

_Types = Mapping[str, tuple[type, ...]]
_TASK_FIELDS: _Types = dict.fromkeys(REQUIRED_IDS, (str,))
_FAIL_FIELDS: _Types = {
    **dict.fromkeys(("kind", "code", "message"), (str,)),
    **dict.fromkeys(("status", "code_n", "next_requests"), (int,)),
    "delay_seconds": (int, float),
    "task": (list,),
}


class Controlled(Protocol):
    """The part of the double that the commands need."""

    @property
    def requests(self) -> Sequence[ApiRequest]: ...  # noqa: D102

    def task(self, app_id: str, room_id: str, task_id: str) -> Task | None: ...  # noqa: D102
    def start_task(self, app_id: str, room_id: str, task_id: str) -> None: ...  # noqa: D102
    def fail(self, fault: Fault, *, next_requests: int | None = None, task: TaskKey | None = None) -> None: ...  # noqa: D102
    def heal(self) -> None: ...  # noqa: D102


class Control:
    """The control commands of the double, each with an HTTP method and a name."""

    def __init__(self, double: Controlled) -> None:
        self._double = double
        self._commands: dict[tuple[str, str], Callable[[bytes], object]] = {
            ("POST", "tasks"): self._start_task,
            ("GET", "requests"): self._list_requests,
            ("POST", "fail"): self._fail,
            ("POST", "heal"): self._heal,
        }

    async def handle(self, request: web.Request) -> web.Response:
        """Run the command of a request. The answer to an invalid request is `{"error": <a sentence>}`."""
        command = self._commands.get((request.method, request.match_info["command"]))
        if command is None:
            known = ", ".join(f"{method} /_control/{name}" for method, name in self._commands)
            return _answer({"error": f"The command is unknown: use one of {known}."}, status=404)
        try:
            return _answer(command(await request.read()))
        except ValueError as error:
            return _answer({"error": f"{error}."}, status=400)

    def _start_task(self, body: bytes) -> object:
        fields = _read_fields(body, _TASK_FIELDS)
        if name := illegal_id(fields):
            raise ValueError(f"{name} is required and must match {ID_PATTERN}")
        key = task_key(fields)
        self._double.start_task(*key)
        task = self._double.task(*key)
        return task and task.result(key)

    def _list_requests(self, _: bytes) -> object:
        return [asdict(request) for request in self._double.requests]

    def _fail(self, body: bytes) -> object:
        fields = _read_fields(body, _FAIL_FIELDS)
        if "kind" not in fields:
            raise ValueError(f"kind is required: use one of {', '.join(KINDS)}")
        next_requests, task = fields.pop("next_requests", None), fields.pop("task", None)
        if next_requests is not None and next_requests < 1:
            raise ValueError("next_requests must be 1 or more")
        if task is not None and not (len(task) == len(REQUIRED_IDS) and all(map(is_id, task))):
            raise ValueError("task must be [AppId, RoomId, TaskId] with valid ids")
        fault = Fault(**fields)
        self._double.fail(fault, next_requests=next_requests, task=tuple(task) if task else None)
        return {**asdict(fault), "next_requests": next_requests, "task": task}

    def _heal(self, _: bytes) -> object:
        self._double.heal()
        return {}


def _answer(content: object, *, status: int = 200) -> web.Response:
    return web.json_response(text=json.dumps(content) + "\n", status=status)  # with a line end, for a terminal


def _read_fields(body: bytes, types: _Types) -> dict[str, Any]:
    """Read a JSON object that has only known fields, without the fields that are null."""
    fields = json_object(body)
    if fields is None:
        raise ValueError("The body must be a JSON object")
    given = {name: value for name, value in fields.items() if value is not None}
    for name, value in given.items():
        if name not in types:
            raise ValueError(f"{name} is unknown: use one of {', '.join(types)}")
        if type(value) not in types[name]:
            raise ValueError(f"{name} must be of type {types[name][-1].__name__}, not {type(value).__name__}")
    return given
