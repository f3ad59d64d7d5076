"""The dashboard of template.yaml, as a picture: what stands where, with the curves of a run in the sandbox."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET  # nosec B405 # it only writes

from cfnlint.decode import cfn_yaml

NAMESPACE = "RtcSegmentStopper"
NOTHING_OF_OURS = "published by AWS, not by the functions"
NONE, OF_AWS = "(none)", "(of AWS)"

_CELL_WIDTH, _CELL_HEIGHT, _GRID_COLUMNS = 44, 38, 24  # of CloudWatch's grid, in pixels
_HEADER, _GAP, _PADDING, _LINE = 52, 4, 14, 18
_LETTER, _BOLD_LETTER, _TITLE = 8, 9, 13  # wide enough for any font that a reader may have, and a title's size
_AXIS, _SMALL, _TIMES = 50, 11, 3  # the width of an axis' numbers, their size, how many times stand below
_COLORS = (  # CloudWatch's, in its order
    *("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd"),
    *("#8c564b", "#e377c2", "#7f7f7f", "#bcbd22", "#17becf"),
)
_INK, _PALE_INK, _FRAME, _GRID, _ALERT = "#16191f", "#545b64", "#c8ccd1", "#e6e8ea", "#d62728"

Values = Sequence[float | None]


@dataclass(frozen=True)
class Curve:
    """A metric in a widget.

    Parameters
    ----------
    values
        One a step of the run; none at all where there is nothing to draw.
    """

    name: str
    stat: str
    label: str
    color: str
    is_ours: bool
    values: Values = ()


@dataclass(frozen=True)
class _Plot:
    """Where the curves of a widget are drawn, and what its top stands for."""

    left: int
    right: int
    top: int
    bottom: int
    most: float

    def y(self, value: float) -> float:
        return round(self.bottom - (self.bottom - self.top) * value / self.most, 1)

    def x(self, step: int, steps: int) -> float:
        return round(self.left + (self.right - self.left) * step / max(1, steps - 1), 1)


def wanted(template: Path) -> list[tuple[str, str]]:
    """Name the metrics of ours that the dashboard shows, each with its statistic."""
    return [(curve.name, curve.stat) for widget in widgets(template) for curve in _curves(widget, {}) if curve.is_ours]


def draw(template: Path, run: Mapping[str, Any], story: str) -> str:
    """Give the picture of a template's dashboard, as SVG.

    Parameters
    ----------
    run
        What was measured: `series` by metric and statistic, of so many `seconds`, a value every `step_seconds`.
    story
        What happened meanwhile.
    """
    shown = widgets(template)
    width = _GRID_COLUMNS * _CELL_WIDTH
    height = _HEADER + _CELL_HEIGHT * max(widget["y"] + widget["height"] for widget in shown)
    svg = ET.Element(
        "svg",
        {
            "xmlns": "http://www.w3.org/2000/svg",
            "viewBox": f"0 0 {width} {height}",
            "font-family": "Helvetica, Arial, sans-serif",
            "font-size": "13",
        },
    )
    _rect(svg, 0, 0, width, height, fill="#f2f3f3")
    seconds, step = run["seconds"], run["step_seconds"]
    title = f"{seconds} seconds in the sandbox, a point every {step} seconds"
    known = f"{NONE}: it did not happen. {OF_AWS}: AWS measures it, not the functions"
    _text(svg, _PADDING, 22, f"{title}. {known}.", fill=_PALE_INK)
    _text(svg, _PADDING, 42, f"In this run {story}.", fill=_PALE_INK)
    for widget in shown:
        _draw_widget(svg, widget, run)
    ET.indent(svg, " ")
    return ET.tostring(svg, encoding="unicode") + "\n"


def widgets(template: Path) -> list[dict[str, Any]]:
    """Read the widgets of a template's dashboard; in their titles stand the parameters' defaults."""
    loaded = cfn_yaml.load(str(template))
    defaults = {name: str(one.get("Default", "")) for name, one in loaded["Parameters"].items()}
    body = re.sub(
        r"\$\{(\w+)\}",
        lambda named: defaults.get(named[1], named[0]),
        loaded["Resources"]["Dashboard"]["Properties"]["DashboardBody"]["Fn::Sub"],
    )
    read: list[dict[str, Any]] = json.loads(body)["widgets"]
    return read


def _curves(widget: Mapping[str, Any], series: Mapping[str, Any]) -> list[Curve]:
    properties = widget["properties"]
    curves = []
    has_ours = any(metric[0] == NAMESPACE for metric in properties["metrics"])
    for metric, color in zip(properties["metrics"], _COLORS, strict=False):
        namespace, name, options = metric[0], metric[1], _options(metric)
        stat = options.get("stat", properties["stat"])
        is_ours = namespace == NAMESPACE
        values = series[name][stat] if is_ours and series else ()
        label = _label(name, stat, properties["stat"], options)
        if series and has_ours and not values:
            label += f" {NONE if is_ours else OF_AWS}"
        curves.append(Curve(name, stat, label, color, is_ours, values))
    return curves


def _draw_widget(svg: ET.Element, widget: dict[str, Any], run: Mapping[str, Any]) -> None:
    width, height = widget["width"] * _CELL_WIDTH - _GAP, widget["height"] * _CELL_HEIGHT - _GAP
    x, y = widget["x"] * _CELL_WIDTH + _GAP // 2, _HEADER + widget["y"] * _CELL_HEIGHT
    group = ET.SubElement(svg, "g", {"transform": f"translate({x}, {y})"})
    properties, curves = widget["properties"], _curves(widget, run["series"])
    _rect(group, 0, 0, width, height, fill="#ffffff", stroke=_FRAME)
    _draw_title(group, properties["title"], width - 2 * _PADDING)
    _text(group, _PADDING, 40, _caption(properties, run["step_seconds"]), fill=_PALE_INK)
    legend_columns = max(1, width // (2 * _PADDING + _LETTER * max(len(curve.label) for curve in curves)))
    legend_top = height - 8 - _LINE * -(-len(curves) // legend_columns)
    _draw_plot(group, properties, curves, run, (_AXIS, width - _PADDING, 56, legend_top - 22))
    for number, curve in enumerate(curves):
        row, column = divmod(number, legend_columns)
        left, baseline = _PADDING + column * (width // legend_columns), legend_top + 13 + row * _LINE
        look = {"fill": curve.color} if curve.values else {"fill": "none", "stroke": curve.color}
        _rect(group, left, baseline - 10, 10, 10, **look)
        _text(group, left + 16, baseline, curve.label, fill=_INK if curve.values else _PALE_INK)


def _draw_title(group: ET.Element, title: str, width: int) -> None:
    size = min(_TITLE, _TITLE * width // (_BOLD_LETTER * len(title)))
    _text(group, _PADDING, 22, title, fill=_INK, font_weight="bold", font_size=f"{size}")


def _draw_plot(
    group: ET.Element,
    properties: Mapping[str, Any],
    curves: Sequence[Curve],
    run: Mapping[str, Any],
    sides: tuple[int, int, int, int],
) -> None:
    left, right, top, bottom = sides
    drawn = [curve for curve in curves if curve.values]
    if not drawn:
        _rect(group, left, top, right - left, bottom - top, fill="#fafafa", stroke=_GRID)
        middle = {"text_anchor": "middle", "fill": _PALE_INK}
        _text(group, (left + right) // 2, (top + bottom) // 2 + 4, NOTHING_OF_OURS, **middle)
        return
    # A sum over a step is as much smaller than CloudWatch's as the step is shorter.
    share = run["step_seconds"] / properties["period"]
    thresholds = properties.get("annotations", {}).get("horizontal", [])
    heights = list(_stacked(drawn)) if properties.get("stacked") else [curve.values for curve in drawn]
    highest = [value for values in heights for value in values if value is not None]
    plot = _Plot(*sides, _nice(max([*highest, *(one["value"] * share for one in thresholds)])))
    _draw_axes(group, plot, run["seconds"])
    for threshold in thresholds:
        y = round(plot.y(threshold["value"] * share))
        _line(group, y, left, right, stroke=_ALERT, stroke_dasharray="6, 4")
        label = f"{threshold['label']}: {threshold['value']:,}"
        _text(group, right, y - 5, label, fill=_ALERT, text_anchor="end", font_size=str(_SMALL))
    below: Values = [0] * len(heights[0])
    for curve, values in zip(drawn, heights, strict=True):
        if properties.get("stacked"):
            _draw_area(group, plot, curve, below, values)
            below = values
        else:
            _draw_line(group, plot, curve)


def _stacked(curves: Sequence[Curve]) -> Iterator[Values]:
    """Give the upper edges of areas that stand on each other."""
    edge: Values = [0] * len(curves[0].values)
    for curve in curves:
        edge = [(below or 0) + (value or 0) for below, value in zip(edge, curve.values, strict=True)]
        yield edge


def _nice(most: float) -> float:
    """Round up to a digit and zeros."""
    power: float = 10 ** math.floor(math.log10(max(most, 1)))
    return next(factor * power for factor in range(1, 11) if factor * power >= most)


def _draw_axes(group: ET.Element, plot: _Plot, seconds: int) -> None:
    small = {"fill": _PALE_INK, "font_size": str(_SMALL)}
    for share in (1, 0.5, 0):
        y = round(plot.y(plot.most * share))
        _line(group, y, plot.left, plot.right, stroke=_GRID)
        _text(group, plot.left - 6, y + 4, f"{plot.most * share:,g}", text_anchor="end", **small)
    for number in range(_TIMES + 1):
        x, anchor = plot.x(number, _TIMES + 1), {0: "start", _TIMES: "end"}.get(number, "middle")
        _text(group, round(x), plot.bottom + 14, f"{seconds * number // _TIMES} s", text_anchor=anchor, **small)


def _draw_line(group: ET.Element, plot: _Plot, curve: Curve) -> None:
    points = list(_points(plot, curve.values))
    look = {"fill": "none", "stroke": curve.color, "stroke-width": "1.5", "stroke-linejoin": "round"}
    line = ET.SubElement(group, "polyline", {"points": _joined(points)} | look)
    ET.SubElement(line, "title").text = curve.label
    if 2 * len(points) < len(curve.values):
        for x, y in points:  # what comes seldom
            ET.SubElement(group, "circle", {"cx": f"{x:g}", "cy": f"{y:g}", "r": "2.5", "fill": curve.color})


def _draw_area(group: ET.Element, plot: _Plot, curve: Curve, below: Values, above: Values) -> None:
    points = [*_points(plot, above), *reversed(list(_points(plot, below)))]
    area = ET.SubElement(group, "polygon", {"points": _joined(points), "fill": curve.color, "fill-opacity": "0.8"})
    ET.SubElement(area, "title").text = curve.label


def _points(plot: _Plot, values: Values) -> Iterator[tuple[float, float]]:
    for step, value in enumerate(values):
        if value is not None:
            yield plot.x(step, len(values)), plot.y(value)


def _joined(points: Iterable[tuple[float, float]]) -> str:
    return " ".join(f"{x:g},{y:g}" for x, y in points)


def _caption(properties: Mapping[str, Any], step_seconds: int) -> str:
    own = all("stat" in _options(metric) for metric in properties["metrics"])
    stat = "" if own else f"{properties['stat'].lower()}, "
    return f"{stat}every {properties['period']} seconds (here {step_seconds})" + (
        ", stacked" if properties.get("stacked") else ""
    )


def _label(name: str, stat: str, widget_stat: str, options: Mapping[str, str]) -> str:
    plain = name if stat == widget_stat else f"{name}, {stat.lower()}"
    return options.get("label", plain) + (" (right axis)" if options.get("yAxis") == "right" else "")


def _options(metric: Sequence[Any]) -> dict[str, str]:
    return metric[-1] if isinstance(metric[-1], dict) else {}


def _rect(parent: ET.Element, x: int, y: int, width: int, height: int, **look: str) -> None:
    ET.SubElement(parent, "rect", {"x": f"{x}", "y": f"{y}", "width": f"{width}", "height": f"{height}"} | look)


def _line(parent: ET.Element, y: int, left: int, right: int, **look: str) -> None:
    ends = {"x1": f"{left}", "x2": f"{right}", "y1": f"{y}", "y2": f"{y}"}
    ET.SubElement(parent, "line", ends | _attributes(look))


def _text(parent: ET.Element, x: int, y: int, text: str, **look: str) -> None:
    ET.SubElement(parent, "text", {"x": f"{x}", "y": f"{y}"} | _attributes(look)).text = text


def _attributes(look: Mapping[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in look.items()}
