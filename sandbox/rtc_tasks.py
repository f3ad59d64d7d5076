"""Segment tasks of the RTC API double, and the parameters that name them."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from sandbox.signature import Refusal

TaskKey = tuple[str, str, str]
"""(AppId, RoomId, TaskId), which names a task."""

REQUIRED_IDS = ("AppId", "RoomId", "TaskId")
ROOM_IDS = ("AppId", "RoomId")
ID_PATTERN = r"[a-zA-Z0-9_@\-\.]{1,128}"

_ILLEGAL_ID_CODES = {
    "AppId": "InvalidParameter.IllegalAppId",
    "RoomId": "InvalidParameter.IllegalRoomID",
    "TaskId": "InvalidParameter.IllegalTaskID",
    "BusinessId": "InvalidParameter.IllegalBusinessID",
}


@dataclass(frozen=True)
class Task:
    """One session of a segment task. Times are Unix ms, and `end_time_ms` is 0 while the session runs."""

    start_time_ms: int
    end_time_ms: int = 0

    @property
    def is_running(self) -> bool:
        """Whether the session has not ended yet."""
        return self.end_time_ms == 0

    def result(self, key: TaskKey) -> dict[str, Any]:
        """Return the `Result` of GetSegmentTask."""
        return {
            "SegmentTask": {
                **dict(zip(REQUIRED_IDS, key, strict=True)),
                "StartTime": self.start_time_ms,
                "EndTime": self.end_time_ms,
                "Status": 2 if self.is_running else 3,
            }
        }


def json_object(body: bytes) -> dict[str, Any] | None:
    """Read a JSON object. None if the body is not a JSON object."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def task_key(parameters: Mapping[str, Any]) -> tuple[Any, Any, Any]:
    """Return the AppId, RoomId and TaskId, valid or not, with None for each missing id."""
    return parameters.get("AppId"), parameters.get("RoomId"), parameters.get("TaskId")


def is_id(value: object) -> bool:
    """Return whether a value is a valid id."""
    return isinstance(value, str) and re.fullmatch(ID_PATTERN, value) is not None


def illegal_id(parameters: Mapping[str, Any], required: Collection[str] = REQUIRED_IDS) -> str | None:
    """Return the name of the first invalid id. None if all ids are valid."""
    needed = [name for name in _ILLEGAL_ID_CODES if name in required or name in parameters]
    return next((name for name in needed if not is_id(parameters.get(name))), None)


def refuse_parameters(
    parameters: Mapping[str, Any] | None, app_ids: Collection[str] | None, required: Collection[str] = REQUIRED_IDS
) -> Refusal | None:
    """Check the parameters of an action that needs the ids `required`. Return None if the parameters are valid."""
    if parameters is None:
        return Refusal("InvalidParameter.Unmarshal", "The body is not a JSON object.", http_status=400)
    if name := illegal_id(parameters, required):
        return Refusal(_ILLEGAL_ID_CODES[name], f"{name} does not match {ID_PATTERN}.", http_status=400)
    if app_ids is not None and parameters["AppId"] not in app_ids:
        return Refusal("InvalidParameter.NotExistAppId", "The AppId does not exist.", http_status=400)
    return None
