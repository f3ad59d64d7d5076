"""The pictures in docs/ ask no server for anything, and the dashboard's is up to date.

That the demo's picture is what the demo prints, is seen where the demo runs: tests/e2e/test_demo.py.
"""

import json
import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from benchmarks.charts import draw_cost, draw_drain
from sandbox import dashboard_picture
from sandbox.stack import ROOT


def test_the_dashboard_s_picture_is_what_the_template_says() -> None:
    drawn = dashboard_picture.draw(ROOT / "template.yaml")
    assert (ROOT / "docs" / "dashboard.svg").read_text() == drawn, "run `make pictures`"


@pytest.mark.parametrize("picture", sorted(ROOT.glob("docs/**/*.svg")), ids=lambda picture: picture.name)
def test_a_picture_asks_no_server_for_anything(picture: Path) -> None:
    parts = list(ET.parse(picture).getroot().iter())  # noqa: S314 (ours); no namespaces, no comments are among them
    assert not [part.tag for part in parts if part.tag.endswith("}script")]
    texts = [
        text
        for part in parts
        for text in (*part.attrib.values(), re.sub(r"/\*.*?\*/", "", part.text or "", flags=re.S))
    ]
    assert not [text for text in texts if re.search(r"//|@import|url\((?!#)", text)]


@pytest.mark.parametrize("picture", sorted(ROOT.glob("docs/**/*.svg")), ids=lambda picture: picture.name)
def test_every_rule_of_a_picture_s_style_says_what_it_is_for(picture: Path) -> None:
    styles = [part.text or "" for part in ET.parse(picture).getroot().iter() if part.tag.endswith("}style")]  # noqa: S314 (ours)
    selectors = re.findall(r"([^{}]*)\{", re.sub(r"/\*.*?\*/", "", "".join(styles), flags=re.S))
    assert all(selector.strip() for selector in selectors)


def test_the_charts_are_what_was_measured(tmp_path: Path) -> None:
    results = json.loads((ROOT / "benchmarks" / "results.json").read_text())
    draw_drain(results["drain"], tmp_path / "bench-drain.svg")
    draw_cost(results, tmp_path / "bench-cost.svg")
    for path in tmp_path.iterdir():
        drawn, kept = (re.sub(r"<!--.*?-->", "", one.read_text()) for one in (path, ROOT / "docs" / path.name))
        assert drawn == kept, f"draw docs/{path.name} again"
