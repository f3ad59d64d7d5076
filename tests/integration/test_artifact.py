"""The output of `sam build`: each function runs with its own artifact alone, on any architecture."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sandbox.environments import BUILD, HANDLERS, lambda_variables, python_of_lambda
from sandbox.stack import ROOT
from tests.environments import STOP_SETTINGS

MOST_BYTES = 16 * 1024 * 1024

SETTINGS = {
    "StopSegmentFunction": STOP_SETTINGS,
    "ReceiveCallbackFunction": {
        "EVENT_QUEUE_URL": "https://sqs.us-east-1.amazonaws.com/123456789012/events",
        "CALLBACK_SECRET_ARN": "arn:aws:secretsmanager:us-east-1:123456789012:secret:callback",
        "URL_SUFFIX": "amazonaws.com",
    },
    "PublishOutcomeFunction": {"OUTCOME_EVENT_BUS_NAME": "outcomes"},
    "SweepRoomsFunction": STOP_SETTINGS | {"MAX_TASK_HOURS": "0"},
}
SERVICES = {
    "StopSegmentFunction": {"dynamodb", "secretsmanager", "sqs"},
    "ReceiveCallbackFunction": set(),
    "PublishOutcomeFunction": {"events", "stepfunctions"},
    "SweepRoomsFunction": {"dynamodb", "secretsmanager", "sqs"},
}
COMPILED = """
import importlib, json, sys
_, handler, artifact = sys.argv
sys.path.insert(0, artifact)
compiled = []
def hook(event, arguments):
    if event == "compile" and str(arguments[1]).startswith(artifact):
        compiled.append(arguments[1])
sys.addaudithook(hook)
importlib.import_module(handler)
print(json.dumps({"imported": [name for name, module in sys.modules.items()
                               if str(getattr(module, "__file__", "")).startswith(artifact)], "compiled": compiled}))
"""
every_function = pytest.mark.parametrize("function", sorted(HANDLERS))


def files(function: str) -> list[Path]:
    return [path for path in (BUILD / function).rglob("*") if path.is_file()]


def test_every_built_function_has_a_handler_and_settings_in_these_tests() -> None:
    assert {path.name for path in BUILD.iterdir() if path.is_dir()} == HANDLERS.keys() == SETTINGS.keys()


@every_function
def test_artifact_holds_only_its_own_function_s_code(function: str) -> None:
    packages = {name: handler.partition(".")[0] for name, handler in HANDLERS.items()}
    held = {path.name for path in (BUILD / function).iterdir()}
    assert held & set(packages.values()) == {packages[function]}


def test_a_function_s_requirements_are_among_those_that_the_audit_checks() -> None:
    every, *others = (
        set((ROOT / "functions" / name).read_text().replace(" \\\n", "").splitlines())
        for name in ("requirements.txt", "requirements-aws.txt", "requirements-callback.txt")
    )
    assert all({line for line in some if "==" in line} < every for some in others)


@every_function
def test_artifact_holds_no_machine_code(function: str) -> None:
    assert [path for path in files(function) if path.suffix in (".so", ".pyd", ".dll", ".dylib")] == []


@every_function
def test_every_package_in_the_artifact_is_of_a_pure_python_wheel(function: str) -> None:
    wheels = list((BUILD / function).glob("*.dist-info/WHEEL"))
    assert len(wheels) >= 5
    impure = [wheel.parent.name for wheel in wheels if "Root-Is-Purelib: true" not in wheel.read_text()]
    tagged = [wheel.parent.name for wheel in wheels if "-none-any" not in wheel.read_text()]
    assert impure == tagged == []


@every_function
def test_artifact_is_small_and_does_not_name_the_folder_in_which_it_was_built(function: str) -> None:
    contents = {path: path.read_bytes() for path in files(function)}
    assert [path for path, content in contents.items() if str(ROOT).encode() in content] == []
    assert sum(map(len, contents.values())) <= MOST_BYTES


@every_function
def test_artifact_describes_only_the_services_that_its_function_calls(function: str) -> None:
    data = BUILD / function / "botocore" / "data"
    assert {path.parent.parent.name for path in data.glob("*/*/service-2.json")} == SERVICES[function]
    for endpoints in data.glob("endpoints.json"):
        known = {partition["partition"] for partition in json.loads(endpoints.read_text())["partitions"]}
        assert {"aws", "aws-cn"} <= known


def make_bytecode(artifact: Path, *settings: str) -> str:
    folder = str(ROOT / "functions")
    command = ["make", "--no-print-directory", "-C", folder, "bytecode", f"ARTIFACTS_DIR={artifact}", *settings]
    return subprocess.check_output(command, env=os.environ | {"PYTHONHASHSEED": "1"}, text=True)


def start(function: str) -> dict[str, list[str]]:
    """Import a function's handler with only its artifact and the standard library on the path.

    Returns the artifact's modules that were imported, and those that had to be compiled.
    """
    artifact = BUILD / function
    handler = HANDLERS[function].rpartition(".")[0]
    done = subprocess.run(
        [python_of_lambda() or sys.executable, "-I", "-S", "-B", "-c", COMPILED, handler, artifact],
        env=lambda_variables(function, artifact) | SETTINGS[function],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, list[str]] = json.loads(done.stdout)
    return found


@every_function
def test_artifact_holds_no_package_that_its_function_does_not_import(function: str) -> None:
    packages = {path.name.removesuffix(".py") for path in (BUILD / function).iterdir() if path.suffix in ("", ".py")}
    assert packages - {"__pycache__"} - set(start(function)["imported"]) == set()


@pytest.fixture(scope="module")
def _with_python_of_lambda() -> None:
    if not python_of_lambda():
        pytest.skip("the Python version of the functions is not installed")


@pytest.mark.usefixtures("_with_python_of_lambda")
@every_function
def test_lambda_compiles_no_module_of_the_artifact(function: str) -> None:
    assert start(function)["compiled"] == []


@pytest.mark.usefixtures("_with_python_of_lambda")
def test_bytecode_is_the_same_at_any_place_and_time(tmp_path: Path) -> None:
    artifact, copy = BUILD / "ReceiveCallbackFunction", tmp_path / "elsewhere"
    shutil.copytree(artifact, copy, ignore=shutil.ignore_patterns("__pycache__"))
    make_bytecode(copy)
    built, again = (
        {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.pyc")} for folder in (artifact, copy)
    )
    assert built
    assert again == built


def test_a_build_without_the_runtime_s_python_warns_and_writes_no_bytecode(tmp_path: Path) -> None:
    (tmp_path / "module.py").touch()
    said = make_bytecode(tmp_path, "RUNTIME=3.99")
    assert said.startswith("No bytecode")
    assert said.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["module.py"]
