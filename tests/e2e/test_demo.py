"""The demo checks itself: its exit code says whether every sample had its expected outcome."""

import os
import re
import signal
import subprocess
import sys
from collections import Counter
from xml.etree import ElementTree as ET

import pytest

from sandbox import demo
from sandbox.program import INTERRUPTED
from sandbox.stack import ROOT
from tests.environments import OF_A_SHELL

COMMAND = [sys.executable, "-m", "sandbox.demo"]


def words(text: str) -> Counter[str]:
    """Count the words of a text in any layout. A broken word counts as two."""
    return Counter(re.findall(r"\w+", text))


@pytest.fixture(scope="module")
def printed() -> str:
    """Return the output of the demo, in 80 columns and from a shell that is set up for another AWS."""
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"} | OF_A_SHELL
    done = subprocess.run(COMMAND, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_demo_shows_every_sample_with_its_expected_outcome(printed: str) -> None:
    shown = {scene.sample for scene in (*demo.FIRST, *demo.THEN)}
    assert shown == {path.stem for path in (ROOT / "events").glob("*.json")}
    assert all(f"\n{sample} " in printed for sample in shown)
    assert "Everything ended as it should." in printed


def test_demo_fits_into_80_columns_without_breaking_a_word(printed: str) -> None:
    assert max(map(len, printed.splitlines())) <= 80
    assert "\N{HORIZONTAL ELLIPSIS}" not in printed
    assert words(" ".join(scene.end for scene in (*demo.FIRST, *demo.THEN))) <= words(printed)


def test_picture_of_the_demo_shows_its_output(printed: str) -> None:
    svg = ET.parse(ROOT / "docs" / "demo.svg")  # noqa: S314 (the repository's own)
    title, *runs = ["".join(text.itertext()) for text in svg.iter("{http://www.w3.org/2000/svg}text")]
    assert title.split() == ["make", "demo"]
    assert words(" ".join(runs)) <= words(printed), "run `make pictures`"
    assert demo.THEN[-1].sample in "".join(runs)


def test_ctrl_c_ends_the_demo_with_a_message() -> None:
    with subprocess.Popen(COMMAND, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline().startswith("Starting an AWS")
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (INTERRUPTED, "\nInterrupted. Nothing is left running.\n")
