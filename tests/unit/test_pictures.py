"""The pictures in docs/ ask no server for anything, and the dashboard's is up to date.

That the demo's picture is what the demo prints, is seen where the demo runs: tests/e2e/test_demo.py.
"""

import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

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
