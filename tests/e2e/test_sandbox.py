"""The commands that `make sandbox` prints work when pasted, even into a shell that is set up for another AWS."""

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.stack import ROOT
from tests.environments import OF_A_SHELL

START = """
import sys, pathlib
from sandbox.__main__ import main, run
sys.exit(run(lambda: main(pathlib.Path({!r})), interrupted=0))
"""
WRONG_APP = json.dumps({"EventType": "RoomEnded", "AppId": "unknown", "RoomId": "room-9", "TaskId": "audio"})


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """Start the sandbox, and return its process and its output until it waits."""
    folder = tmp_path_factory.mktemp("a folder") / "sandbox"
    with subprocess.Popen(
        [sys.executable, "-c", START.format(str(folder))],
        cwd=ROOT,
        env=os.environ | OF_A_SHELL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        printed = []
        for line in process.stdout:
            printed.append(line)
            if line.startswith("Ctrl-C here"):
                break
        yield process, printed
        process.kill()


def paste(commands: list[str]) -> str:
    done = subprocess.run(
        ["bash", "-c", "".join(commands)],  # noqa: S607 - the shell of the reader
        cwd=ROOT,
        env=os.environ | OF_A_SHELL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "rror" not in done.stderr, done.stderr
    return done.stdout


def test_printed_commands_work_when_pasted(running: tuple[subprocess.Popen[str], list[str]]) -> None:
    _, printed = running
    (sourced,) = [line for line in printed if line.startswith("  . ")]
    folder = Path(shlex.split(sourced)[1]).parent
    shown = "".join(printed).replace(str(folder), ".sandbox")
    assert max(map(len, shown.splitlines())) <= 80
    commands = [line.removeprefix("  ") for line in printed if line.startswith("  ")]
    pasted = paste(commands)
    assert pasted.count("task audio: stopped") == 2
    assert '"action": "StopSegment"' in pasted
    assert '{"result":"queued"}' in pasted.replace(" ", "")
    assert "invalid_message" in pasted
    assert "1 of 1 letter purged." in pasted
    assert "SegmentStopped" in pasted

    wrong = f"""{commands[0]}
        aws sqs send-message --queue-url "$(output EventQueueUrl)" --message-body '{WRONG_APP}'
        until stopper letters list --kind rejected | grep NotExistAppId; do sleep 1; done"""
    assert "rejected" in paste([wrong])


def test_printed_settings_are_enough_for_the_sdks_of_other_languages(
    running: tuple[subprocess.Popen[str], list[str]],
) -> None:
    _, printed = running
    (sourced,) = [line for line in printed if line.startswith("  . ")]
    region, certificate = paste([sourced, 'echo "$AWS_REGION"; echo "$NODE_EXTRA_CA_CERTS"']).splitlines()
    assert region == "us-east-1"  # the SDKs of Node and Java read no AWS_DEFAULT_REGION
    assert Path(certificate).exists()


def test_ctrl_c_ends_the_sandbox_with_a_message(running: tuple[subprocess.Popen[str], list[str]]) -> None:
    process, _ = running
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "\nInterrupted. Nothing is left running.\n")
