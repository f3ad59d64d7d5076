"""The pictures in docs/ ask no server for anything, and the dashboard's is up to date.

That the demo's picture is what the demo prints, is seen where the demo runs: tests/e2e/test_demo.py.
"""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from benchmarks.charts import draw_cost, draw_drain
from sandbox import dashboard_picture, dashboard_run, pictures
from sandbox.dashboard_picture import NONE, NOTHING_OF_OURS, OF_AWS
from sandbox.stack import ROOT

DASHBOARD = ROOT / "docs" / "dashboard.svg"
RUN = json.loads(pictures.RUN.read_text())
# Nobody observes only, nothing fails for an hour, and no message is tried until then.
NEVER_IN_A_RUN = {"WouldStop", "Exhausted"}


def parts_of_the_dashboard(tag: str) -> list[ET.Element]:
    return list(ET.parse(DASHBOARD).getroot().iter(f"{{http://www.w3.org/2000/svg}}{tag}"))  # noqa: S314 (ours)


def a_line(time_ms: int, **metrics: list[float]) -> dict[str, Any]:
    directive = {
        "Namespace": dashboard_picture.NAMESPACE,
        "Dimensions": [["service"]],
        "Metrics": [{"Name": name} for name in metrics],
    }
    return {"_aws": {"Timestamp": time_ms, "CloudWatchMetrics": [directive]}, "service": "a stack", **metrics}


def test_the_dashboard_s_picture_is_what_the_template_says_and_the_run_measured() -> None:
    assert DASHBOARD.read_text() == pictures.draw_dashboard(), "run `make pictures`"


def test_every_metric_on_the_dashboard_has_a_curve_or_says_why_not() -> None:
    wanted = dashboard_picture.wanted(pictures.TEMPLATE)
    assert {name for name, stat in wanted if not RUN["series"][name][stat]} <= NEVER_IN_A_RUN
    labels = Counter(text.text or "" for text in parts_of_the_dashboard("text"))
    drawn = Counter(title.text or "" for title in parts_of_the_dashboard("title"))
    none = Counter({label: count for label, count in labels.items() if label.endswith(f" {NONE}")})
    assert drawn <= labels
    assert drawn.total() + none.total() == len(wanted)
    for widget in dashboard_picture.widgets(pictures.TEMPLATE):
        of_aws = [name for space, name, *_ in widget["properties"]["metrics"] if space != dashboard_picture.NAMESPACE]
        is_alone = len(of_aws) == len(widget["properties"]["metrics"])
        assert is_alone or all(labels[f"{name} {OF_AWS}"] for name in of_aws)
        labels[NOTHING_OF_OURS] -= is_alone
    assert labels[NOTHING_OF_OURS] == 0


def test_a_curve_is_seen() -> None:
    for curve in [*parts_of_the_dashboard("polyline"), *parts_of_the_dashboard("polygon")]:
        assert len(curve.attrib["points"].split()) > 1, ET.tostring(curve)
    heights = [
        {point.partition(",")[2] for point in curve.attrib["points"].split()}
        for curve in parts_of_the_dashboard("polyline")
    ]
    assert sum(len(ys) > 2 for ys in heights) > len(heights) / 2


def test_a_series_has_a_value_a_step_and_nothing_where_nothing_was_measured() -> None:
    step_ms = dashboard_run.STEP_SECONDS * 1000
    lines = [
        a_line(1000, Stopped=[1, 1], TimeToStop=[10, 30]),
        a_line(1000 + step_ms - 1, Stopped=[1]),
        a_line(1000 + 2 * step_ms, TimeToStop=[50]),
        {"message": "no metric"},
    ]
    wanted = [("Stopped", "Sum"), ("TimeToStop", "p50"), ("TimeToStop", "SampleCount"), ("Exhausted", "Sum")]
    series = dashboard_run.series(lines, 1000, wanted)
    assert {name: {stat: values[:4] for stat, values in stats.items()} for name, stats in series.items()} == {
        "Stopped": {"Sum": [3, 0, 0, 0]},
        "TimeToStop": {"p50": [10, None, 50, None], "SampleCount": [2, 0, 1, 0]},
        "Exhausted": {"Sum": []},
    }
    assert len(series["Stopped"]["Sum"]) == dashboard_run.SECONDS // dashboard_run.STEP_SECONDS


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
