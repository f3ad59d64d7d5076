"""A release upgrades a stack of the last release, and stops tasks."""

import base64
import hashlib
import json
import os
import re
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from release.contracts import CONTRACTS
from sandbox.stack import BUILT_TEMPLATE, ROOT, STACK_NAME, Sandbox, deploy, sandbox
from tests.e2e.observer import APP_ID, ROOM_ITEM, Observer, Room
from tests.e2e.operator import release, run_tool

pytestmark = pytest.mark.long

# The template of the last release, as `make release` wrote it. Before the first release, today's template serves.
LAST_RELEASE = Path(__file__).with_name("last_release.yaml")
CHANGED = {"StaleAfterSeconds": "45"}
WITH_CONTENT = ("SegmentTable", "EventQueue", "DeadLetterQueue", "RtcCredentialsSecret", "UndeliveredEventQueue")


@dataclass(frozen=True)
class Upgrade:
    """A stack that was upgraded from the last release to this one.

    Parameters
    ----------
    box
        The stack after the upgrade.
    waiting
        The id of a message that waited on the event queue during the upgrade.
    """

    before: Sandbox
    box: Sandbox
    ids_before: dict[str, str]
    parameters_before: dict[str, str]
    waiting: str

    def room(self, room_id: str) -> Room:
        return Room(Observer(self.box), room_id)


def checksums(folder: Path) -> dict[str, str]:
    lines = (folder / "SHA256SUMS").read_text().splitlines()
    return {name: checksum for checksum, name in (line.split("  ") for line in lines)}


def described(box: Sandbox) -> tuple[dict[str, str], dict[str, str]]:
    """Return the stack's physical ids and its parameters."""
    client = box.client("cloudformation")
    resources = client.describe_stack_resources(StackName=STACK_NAME)["StackResources"]
    parameters = client.describe_stacks(StackName=STACK_NAME)["Stacks"][0]["Parameters"]
    return (
        {one["LogicalResourceId"]: one["PhysicalResourceId"] for one in resources},
        {one["ParameterKey"]: one["ParameterValue"] for one in parameters},
    )


def over_functions_of(dist: Path, template: str) -> str:
    """Replace the zip files in a release's template by those of another release."""
    names = {path.stem.partition("-")[0]: path.name for path in dist.glob("*.zip")}
    return re.sub(r"CodeUri: (\w+)-\w+\.zip", lambda found: f"CodeUri: {names[found[1]]}", template)


@pytest.fixture(scope="module")
def upgrade(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upgrade]:
    """Deploy the last release with today's functions, pause it with a waiting event, and deploy this release."""
    last = tmp_path_factory.mktemp("last") / "dist"
    shutil.copytree(dist, last)
    if LAST_RELEASE.exists():
        (last / "template.yaml").write_text(over_functions_of(dist, LAST_RELEASE.read_text()))
    with sandbox(app_ids={APP_ID}, template=last / "template.yaml") as box:
        room = Room(Observer(box), "open")
        room.start("audio")
        assert room.end_of("SegmentStarted", TaskId="audio") == ["known"]
        assert run_tool(box, "pause").returncode == 0
        (waiting,) = box.send([json.dumps({"EventType": "RoomEnded", "AppId": APP_ID, "RoomId": "open"})])
        ids, parameters = described(box)
        after = replace(box, outputs=deploy(box.aws, CHANGED, dist / "template.yaml"))
        assert after.undone() == 1  # still paused
        assert run_tool(after, "resume").returncode == 0
        yield Upgrade(box, after, ids, parameters, waiting)


def test_released_artifact_stops_a_room(dist: Path, upgrade: Upgrade) -> None:
    room = upgrade.room("room-1")
    room.start("audio")
    assert room.end_of("RoomEnded", TaskId="audio") == ["stopped"]
    assert not room.is_running("audio")

    configuration = upgrade.box.client("lambda").get_function_configuration(
        FunctionName=upgrade.box.resource("StopSegmentFunction")
    )
    deployed = base64.b64decode(configuration["CodeSha256"]).hex()
    (archive,) = dist.glob("StopSegmentFunction-*.zip")
    assert deployed == checksums(dist)[archive.name]
    assert archive.stem == f"StopSegmentFunction-{deployed[:12]}"


def test_plain_template_has_the_resources_that_sam_deploys(dist: Path, upgrade: Upgrade) -> None:
    """Compare the two templates, because only tests/e2e/test_deploying.py deploys the plain template."""
    cloudformation = upgrade.box.client("cloudformation")
    deployed = cloudformation.get_template(StackName=STACK_NAME, TemplateStage="Processed")["TemplateBody"]
    text = (dist / "cloudformation.json").read_text()
    plain = json.loads(text)
    assert "Serverless" not in text
    assert "Transform" not in plain
    assert set(plain["Parameters"]) - set(deployed["Parameters"]) == {"CodeBucket", "CodePrefix"}
    for resource in plain["Resources"].values():
        assert "Metadata" not in resource
    assert without_code(plain) == without_code(deployed)


def without_code(template: Mapping[str, Any]) -> dict[str, Any]:
    resources = json.loads(json.dumps(template["Resources"]))
    for resource in resources.values():
        resource.pop("Metadata", None)
        resource["Properties"].pop("Code", None)
    return {part: template[part] for part in ("Conditions", "Outputs")} | {"Resources": resources}


def test_upgrade_keeps_resources_with_content_and_unchanged_parameters(upgrade: Upgrade) -> None:
    ids, parameters = described(upgrade.box)
    assert {name: ids[name] for name in WITH_CONTENT} == {name: upgrade.ids_before[name] for name in WITH_CONTENT}
    # Parameters that only one of the releases has are not compared.
    kept = upgrade.parameters_before.keys() & parameters.keys()
    assert {name: parameters[name] for name in kept} == {
        name: upgrade.parameters_before[name] for name in kept
    } | CHANGED
    kept_outputs = upgrade.before.outputs.keys() & upgrade.box.outputs.keys() - {"Version"}
    assert {name: upgrade.box.outputs[name] for name in kept_outputs} == {
        name: upgrade.before.outputs[name] for name in kept_outputs
    }


def test_event_that_waited_during_the_upgrade_stops_a_task_that_was_known_before_it(upgrade: Upgrade) -> None:
    room = upgrade.room("open")
    assert Observer(upgrade.box).ends([upgrade.waiting]) == {upgrade.waiting: ["stopped"]}
    assert room.stopped == ["audio"]
    assert room.records[ROOM_ITEM]["stop_event_time"]


def test_every_file_of_a_release_has_its_checksum(dist: Path) -> None:
    files = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in dist.iterdir()}
    del files["SHA256SUMS"]
    assert checksums(dist) == files
    assert {path.name for path in CONTRACTS.glob("*.schema.json")} <= files.keys()


def test_time_of_a_build_does_not_change_the_bytes_of_its_release(dist: Path, tmp_path: Path) -> None:
    os.utime(BUILT_TEMPLATE.parent / "PublishOutcomeFunction" / "publish_outcome" / "handler.py", (0, 1_000_000_000))
    assert release(tmp_path).returncode == 0
    assert checksums(tmp_path) == checksums(dist)


def test_a_release_holds_every_file_of_the_build(dist: Path) -> None:
    for archive in dist.glob("*.zip"):
        built = BUILT_TEMPLATE.parent / archive.stem.partition("-")[0]
        with zipfile.ZipFile(archive) as opened:
            assert opened.testzip() is None
            assert set(opened.namelist()) == {
                path.relative_to(built).as_posix() for path in built.rglob("*") if path.is_file()
            }


def test_bill_of_materials_names_every_deployed_package(dist: Path) -> None:
    bill = json.loads((dist / "sbom.cdx.json").read_text())
    locked = re.findall(r"^([\w.-]+==[\w.]+)", (ROOT / "functions" / "requirements.txt").read_text(), re.MULTILINE)
    assert sorted(f"{one['name']}=={one['version']}" for one in bill["components"]) == sorted(locked)
    assert bill["metadata"]["component"]["name"] == "rtc-segment-stopper"


def test_a_tag_of_another_version_releases_nothing(tmp_path: Path) -> None:
    refused = release(tmp_path / "dist", "--tag", "v0.0.1")
    assert refused.returncode == 1
    assert "pyproject.toml needs the tag v" in refused.stderr
    assert not (tmp_path / "dist").exists()
