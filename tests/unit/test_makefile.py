"""make reports bad settings in one sentence, before it does anything."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["make", *arguments]  # whichever make the reader has
    # As a reader's shell calls it: by itself, and not as a part of the `make test` that this may run in.
    own = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
    return subprocess.run(command, cwd=ROOT, env=own, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("config", ["typo", "", "default.deploy", "sandbox"])
def test_a_deployment_with_settings_that_are_not_there_is_refused_with_those_that_are(config: str) -> None:
    done = make("deploy", f"CONFIG={config}")
    assert (done.returncode, done.stdout) == (2, "")
    assert f"no settings for CONFIG={config}, only for: default prod\n" in done.stderr


def test_a_python_that_is_too_old_is_refused_with_what_is_needed(tmp_path: Path) -> None:
    old = tmp_path / "python3"
    tell = "import sys; sys.version_info = (3, 10, 13); exec(sys.argv[1])"
    old.write_text(f"#!/bin/sh\nexec '{sys.executable}' -c '{tell}' \"$2\"\n")
    old.chmod(0o755)
    done = make("build", f"PYTHON={old}", f"VENV={tmp_path / 'venv'}")
    assert (done.returncode, done.stdout) == (2, "")
    assert f"This needs Python 3.11 or newer, and {old} is 3.10." in done.stderr
    assert not (tmp_path / "venv").exists()
