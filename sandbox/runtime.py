"""Lambda's runtime in one process, which imports the built artifact, reads events and writes answers.

`environments` runs this file with ``python -I -S``, so that it finds only the artifact and the standard library. The
first line of standard input names the module to import, and each further line is an invocation. Each line of standard
output is an answer. The function's own output goes to standard error.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
import traceback
from typing import Any, TextIO

_monotonic = time.monotonic
_frozen_seconds = 0.0


class Context:
    """The context of an invocation, as Lambda passes it to a function."""

    function_version = "$LATEST"
    identity = None
    client_context = None

    def __init__(self, request_id: str, remaining_ms: int) -> None:
        self._ends_at = _monotonic() + remaining_ms / 1000
        self.aws_request_id = request_id
        self.function_name = os.environ["AWS_LAMBDA_FUNCTION_NAME"]
        self.memory_limit_in_mb = int(os.environ["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"])
        self.invoked_function_arn = (
            f"arn:aws:lambda:{os.environ['AWS_REGION']}:000000000000:function:{self.function_name}"
        )
        self.log_group_name = f"/aws/lambda/{self.function_name}"
        self.log_stream_name = os.environ["AWS_LAMBDA_LOG_STREAM_NAME"]

    def get_remaining_time_in_millis(self) -> int:
        """Return the milliseconds until the invocation's time-out."""
        return max(0, round(1000 * (self._ends_at - _monotonic())))


def _monotonic_after_freezes() -> float:
    return _monotonic() + _frozen_seconds


def _answer(function: Any, invocation: dict[str, Any]) -> dict[str, Any]:
    global _frozen_seconds
    _frozen_seconds += invocation["frozen_seconds"]
    request_id = invocation["request_id"]
    root = request_id.replace("-", "")
    os.environ["_X_AMZN_TRACE_ID"] = f"Root=1-{root[:8]}-{root[8:]};Parent={root[:16]};Sampled=1"  # as Lambda does
    try:
        answer = function(invocation["event"], Context(request_id, invocation["remaining_ms"]))
        return {"answer": json.loads(json.dumps(answer))}
    except Exception:  # noqa: BLE001 - Lambda reports every one and keeps the environment
        return {"error": traceback.format_exc()}


def _serve(answers: TextIO) -> None:
    order = json.loads(sys.stdin.readline())
    time.monotonic = _monotonic_after_freezes  # before the function or a library keeps a reference to time.monotonic
    sys.path.insert(0, order["artifact"])
    module, _, name = order["handler"].rpartition(".")
    function = getattr(importlib.import_module(module), name)
    print("{}", file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(_answer(function, json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    with os.fdopen(os.dup(1), "w") as to_parent:
        os.dup2(2, 1)
        _serve(to_parent)
