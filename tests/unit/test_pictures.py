"""The pictures in docs/ show what is, and ask no server for anything."""

import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from sandbox import dashboard_picture, demo

DOCS = Path(__file__).parents[2] / "docs"
PICTURES = sorted(DOCS.glob("**/*.svg"))


def read(picture: Path) -> ET.Element:
    return ET.parse(picture).getroot()  # noqa: S314 (the repository's own files)


def words(picture: Path) -> str:
    """Give all text of a picture, with plain spaces."""
    lines = ["".join(text.itertext()) for text in read(picture).iter("{http://www.w3.org/2000/svg}text")]
    return "\n".join(lines).replace("\N{NO-BREAK SPACE}", " ")


def test_the_dashboard_s_picture_is_what_the_template_says() -> None:
    drawn = dashboard_picture.draw(DOCS.parent / "template.yaml")
    assert (DOCS / "dashboard.svg").read_text() == drawn, "run `make pictures`"


def test_the_demo_s_picture_shows_how_every_sample_ends() -> None:
    shown = re.sub(r"[^\w-]+", " ", words(DOCS / "demo.svg"))
    scenes = (*demo.FIRST, *demo.THEN)
    rows = [rf" {scene.sample[:20]}\S* {scene.end.split()[0]} " for scene in scenes]  # a longer name is wrapped
    assert re.search(".*".join(rows), shown), "run `make pictures`"


def test_the_demo_s_picture_holds_nothing_that_is_different_at_each_run() -> None:
    assert not re.search(r"127\.0\.0\.1|localhost|/tmp|\d\d:\d\d|20\d\d-\d\d", words(DOCS / "demo.svg"))


@pytest.mark.parametrize("picture", PICTURES, ids=lambda picture: picture.name)
def test_a_picture_asks_no_server_for_anything(picture: Path) -> None:
    parts = list(read(picture).iter())  # namespaces and comments are not among them
    assert not [part.tag for part in parts if part.tag.endswith("}script")]
    texts = [text for part in parts for text in (*part.attrib.values(), part.text or "")]
    assert not [text for text in texts if re.search(r"//|@import|url\((?!#)", text)]
