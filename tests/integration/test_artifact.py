"""What `sam build` makes: each function must run with nothing but its own artifact, on any architecture."""

from pathlib import Path

import pytest

from sandbox.environments import BUILD, HANDLERS, environment
from tests.environments import STOP_SETTINGS

MOST_BYTES = 40 * 1024 * 1024

SETTINGS = {
    "StopSegmentFunction": STOP_SETTINGS,
    "ReceiveCallbackFunction": {
        "EVENT_QUEUE_URL": "https://sqs.us-east-1.amazonaws.com/123456789012/events",
        "CALLBACK_SECRET_ARN": "arn:aws:secretsmanager:us-east-1:123456789012:secret:callback",
    },
    "PublishOutcomeFunction": {"OUTCOME_EVENT_BUS_NAME": "outcomes"},
}
pytestmark = pytest.mark.parametrize("function", sorted(HANDLERS))


def files(function: str) -> list[Path]:
    return [path for path in (BUILD / function).rglob("*") if path.is_file()]


def test_every_function_of_the_stack_is_looked_at(function: str) -> None:
    assert {path.name for path in BUILD.iterdir() if path.is_dir()} == HANDLERS.keys() == SETTINGS.keys()
    assert files(function)


def test_handler_imports_with_nothing_else_on_the_path(function: str) -> None:
    with environment(function, SETTINGS[function]):
        pass


def test_artifact_holds_only_its_own_function_s_code(function: str) -> None:
    ours = {name.partition(".")[0] for name in HANDLERS.values()}
    assert ours & {path.name for path in (BUILD / function).iterdir()} == {HANDLERS[function].partition(".")[0]}


def test_artifact_holds_no_compiled_file(function: str) -> None:
    assert [path for path in files(function) if path.suffix in (".so", ".pyd", ".dll", ".dylib", ".pyc")] == []


def test_every_package_in_the_artifact_is_of_a_pure_python_wheel(function: str) -> None:
    wheels = list((BUILD / function).glob("*.dist-info/WHEEL"))
    assert len(wheels) >= 5
    impure = [wheel.parent.name for wheel in wheels if "Root-Is-Purelib: true" not in wheel.read_text()]
    tagged = [wheel.parent.name for wheel in wheels if "-none-any" not in wheel.read_text()]
    assert impure == tagged == []


def test_artifact_is_small(function: str) -> None:
    assert sum(path.stat().st_size for path in files(function)) <= MOST_BYTES
