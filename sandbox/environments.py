"""Function environments as on Lambda. Each environment runs the built artifact, and is frozen between invocations."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import signal
import subprocess  # nosec B404 # runs the environments
import sys
import tempfile
import threading
import uuid
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sandbox.embedded_aws import REGION
from sandbox.stack import BUILT_TEMPLATE, ROOT

BUILD = BUILT_TEMPLATE.parent
PYTHON = "3.13"  # as the template's Runtime says
HANDLERS = {
    "StopSegmentFunction": "stop_segment.handler.handler",
    "ReceiveCallbackFunction": "receive_callback.handler.handler",
    "PublishOutcomeFunction": "publish_outcome.handler.handler",
    "SweepRoomsFunction": "sweep_rooms.handler.handler",
}
_MADE_UP = "example"  # embedded AWS accepts any secret key
_RUNTIME = Path(__file__).with_name("runtime.py")


class FunctionError(Exception):
    """The function raised, was killed at its time-out, or cannot be imported. The message has the function's output."""


class Environment:
    """A function environment. Its invocations run one after another. Those of different environments may overlap.

    Parameters
    ----------
    process
        The process that runs `runtime`.
    log
        The file with the output of the process.
    """

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self._process = process
        self._log = log
        self._lock = threading.Lock()

    def invoke(self, event: object, *, remaining_ms: int = 60_000, frozen_seconds: float = 0.0) -> Any:
        """Thaw the environment, invoke the function with an event, and freeze the environment again.

        Parameters
        ----------
        remaining_ms
            The function's time-out.
        frozen_seconds
            How far the function's monotonic clock moves forward before the event, as after a long freeze. The time of
            day stays.

        Raises
        ------
        FunctionError
            The function raised or timed out. After a time-out the environment is gone, as on Lambda.
        """
        invocation = {
            "event": event,
            "request_id": str(uuid.uuid4()),
            "remaining_ms": remaining_ms,
            "frozen_seconds": frozen_seconds,
        }
        with self._lock:
            self._process.send_signal(signal.SIGCONT)
            answer = self._exchange(invocation, remaining_ms / 1000)
            self._process.send_signal(signal.SIGSTOP)
        if "error" in answer:
            raise FunctionError(answer["error"])
        return answer["answer"]

    def start(self, artifact: Path, handler: str) -> None:
        """Import the function, as Lambda does before the first invocation."""
        self._exchange({"artifact": str(artifact), "handler": handler}, seconds=60)

    def _exchange(self, line: Mapping[str, object], seconds: float) -> dict[str, Any]:
        to, back = self._process.stdin, self._process.stdout
        if to is None or back is None:
            raise ValueError("the process has no pipes: start it with stdin and stdout as pipes")
        timer = threading.Timer(seconds, self._process.kill)
        timer.start()
        try:
            with contextlib.suppress(BrokenPipeError):
                print(json.dumps(line), file=to, flush=True)
            answer = back.readline()
        finally:
            timer.cancel()
        if not answer:
            self._process.wait()
            raise FunctionError(
                f"the environment ended before it answered. Fix the error in its output:\n{self.printed()[-3000:]}"
            )
        return dict(json.loads(answer))

    def printed(self) -> str:
        """Return everything that the function has printed so far."""
        return self._log.read_text(errors="replace")

    def log_lines(self) -> list[dict[str, Any]]:
        """Return the lines of JSON that the function has printed so far, which are its log and its metrics."""
        return [json.loads(line) for line in self.printed().splitlines() if line.startswith("{")]


@contextlib.contextmanager
def environment(
    function: str, variables: Mapping[str, str], *, artifact: Path | None = None, handler: str | None = None
) -> Iterator[Environment]:
    """Start a function environment, and end the environment with the block.

    Parameters
    ----------
    function
        The function's logical id in template.yaml.
    variables
        The function's environment variables from the template, and `EmbeddedAws.environment`.
    artifact, handler
        The artifact and the handler of a function that is not in this build.

    Raises
    ------
    FunctionError
        The function cannot be imported.
    """
    artifact = artifact or BUILD / function
    with tempfile.TemporaryDirectory(prefix="segment-stopper-") as home, (Path(home) / "log").open("wb") as log:
        process = subprocess.Popen(  # noqa: S603 # nosec B603 # our own command, no shell
            # -u writes each line at once. -B writes no bytecode: on Lambda the artifact is read-only.
            [python_for_functions(), "-I", "-S", "-u", "-B", str(_RUNTIME)],
            env=lambda_variables(function, artifact) | dict(variables) | {"HOME": home},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        try:
            made = Environment(process, Path(log.name))
            made.start(artifact, handler or HANDLERS[function])
            yield made
        finally:
            process.kill()
            process.communicate()


def lambda_variables(function: str, artifact: Path) -> dict[str, str]:
    """Return the environment variables that Lambda sets, and those that the template sets for all functions."""
    return {
        "PATH": os.environ["PATH"],
        "TZ": ":UTC",
        "LANG": "en_US.UTF-8",
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ACCESS_KEY_ID": "AKIAEXAMPLE",
        "AWS_SECRET_ACCESS_KEY": _MADE_UP,
        "AWS_EXECUTION_ENV": f"AWS_Lambda_python{PYTHON}",
        "AWS_LAMBDA_FUNCTION_NAME": function,
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "512",
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        "AWS_LAMBDA_LOG_STREAM_NAME": f"[$LATEST]{uuid.uuid4().hex}",
        "LAMBDA_TASK_ROOT": str(artifact),
        "POWERTOOLS_SERVICE_NAME": "environment",
        "POWERTOOLS_METRICS_NAMESPACE": "RtcSegmentStopper",
        "LOG_LEVEL": "INFO",
    }


@functools.cache
def python_of_lambda() -> str | None:
    """Find a Python of the runtime's version on this machine, as the build does. None if there is no such Python."""
    folder = str(ROOT / "functions")
    command = ["make", "--no-print-directory", "-C", folder, "runtime-python", f"RUNTIME={PYTHON}"]
    found = subprocess.check_output(command, text=True)  # noqa: S603 # nosec B603 # our own command
    return found.strip() or None


def python_for_functions() -> str:
    """Return a Python of the runtime's version, because no other version reads the artifacts' bytecode.

    If this machine has no such Python, warn, and return the Python of this process.
    """
    if python := python_of_lambda():
        return python
    local = "{}.{}".format(*sys.version_info)
    warnings.warn(f"this machine has no Python {PYTHON}, which Lambda uses: functions run in {local}", stacklevel=2)
    return sys.executable
