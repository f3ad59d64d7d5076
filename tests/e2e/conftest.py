"""Fixtures of the end-to-end tests: one sandbox and one release per test process, and new rooms for each test."""

from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from sandbox.embedded_aws import REGION
from sandbox.stack import Sandbox, sandbox
from tests.e2e.observer import APP_ID, Observer, Room
from tests.e2e.operator import release


@pytest.fixture(scope="session")
def box() -> Iterator[Sandbox]:
    """Deploy a stack with debug logs that may answer workflows, once per test process."""
    workflows = f"arn:aws:states:{REGION}:000000000000:stateMachine:rtc-close-*"
    with sandbox({"LogLevel": "DEBUG", "WorkflowArn": workflows}, app_ids={APP_ID}) as running:
        yield running


@pytest.fixture(scope="session")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a release, and return its folder."""
    folder = tmp_path_factory.mktemp("release") / "dist"
    done = release(folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def observer(box: Sandbox) -> Observer:
    return Observer(box)


@pytest.fixture
def new_room(observer: Observer) -> Callable[[], Room]:
    """Return a function that creates rooms with new ids."""
    return lambda: Room(observer, f"room-{uuid4().hex}")


@pytest.fixture
def room(new_room: Callable[[], Room]) -> Room:
    return new_room()
