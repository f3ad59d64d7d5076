"""A measurement of one built function in a fresh interpreter: its start-up, or its time per message.

`functions` runs this file with ``python -I -S``, so that it finds only the artifact and the standard library. Standard
input holds the job as JSON, standard output gets the result. The stub of the network replaces only HTTP, so that all
code of the function and its libraries runs. The RTC API answers ``ok`` at once, and the table accepts every write.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import math
import os
import resource
import statistics
import sys
import time
import uuid
from types import SimpleNamespace
from typing import Any

_STOPPED = json.dumps({"Result": "ok", "ResponseMetadata": {"RequestId": "0", "Action": "StopSegment"}}).encode()
_MESSAGES_A_BATCH = 10
_SPENT = ("invocations", "function_seconds", "log_bytes")


def _context() -> Any:
    return SimpleNamespace(
        aws_request_id=str(uuid.uuid4()),
        function_name="probe",
        function_version="$LATEST",
        memory_limit_in_mb=512,
        invoked_function_arn="arn:aws:lambda:us-east-1:000000000000:function:probe",
        get_remaining_time_in_millis=lambda: 59_000,
    )


def stub_network(secret: str) -> None:
    """Replace HTTP in this process with a stub that answers every request at once."""
    # Imported late, because start-up is timed, and not every artifact has these modules.
    import urllib3

    answers: dict[str, dict[str, Any]] = {
        "GetSecretValue": {"ARN": "arn", "Name": "name", "VersionId": "1", "SecretString": secret},
        "SendMessage": {"MessageId": "1", "MD5OfMessageBody": ""},
        "BatchGetItem": {"Responses": {}, "UnprocessedKeys": {}},
    }

    def answer_aws(_: object, request: Any) -> Any:
        target = request.headers.get("X-Amz-Target", b"")
        operation = (target.decode() if isinstance(target, bytes) else target).rpartition(".")[2]
        headers: Any = {"Content-Type": "application/x-amz-json-1.0"}
        return AWSResponse(request.url, 200, headers, _Raw(json.dumps(answers.get(operation, {})).encode()))

    def answer_others(*_: Any, **more: Any) -> Any:
        # The RTC API, and AWS for the callback function.
        target = more.get("headers", {}).get("X-Amz-Target", "").rpartition(".")[2]
        body = io.BytesIO(json.dumps(answers[target]).encode() if target else _STOPPED)
        return urllib3.HTTPResponse(body, {"Content-Type": "application/json"}, status=200, preload_content=True)

    with contextlib.suppress(ImportError):  # the callback function has no botocore
        from botocore.awsrequest import AWSResponse
        from botocore.httpsession import URLLib3Session

        setattr(URLLib3Session, "send", answer_aws)  # noqa: B010 - so that the type checker lets it pass
    setattr(urllib3.PoolManager, "urlopen", answer_others)  # noqa: B010 - likewise


class _Raw:
    def __init__(self, content: bytes) -> None:
        self._content = content

    def stream(self, *_: object, **__: object) -> list[bytes]:
        """Return the body of the answer, as urllib3 does."""
        return [self._content]


def batch(first: int) -> dict[str, Any]:
    """Create an SQS event with a batch of distinct stop events."""
    sent = str(time.time_ns() // 1_000_000)
    return {"Records": [_record(number, sent) for number in range(first, first + _MESSAGES_A_BATCH)]}


def _record(number: int, sent_ms: str) -> dict[str, Any]:
    ids = {"AppId": "661e", "RoomId": f"room-{number}", "TaskId": "audio"}
    return {
        "messageId": f"message-{number}",
        "receiptHandle": f"receipt-{number}",
        "body": json.dumps({"EventType": "RoomEnded", "EventId": f"evt-{number}", **ids}),
        "attributes": {"SentTimestamp": sent_ms, "ApproximateReceiveCount": "1"},
        "messageAttributes": {},
        "eventSource": "aws:sqs",
    }


class Watch:
    """A stopwatch for the elapsed time and the processor time of this process, in ms."""

    def __init__(self) -> None:
        self._began = self._now()

    def read(self, name: str) -> dict[str, float]:
        """Return the elapsed time and the processor time by name, and start both times again."""
        before, self._began = self._began, self._now()
        clock, processor = (1000 * (now - then) for now, then in zip(self._began, before, strict=True))
        return {f"{name}_ms": clock, f"{name}_processor_ms": processor}

    def _now(self) -> tuple[float, float]:
        return time.perf_counter(), time.process_time()


def start_up(order: dict[str, Any]) -> dict[str, float]:
    """Time the import of a function with its clients, and the function's first call."""
    watch = Watch()
    stub_network(order["secret"])
    function = _function(order["handler"])
    imported = watch.read("import")
    function(order["event"] or batch(0), _context())
    return imported | watch.read("first_call")


def messages(order: dict[str, Any]) -> list[dict[str, float]]:
    """Time batch after batch, and return the time per message and the memory at the given numbers of messages."""
    stub_network(order["secret"])
    function = _function(order["handler"])
    marks = []
    done = 0
    for mark in order["marks"]:
        batches: list[dict[str, float]] = []
        while done < mark:
            event = batch(done)
            watch = Watch()
            answer = function(event, _context())
            batches.append(watch.read("batch"))
            done += _MESSAGES_A_BATCH
            if answer["batchItemFailures"]:
                raise RuntimeError(
                    f"{len(answer['batchItemFailures'])} messages of a batch failed, so the time is invalid: "
                    "run the benchmark again"
                )
        # Other work of the machine hardly affects the fastest tenth.
        fast = {name: statistics.quantiles((taken[name] for taken in batches), n=10)[0] for name in batches[0]}
        marks.append(
            {
                "messages": mark,
                "ms_per_message": fast["batch_ms"] / _MESSAGES_A_BATCH,
                "processor_ms_per_message": fast["batch_processor_ms"] / _MESSAGES_A_BATCH,
                "memory_mb": _peak_memory_kb() / 1024,
            }
        )
    return marks


class _Log:
    """Counts the bytes of a function's output as CloudWatch Logs charges them, with 26 bytes more for each line."""

    def __init__(self) -> None:
        self.bytes = 0

    def write(self, text: str) -> None:
        """Count the bytes of the text."""
        self.bytes += len(text.encode()) + 26 * text.count("\n")

    def flush(self) -> None:
        """Do nothing, because no output is kept."""


def slices(order: dict[str, Any]) -> dict[str, Any]:
    """Send slices in time lapse to several environments of the callback function. Return the cost by outcome."""
    log = _Log()
    sys.stdout = log
    lapse = _time_lapse()
    stub_network(order["secret"])
    module: Any = importlib.import_module(order["handler"].rpartition(".")[0])
    environments = [module.QueuedSlices(module.MOST_REMEMBERED, time.monotonic) for _ in range(order["environments"])]
    spent: dict[str, dict[str, float]] = {}
    for seconds, environment, body in order["callbacks"]:
        lapse(seconds)
        module._slices = environments[environment]
        before, watch = log.bytes, Watch()
        event = {"requestContext": {"http": {"method": "POST"}}, "body": body, "isBase64Encoded": False}
        answer = module.handler(event, _context())
        ms = math.ceil(watch.read("call")["call_ms"])  # Lambda bills whole milliseconds
        so_far = spent.setdefault(json.loads(answer["body"])["result"], dict.fromkeys(_SPENT, 0))
        for name, more in zip(_SPENT, (1, ms / 1000, log.bytes - before), strict=True):
            so_far[name] += more
    return spent


def _time_lapse() -> Any:
    """Return a function that sets the clocks of this process ahead by a number of seconds."""
    ahead = [0.0]
    monotonic, time_ns = time.monotonic, time.time_ns
    time.monotonic = lambda: monotonic() + ahead[0]
    time.time_ns = lambda: time_ns() + int(ahead[0] * 1e9)

    def lapse(seconds: float) -> None:
        ahead[0] = seconds

    return lapse


def _peak_memory_kb() -> float:
    # On Linux, getrusage would report the parent process's peak if the parent's peak is higher.
    with contextlib.suppress(OSError), open("/proc/self/status") as status:  # noqa: PTH123 - as below
        return next(float(line.split()[1]) for line in status if line.startswith("VmHWM"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024 if sys.platform == "darwin" else 1)


def _function(handler: str) -> Any:
    module, _, name = handler.rpartition(".")
    return getattr(importlib.import_module(module), name)


def main() -> None:
    """Run the job that standard input describes, and write the result to standard output."""
    order = json.load(sys.stdin)
    results = os.fdopen(os.dup(1), "w")
    with open(os.devnull, "w") as nowhere:  # noqa: PTH123 - pathlib is among what a function may have to import
        sys.stdout = nowhere
        sys.path.insert(0, order["artifact"])
        what = {"start-up": start_up, "messages": messages, "slices": slices}[order["do"]]
        json.dump(what(order), results)
    results.close()


if __name__ == "__main__":
    main()
