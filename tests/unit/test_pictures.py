"""The pictures in docs/ ask no server for anything.

tests/e2e/test_demo.py checks that the demo's picture shows the demo's output.
"""

import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from sandbox.stack import ROOT


@pytest.mark.parametrize("picture", sorted(ROOT.glob("docs/**/*.svg")), ids=lambda picture: picture.name)
def test_a_picture_asks_no_server_and_has_no_empty_selector(picture: Path) -> None:
    parts = list(ET.parse(picture).getroot().iter())  # noqa: S314 (ours); no namespaces, no comments are among them
    assert not [part.tag for part in parts if part.tag.endswith("}script")]
    without_comments = [re.sub(r"/\*.*?\*/", "", part.text or "", flags=re.S) for part in parts]
    texts = [*without_comments, *(value for part in parts for value in part.attrib.values())]
    assert not [text for text in texts if re.search(r"//|@import|url\((?!#)", text)]
    # Strict renderers fail on a rule of a style that has no selector.
    styles = [text for part, text in zip(parts, without_comments, strict=True) if part.tag.endswith("}style")]
    assert all(selector.strip() for style in styles for selector in re.findall(r"([^{}]*)\{", style))
