"""The charts that docs/performance.md shows, drawn from the results."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import pygal  # type: ignore[import-untyped]
from pygal.style import Style  # type: ignore[import-untyped]

from benchmarks.report import number

LIMIT = 150
_PRODUCT, _PEER, _LIMIT = "#1f6feb", "#d4822a", "#c93c37"
_STYLE = Style(
    background="#ffffff",
    plot_background="#ffffff",
    colors=(_PRODUCT, _PEER, _LIMIT),
    opacity=".9",
    guide_stroke_color="#dddddd",
    major_guide_stroke_color="#dddddd",
    font_family="Helvetica, Arial, sans-serif",
    title_font_size=18,
    label_font_size=12,
    major_label_font_size=12,
    legend_font_size=13,
    value_font_size=12,
    value_label_font_size=12,
)
_COMMON: dict[str, Any] = {
    "style": _STYLE,
    "js": (),
    "width": 900,
    "legend_at_bottom": True,
    "disable_xml_declaration": True,
}


def draw_drain(results: dict[str, Any], path: Path) -> None:
    """Draw the API's requests in every sliding second over the share of a queue that is drained, and the limit."""
    chart = pygal.XY(
        **_COMMON,
        height=420,
        title="Stops per second while a full queue drains",
        x_title="share of the queue that is processed",
        show_dots=False,
        range=(0, LIMIT + 30),
        xrange=(0, 100),
        stroke_style={"width": 2},
        x_value_formatter=lambda value: f"{value:.0f} %",
        value_formatter=lambda value: f"{value:.0f}",
    )
    # The two had queues of unlike lengths: over the time, the one with fewer stops would seem to be done first.
    for name, label in (("product", "this product"), ("peer", "the peer")):
        chart.add(f"{label}, {results[name]['stops']:,} stops", _over_share_done(results[name]["windows"]))
    chart.add("the API's limit", [(0, LIMIT), (100, LIMIT)], stroke_style={"width": 2, "dasharray": "8, 5"})
    _write(chart, path)


def _over_share_done(windows: list[int]) -> list[tuple[float, int]]:
    """Return how many requests came in the second before each moment, over the share that was done then, in %."""
    done = list(itertools.accumulate(windows))
    return [(100 * so_far / done[-1], count) for so_far, count in zip(done, windows, strict=True)]


def draw_cost(results: dict[str, Any], path: Path) -> None:
    """Draw what the product spends for the same work, relative to the peer."""
    drain, duplicates, storm = (results[name] for name in ("drain", "duplicates", "storm"))
    stops = {name: results["spending"][name]["stops"] for name in ("product", "peer")}
    rows = [
        ("stops: function-seconds", drain, "function_seconds"),
        ("stops: table writes", stops, "write_units"),
        ("80 % duplicates: function-seconds", duplicates, "function_seconds"),
        ("80 % duplicates: table writes", duplicates, "write_units"),
        ("100 events a room: table writes", storm, "write_units"),
        ("100 events a room: API requests", storm, "api_requests"),
    ]
    chart = pygal.HorizontalBar(
        **_COMMON,
        height=480,
        title="Cost per 1,000 messages, relative to a plain implementation (100 %)",
        value_formatter=lambda value: f"{value:.0f} %",
        range=(0, 100),
        truncate_label=-1,
        spacing=10,
    )
    spent = [(label, _per_1000(load, "product", key), _per_1000(load, "peer", key)) for label, load, key in rows]
    chart.x_labels = [f"{label}, {number(ours)} of {number(theirs)}" for label, ours, theirs in reversed(spent)]
    chart.add("this product", [100 * ours / theirs for _, ours, theirs in reversed(spent)])
    chart.add("the plain implementation", [100 for _ in spent])
    _write(chart, path)


def _write(chart: Any, path: Path) -> None:
    chart.uuid = path.stem  # else it is another at each drawing
    # pygal writes its settings into the picture as a script: a picture in a page runs none.
    path.write_text(re.sub(r"<script.*?</script>", "", chart.render(is_unicode=True), flags=re.DOTALL) + "\n")


def _per_1000(load: dict[str, Any], name: str, key: str) -> float:
    return float(load[name][f"{key}_per_1000"])
