"""examples/cdk synthesizes the resources of a release's template."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from sandbox.stack import ROOT

CODE = {"bucket": "releases", "folder": "stopper/"}


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    if not (shutil.which("node") and shutil.which("npm")):
        pytest.skip("CDK runs in Node, which this machine does not have")
    app = shutil.copytree(ROOT / "examples" / "cdk", tmp_path / "cdk", ignore=shutil.ignore_patterns("node_modules"))
    command = [str(shutil.which("npm")), "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    done = subprocess.run(command, cwd=app, capture_output=True, text=True, check=False)
    if done.returncode and "E404" not in done.stderr and "EINTEGRITY" not in done.stderr:
        pytest.skip(f"the registry does not deliver aws-cdk-lib: {done.stderr.strip().splitlines()[0]}")
    assert done.returncode == 0, done.stderr
    return app


def resources(template: dict[str, Any]) -> Any:
    """Return the resources with DependsOn in one form, as a sorted list."""
    for resource in template["Resources"].values():
        depends = resource.pop("DependsOn", [])
        resource["DependsOn"] = sorted([depends] if isinstance(depends, str) else depends)
    return template["Resources"]


@pytest.mark.long
def test_cdk_example_synthesizes_the_released_resources(tmp_path: Path, installed: Path, dist: Path) -> None:
    template = dist / "cloudformation.json"
    context = json.dumps(CODE | {"template": str(template)})
    environment = os.environ | {"CDK_OUTDIR": str(tmp_path / "out"), "CDK_CONTEXT_JSON": context}
    done = subprocess.run(
        [str(shutil.which("node")), "app.mjs"],
        cwd=installed,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr

    (synthesized,) = (tmp_path / "out").glob("*.template.json")
    text = template.read_text().replace('{\n            "Ref": "CodeBucket"\n          }', f'"{CODE["bucket"]}"')
    expected = json.loads(text.replace("${CodePrefix}", CODE["folder"]))
    found = json.loads(synthesized.read_text())
    assert resources(found) == resources(expected)
    assert set(expected["Parameters"]) - set(found["Parameters"]) == {"CodeBucket", "CodePrefix"}
    assert found["Conditions"] == expected["Conditions"]
    assert found["Outputs"].keys() == expected["Outputs"].keys() | {"QueueForSenders"}
