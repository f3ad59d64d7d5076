"""The workflows of the code host run only make targets that exist, on Python versions that the project supports."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from cfnlint.decode import cfn_yaml

ROOT = Path(__file__).parents[2]
WORKFLOWS = {path.stem: yaml.safe_load(path.read_text()) for path in sorted(ROOT.glob(".github/workflows/*.yml"))}
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def steps(workflow: dict[str, Any]) -> list[dict[str, Any]]:
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_workflow_runs_commands_that_exist(name: str) -> None:
    ours = [step["run"] for step in steps(WORKFLOWS[name]) if re.match(r"make |\.ci/", step.get("run", ""))]
    assert ours
    for command in ours:
        made = re.match(r"make ([a-z./-]+)", command)
        assert made[1] in {*TARGETS, ".venv/.installed"} if made else (ROOT / command).exists(), command


def test_checks_run_on_every_supported_python_and_on_the_runtime_s() -> None:
    versions = WORKFLOWS["check"]["jobs"]["check"]["strategy"]["matrix"]["python"]
    oldest = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"].removeprefix(">=")
    assert versions[0] == oldest
    assert [f"3.{int(oldest.removeprefix('3.')) + step}" for step in range(len(versions))] == versions
    runtime = cfn_yaml.load(str(ROOT / "template.yaml"))["Globals"]["Function"]["Runtime"].removeprefix("python")
    assert runtime in versions
    assert all(
        runtime in step["with"]["python-version"]
        for workflow in WORKFLOWS.values()
        for step in steps(workflow)
        if step.get("uses", "").startswith("actions/setup-python@")
    )


def test_dependabot_reads_the_folder_of_every_lock() -> None:
    locks = re.findall(r"--output-file (\S+)", (ROOT / "Makefile").read_text())
    assert locks
    assert all((ROOT / lock).exists() for lock in locks)
    (pip,) = (
        update
        for update in yaml.safe_load((ROOT / ".github" / "dependabot.yml").read_text())["updates"]
        if update["package-ecosystem"] == "pip"
    )
    assert set(pip["directories"]) == {f"/{Path(lock).parent}" for lock in locks}
