"""The function environments in which other tests and the benchmarks run the built artifact, as Lambda would."""

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox import environments
from sandbox.environments import Environment, FunctionError, environment
from sandbox.stack import ROOT, wait_for

FUNCTION = """
import importlib.util, os, time

clock = time.monotonic

def handler(event, context):
    print("printed")
    match event:
        case "exit": os._exit(1)
        case "hang": time.sleep(60)
        case "import": return {name: bool(importlib.util.find_spec(name)) for name in ("json", "boto3", "sandbox")}
        case _: return {"now": clock(), "pid": os.getpid()}
"""


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    (tmp_path / "function.py").write_text(FUNCTION)
    return tmp_path


@contextlib.contextmanager
def small(artifact: Path, **variables: str) -> Iterator[Environment]:
    with environment("Small", variables, artifact=artifact, handler="function.handler") as made:
        yield made


def test_only_the_artifact_and_the_standard_library_can_be_imported(artifact: Path) -> None:
    with small(artifact, PYTHONPATH=str(environments.BUILD.parent.parent)) as made:
        assert made.invoke("import") == {"json": True, "boto3": False, "sandbox": False}


def test_an_environment_runs_only_while_it_is_invoked(artifact: Path) -> None:
    with small(artifact) as made:
        pid = made.invoke({})["pid"]
        wait_for(lambda: state(pid) == "T", "the process to be stopped", seconds=5)
        assert made.invoke({})["pid"] == pid


def state(pid: int) -> str:
    command = ["ps", "-o", "state=", "-p", str(pid)]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout[:1]


def test_time_passes_while_an_environment_is_frozen(artifact: Path) -> None:
    with small(artifact) as made:
        before = made.invoke({})["now"]
        after = [made.invoke({}, frozen_seconds=seconds)["now"] for seconds in (60, 60, 0)]
    assert [round((now - before) / 60) for now in after] == [1, 2, 2]


@pytest.mark.parametrize("end", ["exit", "hang"])
def test_the_error_after_a_process_has_ended_includes_its_output(artifact: Path, end: str) -> None:
    with small(artifact) as made:
        for event in (end, "again"):
            with pytest.raises(
                FunctionError, match=r"ended before it answered\. Fix the error in its output:\nprinted"
            ):
                made.invoke(event, remaining_ms=500)


def test_the_python_version_is_that_of_the_template_and_the_build() -> None:
    assert f"Runtime: python{environments.PYTHON}\n" in (ROOT / "template.yaml").read_text()
    assert f"RUNTIME := {environments.PYTHON}\n" in (ROOT / "functions" / "Makefile").read_text()
