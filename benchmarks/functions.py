"""Measurements of single functions: each built artifact runs in a fresh interpreter with a stubbed network."""

from __future__ import annotations

import json
import random
import statistics
import subprocess  # nosec B404 # runs the probe
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from benchmarks.deployments import PEER_BUILD
from sandbox.callbacks import SECRET_KEY, callback
from sandbox.environments import BUILD, HANDLERS, lambda_variables, python_for_functions

PROBE = Path(__file__).with_name("probe.py")
MARKS = (1_000, 10_000, 100_000)
ROOMS, USERS, SLICE_SECONDS, SECONDS, ENVIRONMENTS = 1_000, 10, 20, 120, 4
_SECRET = json.dumps({"AccessKeyId": "AKLTprobe", "SecretAccessKey": "probe"})
_QUEUE = "https://sqs.us-east-1.amazonaws.com/000000000000/queue"
_ARN = "arn"  # exists nowhere
# Lambda sets a trace id for each invocation, and every log line has the id.
_TRACE = {"_X_AMZN_TRACE_ID": "Root=1-00000001-000000000000000000000001;Parent=0000000000000001;Sampled=1"}


@dataclass(frozen=True)
class Function:
    """A built function to measure with the probe.

    Parameters
    ----------
    event
        The event for the call. None means a batch of ten stop events.
    """

    artifact: Path
    handler: str
    environment: dict[str, str] = field(default_factory=dict)
    secret: str = _SECRET
    event: dict[str, Any] | None = None


STOP_SEGMENT = Function(
    BUILD / "StopSegmentFunction",
    HANDLERS["StopSegmentFunction"],
    {
        "EVENT_QUEUE_URL": _QUEUE,
        "DEAD_LETTER_QUEUE_URL": _QUEUE,
        "SEGMENT_TABLE_NAME": "table",
        "RTC_PLATFORM": "volcengine",
        "RTC_CREDENTIALS_SECRET_ARN": _ARN,
        "RTC_CONNECT_TIMEOUT_SECONDS": "2",
        "RTC_READ_TIMEOUT_SECONDS": "5",
        "RTC_QPS_LIMIT": "1000000",  # the stub answers at once: a lower limit would delay the requests
        "MAX_CONCURRENCY": "2",
        "MAX_RECEIVE_COUNT": "6",
        "DUPLICATE_WINDOW_SECONDS": "5",
        "STALE_AFTER_SECONDS": "30",
        "MODE": "stop",
        "GIVE_UP_AFTER_MINUTES": "60",
        "SWEEP_MINUTES": "5",
        "RECORD_RETENTION_DAYS": "7",
    },
)
PEER = Function(
    PEER_BUILD / "StopFunction",
    "app.handler",
    {"IDEMPOTENCY_TABLE": "table", "RTC_SECRET_ARN": _ARN, "RTC_HOST": "https://rtc.volcengineapi.com"},
)


def _receive_callback() -> Function:
    body = json.dumps(callback("RoomDestroy", {"RoomId": "room-1"}, datetime.now(UTC).isoformat()))
    event = {"requestContext": {"http": {"method": "POST"}}, "body": body, "isBase64Encoded": False}
    environment = {"EVENT_QUEUE_URL": _QUEUE, "CALLBACK_SECRET_ARN": _ARN, "URL_SUFFIX": "amazonaws.com"}
    function = "ReceiveCallbackFunction"
    return Function(BUILD / function, HANDLERS[function], environment, SECRET_KEY, event)


def start_up(repeats: int) -> dict[str, Any]:
    """Time the start-up of every function in turn, and return the medians by function.

    No start-up writes bytecode into an artifact, because an artifact is read-only on Lambda.
    """
    functions = {"stop_segment": STOP_SEGMENT, "receive_callback": _receive_callback(), "peer": PEER}
    runs: dict[str, list[dict[str, float]]] = defaultdict(list)
    for _ in range(repeats + 1):
        for name, function in functions.items():
            runs[name].append(_probe(function, do="start-up"))
    version = subprocess.check_output([python_for_functions(), "-V"], text=True)  # noqa: S603 # nosec B603 # our own command
    # The first run only fills the file cache.
    medians = {
        name: {key: statistics.median(run[key] for run in taken[1:]) for key in taken[0]}
        for name, taken in runs.items()
    }
    return {"python": version.strip(), "as_shipped": medians}


def slices() -> dict[str, Any]:
    """Report the slices of rooms in time lapse, and return the cost of the slices in the callback function."""
    callbacks = list(_callbacks())
    spent = _probe(_receive_callback(), do="slices", callbacks=callbacks, environments=ENVIRONMENTS)
    return {"slices": len(callbacks), "spent": spent}


def _callbacks() -> Iterator[tuple[float, int, str]]:
    """Yield the RTC server's callbacks, each with its second and the number of its environment."""
    chance = random.Random(0)  # noqa: S311 # nosec B311 # the same each time
    users = [(room, user, chance.uniform(0, SLICE_SECONDS)) for room in range(ROOMS) for user in range(USERS)]
    began = datetime.now(UTC)
    for lap in range(SECONDS // SLICE_SECONDS):
        for room, user, phase in sorted(users, key=lambda one: one[2]):
            seconds = lap * SLICE_SECONDS + phase
            data = {"RoomId": f"room-{room}", "TaskId": "audio", "UserId": f"user-{user}", "BusinessId": ""}
            made = callback("SegmentRealTimeData", data, (began + timedelta(seconds=seconds)).isoformat())
            yield seconds, chance.randrange(ENVIRONMENTS), json.dumps(made)


def in_process(most_messages: dict[str, int]) -> dict[str, Any]:
    """Time the handlers of the product and the peer per message, without the network."""
    return {
        name: _probe(function, do="messages", marks=[mark for mark in MARKS if mark <= most_messages[name]])
        for name, function in {"product": STOP_SEGMENT, "peer": PEER}.items()
    }


def _probe(function: Function, **order: Any) -> Any:
    order |= {
        "artifact": str(function.artifact),
        "handler": function.handler,
        "secret": function.secret,
        "event": function.event,
    }
    done = subprocess.run(  # noqa: S603 # nosec B603 # our own command, no shell
        [python_for_functions(), "-I", "-S", "-B", str(PROBE)],
        input=json.dumps(order),
        env=lambda_variables(function.artifact.name, function.artifact) | _TRACE | function.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(
            f"{function.handler} failed in the probe. Fix the error at the end of its output:\n{done.stderr[-2000:]}"
        )
    return json.loads(done.stdout)
