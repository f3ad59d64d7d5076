"""The chart that docs/performance.md shows, drawn from the results."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import pygal  # type: ignore[import-untyped]
from pygal.style import Style  # type: ignore[import-untyped]

LIMIT = 150
_STYLE = Style(
    background="#ffffff",
    plot_background="#ffffff",
    colors=("#1f6feb", "#d4822a", "#c93c37"),
    opacity=".9",
    guide_stroke_color="#dddddd",
    major_guide_stroke_color="#dddddd",
    font_family="Helvetica, Arial, sans-serif",
    title_font_size=18,
    label_font_size=12,
    major_label_font_size=12,
    legend_font_size=13,
)


def draw_drain(results: dict[str, Any], path: Path) -> None:
    """Draw the API requests in each sliding second by the processed share of the queue, beside the API's limit."""
    chart = pygal.XY(
        style=_STYLE,
        js=(),
        width=900,
        height=420,
        title="Stops per second while a full queue drains",
        x_title="share of the queue that is processed",
        legend_at_bottom=True,
        show_dots=False,
        range=(0, LIMIT + 30),
        xrange=(0, 100),
        stroke_style={"width": 2},
        x_value_formatter=lambda value: f"{value:.0f} %",
        value_formatter=lambda value: f"{value:.0f}",
        disable_xml_declaration=True,
    )
    # The queues have different lengths: on an axis of time, the shorter queue would seem to be faster.
    for name, label in (("product", "this product"), ("peer", "the peer")):
        chart.add(f"{label}, {results[name]['stops']:,} stops", _over_share_done(results[name]["windows"]))
    chart.add("the API's limit", [(0, LIMIT), (100, LIMIT)], stroke_style={"width": 2, "dasharray": "8, 5"})
    chart.uuid = path.stem  # otherwise the id is random in each drawing
    # pygal writes its settings into the picture as a script, which a picture in a page does not run.
    path.write_text(re.sub(r"<script.*?</script>", "", chart.render(is_unicode=True), flags=re.DOTALL) + "\n")


def _over_share_done(windows: list[int]) -> list[tuple[float, int]]:
    """Return points of a curve: the processed share of the queue in percent, and the requests in the last second."""
    done = list(itertools.accumulate(windows))
    return [(100 * so_far / done[-1], count) for so_far, count in zip(done, windows, strict=True)]
