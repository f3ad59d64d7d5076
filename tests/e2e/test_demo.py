"""The demo is a test itself: it tells by its exit code whether every sample ended as it should."""

import subprocess
import sys

from sandbox import demo
from sandbox.stack import ROOT


def test_demo_shows_every_sample_and_each_ends_as_it_says() -> None:
    shown = {scene.sample for scene in (*demo.FIRST, *demo.THEN)}
    assert shown == {path.stem for path in (ROOT / "events").glob("*.json")}
    done = subprocess.run([sys.executable, "-m", "sandbox.demo"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Everything ended as it should." in done.stdout
