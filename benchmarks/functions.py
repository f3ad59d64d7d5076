"""The functions alone: each built artifact in a fresh interpreter, with a stubbed network."""

from __future__ import annotations

import itertools
import json
import os
import random
import shutil
import statistics
import subprocess  # nosec B404 # runs the probe
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from benchmarks.deployments import PEER_BUILD
from sandbox.callbacks import SECRET_KEY, callback
from sandbox.environments import python_of_lambda
from sandbox.stack import BUILT_TEMPLATE

PROBE = Path(__file__).with_name("probe.py")
MARKS = (1_000, 10_000, 100_000)
ROOMS, USERS, SLICE_SECONDS, SECONDS, ENVIRONMENTS = 1_000, 10, 20, 120, 4
_SECRET = json.dumps({"AccessKeyId": "AKLTprobe", "SecretAccessKey": "probe"})
_QUEUE = "https://sqs.us-east-1.amazonaws.com/000000000000/queue"
_PROBE, _ARN = "probe", "arn"  # they open nothing, and name nothing
_LAMBDA = {
    "AWS_ACCESS_KEY_ID": _PROBE,
    "AWS_SECRET_ACCESS_KEY": _PROBE,
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "POWERTOOLS_METRICS_NAMESPACE": "Probe",
    "POWERTOOLS_SERVICE_NAME": "probe",
    "LOG_LEVEL": "INFO",
}


@dataclass(frozen=True)
class Function:
    """A function to probe.

    Parameters
    ----------
    handler
        None: no function, the bare imports of the libraries.
    event
        What to call it with; None is a batch of ten stops.
    """

    artifact: Path
    handler: str | None
    environment: dict[str, str] = field(default_factory=dict)
    secret: str = _SECRET
    event: dict[str, Any] | None = None


_BUILD = BUILT_TEMPLATE.parent
STOP_SEGMENT = Function(
    _BUILD / "StopSegmentFunction",
    "stop_segment.handler.handler",
    {
        "EVENT_QUEUE_URL": _QUEUE,
        "DEAD_LETTER_QUEUE_URL": _QUEUE,
        "SEGMENT_TABLE_NAME": "table",
        "RTC_PLATFORM": "volcengine",
        "RTC_CREDENTIALS_SECRET_ARN": _ARN,
        "RTC_CONNECT_TIMEOUT_SECONDS": "2",
        "RTC_READ_TIMEOUT_SECONDS": "5",
        "RTC_QPS_LIMIT": "1000000",  # the stub answers at once: without this the limit would be measured
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
    artifact = _BUILD / "ReceiveCallbackFunction"
    return Function(artifact, "receive_callback.handler.handler", environment, SECRET_KEY, event)


def _publish_outcome() -> Function:
    times = {name: {"N": "1795327920123"} for name in ("stop_event_time", "stopped_at")}
    image = {"room": {"S": "661e#room-1"}, "task_id": {"S": "audio"}, "outcome": {"S": "stopped"}, **times}
    change = {"Keys": {}, "NewImage": image, "SequenceNumber": "1", "StreamViewType": "NEW_AND_OLD_IMAGES"}
    event = {"Records": [{"eventID": "1", "eventName": "INSERT", "eventSource": "aws:dynamodb", "dynamodb": change}]}
    artifact = _BUILD / "PublishOutcomeFunction"
    return Function(artifact, "publish_outcome.handler.handler", {"OUTCOME_EVENT_BUS_NAME": "bus"}, event=event)


def start_up(repeats: int) -> dict[str, Any]:
    """Time every function's start-up, in turns, and give each one's median.

    ``as_shipped`` takes each artifact as it is built and as Lambda has it, with its bytecode or without, and not to be
    written; ``compiled_anew`` a copy without any; ``compiled`` has all bytecode at hand.
    """
    functions = {
        "bare imports": Function(PEER.artifact, None),
        "stop_segment": STOP_SEGMENT,
        "receive_callback": _receive_callback(),
        "publish_outcome": _publish_outcome(),
        "peer": PEER,
    }
    with tempfile.TemporaryDirectory() as bytecode, tempfile.TemporaryDirectory() as bare:
        for function in functions.values():
            copy = _without_bytecode(function, bare)
            shutil.copytree(function.artifact, copy, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
        modes = {"as_shipped": ("-B",), "compiled_anew": ("-B",), "compiled": ("-X", f"pycache_prefix={bytecode}")}
        runs: dict[tuple[str, str], list[dict[str, float]]] = defaultdict(list)
        # One run to begin with is not counted: it fills the file cache, and writes the bytecode.
        for number, (mode, name) in itertools.product(range(repeats + 1), itertools.product(modes, functions)):
            function = functions[name]
            if mode == "compiled_anew":
                function = replace(function, artifact=_without_bytecode(function, bare))
            run = _probe(function, modes[mode], do="start-up")
            if number:
                runs[mode, name].append(run)
    results: dict[str, Any] = {mode: {} for mode in modes}
    for (mode, name), taken in runs.items():
        results[mode][name] = {key: statistics.median(run[key] for run in taken) for key in taken[0]}
    command = [_python(), "-V"]
    version = subprocess.check_output(command, text=True)  # noqa: S603 # nosec B603 # our own command
    return {"python": version.strip(), **results}


def _without_bytecode(function: Function, folder: str) -> Path:
    return Path(folder) / function.artifact.name


def _python() -> str:
    """Return the Python version of Lambda, if this machine has it: no other reads the artifacts' bytecode."""
    return python_of_lambda() or sys.executable


def slices() -> dict[str, Any]:
    """Let rooms report their slices for some minutes, time-lapsed: each one queued, and only what may be news.

    Returns
    -------
    dict
        What each function spent: ``before``, all of them queued, and ``now``, by how they ended; the stop function's
        share is ``served``.
    """
    callbacks = list(_callbacks())
    results: dict[str, Any] = {"slices": len(callbacks), "rooms": ROOMS, "users": USERS, "environments": ENVIRONMENTS}
    for name, remember in (("before", False), ("now", True)):
        order = {"callbacks": callbacks, "environments": ENVIRONMENTS, "remember": remember}
        run = _probe(_receive_callback(), ("-B",), do="slices", **order)
        served = _probe(STOP_SEGMENT, ("-B",), do="sightings", bodies=run["sent"], seconds=SECONDS)
        results[name] = run["ends"] | {"served": served}
    return results


def _callbacks() -> Iterator[tuple[float, int, str]]:
    """Return the RTC server's callbacks: the second, the environment, and the callback."""
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
    """Time the handlers message by message, without the network."""
    return {
        name: _probe(function, ("-B",), do="messages", marks=[mark for mark in MARKS if mark <= most_messages[name]])
        for name, function in {"product": STOP_SEGMENT, "peer": PEER}.items()
    }


def _probe(function: Function, flags: tuple[str, ...], **order: Any) -> Any:
    order |= {
        "artifact": str(function.artifact),
        "handler": function.handler,
        "secret": function.secret,
        "event": function.event,
    }
    environment = {"PATH": os.environ["PATH"], "LAMBDA_TASK_ROOT": str(function.artifact)}
    done = subprocess.run(  # noqa: S603 # nosec B603 # our own command, no shell
        [_python(), "-I", "-S", *flags, str(PROBE)],
        input=json.dumps(order),
        env=environment | _LAMBDA | function.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{function.handler} fails by itself:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout)
