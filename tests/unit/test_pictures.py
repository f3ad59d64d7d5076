"""The pictures in docs/ ask no server for anything.

tests/e2e/test_demo.py checks that the demo's picture shows the demo's output.
"""

import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from sandbox.stack import ROOT


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
