"""The charts that docs/performance.md shows, drawn from the results."""

from __future__ import annotations

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
    "pretty_print": True,
    "disable_xml_declaration": True,
    "no_prefix": True,
}


def draw_drain(results: dict[str, Any], path: Path) -> None:
    """Draw the API's requests in every sliding second while a queue is drained, and the limit."""
    product, peer = results["product"], results["peer"]
    seconds = product["windows"][-1][0]
    chart = pygal.XY(
        **_COMMON,
        height=420,
        title=f"Requests at the RTC API in the last second, draining {product['stops']:,} stops",
        x_title="seconds",
        show_dots=False,
        range=(0, LIMIT + 30),
        xrange=(0, seconds),
        stroke_style={"width": 2},
        x_value_formatter=lambda value: f"{value:.0f}",
        value_formatter=lambda value: f"{value:.0f}",
    )
    chart.add("this product", product["windows"])
    chart.add("the peer", [point for point in peer["windows"] if point[0] <= seconds])
    chart.add("the API's limit", [(0, LIMIT), (seconds, LIMIT)], stroke_style={"width": 2, "dasharray": "8, 5"})
    _write(chart, path)


def draw_cost(results: dict[str, Any], path: Path) -> None:
    """Draw what the peer and the product spend for the same work, in shares of the peer's."""
    drain, duplicates, storm = (results[name] for name in ("drain", "duplicates", "storm"))
    rows = [
        ("function-seconds, stops", drain, "function_seconds"),
        ("write units, stops", drain, "write_units"),
        ("write units, 80 % duplicates", duplicates, "write_units"),
        ("function-seconds, 80 % duplicates", duplicates, "function_seconds"),
        ("write units, a storm", storm, "write_units"),
        ("API requests, a storm", storm, "api_requests"),
    ]
    spent = [
        (f"{label}: {number(_per_1000(load, 'product', key))} : {number(_per_1000(load, 'peer', key))}", load, key)
        for label, load, key in rows
    ]
    chart = pygal.HorizontalBar(
        **_COMMON,
        height=520,
        title="What 1,000 messages cost, in % of what the peer spends",
        value_formatter=lambda value: f"{value:.0f} %",
        print_values=True,
        range=(0, 100),
        truncate_label=-1,
    )
    chart.x_labels = [label for label, _, _ in reversed(spent)]
    chart.add(
        "this product",
        [100 * _per_1000(load, "product", key) / _per_1000(load, "peer", key) for _, load, key in reversed(spent)],
    )
    chart.add("the peer", [100] * len(spent))
    _write(chart, path)


def _write(chart: Any, path: Path) -> None:
    # pygal writes its settings into the picture as a script, for its own: a picture in a page runs none.
    path.write_text(re.sub(r"<script.*?</script>", "", chart.render(is_unicode=True), flags=re.DOTALL) + "\n")


def _per_1000(load: dict[str, Any], name: str, key: str) -> float:
    return float(load[name][f"{key}_per_1000"])
