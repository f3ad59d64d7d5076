"""make reports bad settings in one sentence, before it does anything."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["make", *arguments]  # the first `make` on the PATH
    # As in a user's shell: `make test` hands its own settings down to the tests.
    own = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
    return subprocess.run(command, cwd=ROOT, env=own, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("config", ["typo", "", "default.deploy", "sandbox"])
def test_deploy_refuses_a_config_without_settings_and_lists_the_others(config: str) -> None:
    done = make("deploy", f"CONFIG={config}")
    assert (done.returncode, done.stdout) == (2, "")
    assert f"no settings for CONFIG={config}, only for: default prod\n" in done.stderr


def test_build_refuses_a_python_that_is_too_old(tmp_path: Path) -> None:
    old = tmp_path / "python3"
    program = "import sys; sys.version_info = (3, 10, 13); exec(sys.argv[1])"
    old.write_text(f"#!/bin/sh\nexec '{sys.executable}' -c '{program}' \"$2\"\n")
    old.chmod(0o755)
    done = make("build", f"PYTHON={old}", f"VENV={tmp_path / 'venv'}")
    assert (done.returncode, done.stdout) == (2, "")
    assert f"This needs Python 3.11 or newer, and {old} is 3.10." in done.stderr
    assert not (tmp_path / "venv").exists()
