"""What goes to X-Ray: the function's traces, as its daemon would get them."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

from sandbox.rtc_double import RtcDouble
from tests.environments import STOP_SETTINGS

FUNCTIONS = Path(__file__).parents[2] / "functions"
# The recorder is one a process and is set up when it is imported: so the call is made in a process of its own.
CALL = """
import asyncio, json, os, sys
from concurrent.futures import ThreadPoolExecutor
from segments.credentials import Key
from segments.errors import StopError
from segments.events import Room, Task
from segments.telemetry import traced
from segments.rtc import RtcApi
from stop_segment.settings import read_settings

class Credentials:
    def current(self):
        return Key("AKLTtraced", os.environ["SECRET"])
    def renewed(self, key):
        return False

api = RtcApi(read_settings(os.environ), Credentials(), connections=1, traced=traced)
with ThreadPoolExecutor(1) as threads:
    for task_id in ("audio", "bad id"):
        try:
            threads.submit(api.stop_segment, Task(Room("661e", "room-1"), task_id), None).result()
        except StopError as error:
            print(type(error).__name__)
"""


def test_call_is_found_in_the_trace_by_its_ids_and_shows_no_secret() -> None:
    with (
        RtcDouble(secrets={"AKLTtraced": "traced-secret-key"}) as rtc,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as daemon,
    ):
        rtc.start_task("661e", "room-1", "audio")
        daemon.bind(("127.0.0.1", 0))
        daemon.settimeout(20)
        done = subprocess.run(
            [sys.executable, "-c", CALL],
            env=_environment(rtc.url, daemon.getsockname()[1]),
            capture_output=True,
            text=True,
            check=True,
        )
        segments = [json.loads(daemon.recv(65_536).partition(b"\n")[2]) for _ in range(2)]

    assert done.stdout == "Rejected\n"
    assert {segment["annotations"]["task_id"] for segment in segments} == {"audio", "bad id"}
    for segment in segments:
        assert segment["name"] == "## StopSegment"
        assert segment["parent_id"] == "53995c3f42cd8ad8"
        assert segment["annotations"]["room_id"] == "room-1"
    told = json.dumps(segments) + done.stdout + done.stderr
    assert "traced-secret-key" not in told
    assert "Signature" not in told


def test_where_nothing_is_traced_nothing_is_sent_and_nobody_complains() -> None:
    with RtcDouble(secrets={"AKLTtraced": "traced-secret-key"}) as rtc:
        rtc.start_task("661e", "room-1", "audio")
        environment = _environment(rtc.url, 1) | {"POWERTOOLS_TRACE_DISABLED": "true"}
        del environment["_X_AMZN_TRACE_ID"]  # as in China
        done = subprocess.run([sys.executable, "-c", CALL], env=environment, capture_output=True, text=True, check=True)
        assert len(rtc.requests) == 2
    assert (done.stdout, done.stderr) == ("Rejected\n", "")


def _environment(endpoint: str, daemon_port: int) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(FUNCTIONS),
        "LAMBDA_TASK_ROOT": str(FUNCTIONS),
        "AWS_LAMBDA_FUNCTION_NAME": "stop-segment",
        "_X_AMZN_TRACE_ID": "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1",
        "AWS_XRAY_DAEMON_ADDRESS": f"127.0.0.1:{daemon_port}",
        "POWERTOOLS_SERVICE_NAME": "stack",
        "POWERTOOLS_METRICS_NAMESPACE": "RtcSegmentStopper",
        "SECRET": "traced-secret-key",
        **STOP_SETTINGS,
        "RTC_ENDPOINT": endpoint,
    }
