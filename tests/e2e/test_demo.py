"""The demo is a test itself: it tells by its exit code whether every sample ended as it should."""

import os
import subprocess
import sys
from xml.etree import ElementTree as ET

import pytest

from sandbox import demo, pictures
from sandbox.stack import ROOT


@pytest.fixture(scope="module")
def printed() -> str:
    """Run the demo, in a terminal as wide as its picture, and give what it prints."""
    wide = os.environ | {"COLUMNS": str(pictures.COLUMNS)}
    done = subprocess.run(
        [sys.executable, "-m", "sandbox.demo"], cwd=ROOT, env=wide, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_demo_shows_every_sample_and_each_ends_as_it_says(printed: str) -> None:
    shown = {scene.sample for scene in (*demo.FIRST, *demo.THEN)}
    assert shown == {path.stem for path in (ROOT / "events").glob("*.json")}
    assert "Everything ended as it should." in printed


def test_the_picture_of_the_demo_shows_what_it_prints(printed: str) -> None:
    svg = ET.parse(ROOT / "docs" / "demo.svg")  # noqa: S314 (the repository's own)
    title, *lines = ["".join(text.itertext()) for text in svg.iter("{http://www.w3.org/2000/svg}text")]
    assert "".join("".join(lines).split()) in "".join(printed.split()), "run `make pictures`"
    assert title.split() == ["make", "demo"]
    assert demo.THEN[-1].sample in "".join(lines)
