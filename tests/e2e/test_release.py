"""What `make release` makes is what is deployed, and it does the main job."""

import base64
import hashlib
import json
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.stack import BUILT_TEMPLATE, ROOT, Sandbox, sandbox
from tests.contracts import CONTRACTS
from tests.e2e.observer import APP_ID, Observer, Room


def release(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "release", "--to", str(folder), *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def checksums(folder: Path) -> dict[str, str]:
    lines = (folder / "SHA256SUMS").read_text().splitlines()
    return {name: checksum for checksum, name in (line.split("  ") for line in lines)}


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("release") / "dist"
    done = release(folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def released(dist: Path) -> Iterator[Sandbox]:
    with sandbox(app_ids={APP_ID}, template=dist / "template.yaml") as running:
        yield running


def test_released_artifact_stops_a_room(dist: Path, released: Sandbox) -> None:
    observer = Observer(released)
    room = Room(observer, "room-1")
    room.start("audio")
    assert room.end_of("RoomEnded", TaskId="audio") == ["stopped"]
    assert not room.is_running("audio")

    configuration = released.client("lambda").get_function_configuration(
        FunctionName=observer.resource("StopSegmentFunction")
    )
    deployed = base64.b64decode(configuration["CodeSha256"]).hex()
    assert deployed == checksums(dist)["StopSegmentFunction.zip"]


def test_every_file_of_a_release_has_its_checksum(dist: Path) -> None:
    files = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in dist.iterdir()}
    del files["SHA256SUMS"]
    assert checksums(dist) == files
    assert {path.name for path in CONTRACTS.glob("*.schema.json")} <= files.keys()


def test_the_same_build_is_released_in_the_same_bytes_whenever_it_was_made(dist: Path, tmp_path: Path) -> None:
    os.utime(BUILT_TEMPLATE.parent / "PublishOutcomeFunction" / "publish_outcome" / "handler.py", (0, 1_000_000_000))
    assert release(tmp_path).returncode == 0
    assert checksums(tmp_path) == checksums(dist)


def test_a_release_holds_every_file_of_the_build(dist: Path) -> None:
    for archive in dist.glob("*.zip"):
        built = BUILT_TEMPLATE.parent / archive.stem
        with zipfile.ZipFile(archive) as opened:
            assert opened.testzip() is None
            assert set(opened.namelist()) == {
                path.relative_to(built).as_posix() for path in built.rglob("*") if path.is_file()
            }


def test_the_bill_of_materials_names_every_package_that_is_deployed(dist: Path) -> None:
    bill = json.loads((dist / "sbom.cdx.json").read_text())
    locked = re.findall(r"^([\w.-]+==[\w.]+)", (ROOT / "functions" / "requirements.txt").read_text(), re.MULTILINE)
    assert sorted(f"{one['name']}=={one['version']}" for one in bill["components"]) == sorted(locked)
    assert bill["metadata"]["component"]["name"] == "rtc-segment-stopper"


def test_a_tag_of_another_version_releases_nothing(tmp_path: Path) -> None:
    refused = release(tmp_path / "dist", "--tag", "v0.0.1")
    assert refused.returncode == 1
    assert "pyproject.toml says" in refused.stderr
    assert not (tmp_path / "dist").exists()
