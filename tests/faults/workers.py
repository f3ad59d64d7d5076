"""Find and kill the processes in which the embedded AWS runs a function."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator

from sandbox.embedded_aws import EmbeddedAws
from sandbox.stack import wait_for


def worker_pids(aws: EmbeddedAws, function_name: str) -> list[int]:
    """Find the processes that run a function's script in the folder of the embedded AWS."""
    ps = shutil.which("ps") or "ps"
    listed = subprocess.run([ps, "-Aww", "-o", "pid=,command="], capture_output=True, text=True, check=True).stdout
    script = f"{aws.log.parent}{os.sep}ministack-lambda-{function_name}-"
    return sorted(int(line.split(maxsplit=1)[0]) for line in listed.splitlines() if script in line)


def kill_workers(aws: EmbeddedAws, function_name: str) -> None:
    """Kill all idle processes of a function, so that the next ones start without memory."""
    for pid in worker_pids(aws, function_name):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    # A process that still runs would receive one more batch.
    wait_for(lambda: not worker_pids(aws, function_name), "the function's processes to end")


class Killer:
    """Kills a function's processes, one at a time, at random moments."""

    def __init__(self, aws: EmbeddedAws, function_name: str, rng: random.Random) -> None:
        self.kills = 0
        self._aws = aws
        self._function_name = function_name
        self._rng = rng
        self._done = threading.Event()

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        thread = threading.Thread(target=self._work, name="killer", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._done.set()
            thread.join()

    def _work(self) -> None:
        while not self._done.wait(self._rng.uniform(0.2, 2.5)):  # some end before they have started, and some at work
            if pids := worker_pids(self._aws, self._function_name):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self._rng.choice(pids), signal.SIGKILL)
                    self.kills += 1
