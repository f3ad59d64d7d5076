"""The faults that the RTC API double can produce, and the plan that assigns faults to requests."""

from __future__ import annotations

import math
from dataclasses import dataclass

from sandbox.rtc_tasks import TaskKey

METADATA = b"<metadata>"  # replaced by the ResponseMetadata for the request

RAW_BODIES = {
    "html": b"<html><body><h1>502 Bad Gateway</h1></body></html>",
    "html_ok": b"<html><body><h1>Welcome</h1></body></html>",
    "list": b'["ok"]',
    "null": b"null",
    "empty": b"",
    "not_utf8": b'{"Result": "\xff\xfe"}',
    "no_metadata": b'{"Result": "ok"}',
    "no_result": b'{"ResponseMetadata": <metadata>}',
    "empty_result": b'{"Result": "", "ResponseMetadata": <metadata>}',
    "odd_result": b'{"Result": {"RoomExists": "no", "RoomExist": null}, "ResponseMetadata": <metadata>}',
    "half_body": b'{"Result": "ok", "ResponseMetadata": ',
}
KINDS = ("error", "delay", "drop", "drop_after", *RAW_BODIES)

# The HTTP status, if a page gives a status (6396/70462 and pages of sister products), and the gateway's number.
DOCUMENTED: dict[str, tuple[int, int | None]] = {
    "LackPolicy": (403, 100012),
    "LackProjectPolicy": (403, None),
    "InvalidAuthorization": (400, 100024),
    "InvalidCredential": (400, 100025),
    "InvalidAccessKey": (401, 100009),
    "SignatureDoesNotMatch": (401, 100010),
    "InvalidSecretToken": (401, 100026),
    "AccessDenied": (403, 100013),
    "AccessDenied.NoPermissionForApp": (403, None),
    "AccessDenied.ServiceNotEnabled": (403, None),
    "AccessDenied.RecordNotEnabled": (403, None),
    "OperationDenied.ServiceOverdue": (403, None),
    "AccountOverdueError": (403, None),
    "AccountFlowLimitExceeded": (429, None),
    "FlowLimitExceeded.QPSOverLimit": (429, None),
    "FlowLimitExceeded.TaskNumberOverLimit": (400, None),
    "ServiceNotFound": (404, 100007),
    "InvalidActionOrVersion": (404, 100008),
    "InvalidTimestamp": (400, 100006),
    "InvalidParameter.NotExistAppId": (400, None),
    "InternalError": (500, None),
    "ServiceUnavailable": (503, None),
}


@dataclass(frozen=True)
class Fault:
    """One way in which requests fail. The request is carried out only with `delay` and `drop_after`.

    Parameters
    ----------
    kind
        With `error`, the answer is a JSON error, whatever the `status`. With `delay`, the answer is late. With `drop`,
        the connection closes without an answer. With `drop_after`, the connection closes after the task was stopped.
        The other kinds send raw bodies. `html` is a gateway's error page, and `half_body` closes the connection in the
        middle of the body.
    status
        The HTTP status. By default, `error` has the documented status of its code or 500, `html` has 502, and the other
        raw bodies have 200.
    code, code_n, message
        The `ResponseMetadata.Error` of `error`, by default with the documented number.
    delay_seconds
        The delay of the answer, or of the end of the connection, for every kind.
    """

    kind: str
    status: int | None = None
    code: str = "InternalError"
    code_n: int | None = None
    message: str = "The RTC double was set to fail."
    delay_seconds: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}, not {self.kind!r}")
        if self.status is not None and not 200 <= self.status <= 599:
            raise ValueError(f"status must be an HTTP status from 200 to 599, not {self.status}")
        if not 0 <= self.delay_seconds < math.inf:
            raise ValueError(f"delay_seconds must be a finite number, 0 or more, not {self.delay_seconds}")

    @property
    def http_status(self) -> int:
        """The HTTP status of the answer: `status`, or its default."""
        if self.kind == "error":
            return self.status or DOCUMENTED.get(self.code, (500, None))[0]
        return self.status or (502 if self.kind == "html" else 200)

    @property
    def number(self) -> int | None:
        """Return `code_n`, or the documented number of the code if no status is set."""
        return self.code_n if self.status or self.code_n else DOCUMENTED.get(self.code, (500, None))[1]


INTERNAL_ERROR = Fault("error", code="InternalError")
SERVICE_UNAVAILABLE = Fault("error", code="ServiceUnavailable")
QPS_OVER_LIMIT = Fault("error", code="FlowLimitExceeded.QPSOverLimit")
LACK_POLICY = Fault("error", code="LackPolicy")
FOREIGN_APP = Fault("error", code="AccessDenied.NoPermissionForApp")


@dataclass
class _Planned:
    fault: Fault
    requests_left: float
    task: TaskKey | None


class FaultPlan:
    """The planned faults of the double.

    Faults of a task precede general faults, counted faults precede lasting faults, and earlier faults precede later
    ones.
    """

    def __init__(self) -> None:
        self._planned: list[_Planned] = []

    def add(self, fault: Fault, next_requests: int | None, task: TaskKey | None) -> None:
        """Plan a fault. A lasting fault (`next_requests` None) replaces the task's earlier lasting fault."""
        planned = _Planned(fault, math.inf if next_requests is None else next_requests, task)
        if next_requests is None:
            self._planned = [p for p in self._planned if (p.requests_left, p.task) != (math.inf, task)]
        self._planned.append(planned)
        self._planned.sort(key=lambda p: (p.task is None, p.requests_left == math.inf))

    def take(self, task: tuple[object, object, object]) -> Fault | None:
        """Count a request that names this task, and return its planned fault. None if no fault is planned."""
        for planned in self._planned:
            if planned.task in (None, task):
                planned.requests_left -= 1
                if planned.requests_left <= 0:
                    self._planned.remove(planned)
                return planned.fault
        return None
