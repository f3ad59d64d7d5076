"""The layout of the dashboard in template.yaml, as a picture: what stands where, without curves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET  # nosec B405 # it only writes

from cfnlint.decode import cfn_yaml

_CELL_WIDTH, _CELL_HEIGHT, _GRID_COLUMNS = 44, 30, 24  # of CloudWatch's grid, in pixels
_HEADER, _GAP, _PADDING, _LINE = 36, 4, 14, 18
_LETTER = 8  # wide enough for any font that a reader may have
_COLORS = ("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2")  # CloudWatch's, in its order
_INK, _PALE_INK, _FRAME, _GRID, _ALERT = "#16191f", "#545b64", "#c8ccd1", "#e6e8ea", "#d62728"


def draw(template: Path) -> str:
    """Give the picture of a template's dashboard, as SVG."""
    body = cfn_yaml.load(str(template))["Resources"]["Dashboard"]["Properties"]["DashboardBody"]["Fn::Sub"]
    widgets = json.loads(body)["widgets"]
    width = _GRID_COLUMNS * _CELL_WIDTH
    height = _HEADER + _CELL_HEIGHT * max(widget["y"] + widget["height"] for widget in widgets)
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
    _text(svg, _PADDING, 24, "The dashboard's layout: what each widget shows, without measured values", fill=_PALE_INK)
    for widget in widgets:
        _draw_widget(svg, widget)
    ET.indent(svg, " ")
    return ET.tostring(svg, encoding="unicode") + "\n"


def _draw_widget(svg: ET.Element, widget: dict[str, Any]) -> None:
    width, height = widget["width"] * _CELL_WIDTH - _GAP, widget["height"] * _CELL_HEIGHT - _GAP
    x, y = widget["x"] * _CELL_WIDTH + _GAP // 2, _HEADER + widget["y"] * _CELL_HEIGHT
    group = ET.SubElement(svg, "g", {"transform": f"translate({x}, {y})"})
    properties = widget["properties"]
    _rect(group, 0, 0, width, height, fill="#ffffff", stroke=_FRAME)
    _text(group, _PADDING, 22, properties["title"], fill=_INK, font_weight="bold")
    _text(group, _PADDING, 40, _caption(properties), fill=_PALE_INK)
    labels = [_label(metric, properties["stat"]) for metric in properties["metrics"]]
    legend_columns = max(1, width // (2 * _PADDING + _LETTER * max(map(len, labels))))
    legend_top = height - 8 - _LINE * -(-len(labels) // legend_columns)
    _draw_plot(group, properties, width, top=52, bottom=legend_top - 6)
    for number, label in enumerate(labels):
        row, column = divmod(number, legend_columns)
        left, baseline = _PADDING + column * (width // legend_columns), legend_top + 13 + row * _LINE
        _rect(group, left, baseline - 10, 10, 10, fill=_COLORS[number % len(_COLORS)])
        _text(group, left + 16, baseline, label, fill=_INK)


def _draw_plot(group: ET.Element, properties: dict[str, Any], width: int, top: int, bottom: int) -> None:
    for y in (top, (top + bottom) // 2, bottom):
        _line(group, y, width, stroke=_GRID)
    for threshold in properties.get("annotations", {}).get("horizontal", []):
        y = top + (bottom - top) // 3
        _line(group, y, width, stroke=_ALERT, stroke_dasharray="6, 4")
        label = f"{threshold['label']}: {threshold['value']:,}"
        _text(group, width - _PADDING, y - 5, label, fill=_ALERT, text_anchor="end")


def _caption(properties: dict[str, Any]) -> str:
    own = all("stat" in _options(metric) for metric in properties["metrics"])
    stat = "" if own else f"{properties['stat'].lower()}, "
    return f"{stat}every {properties['period']} seconds" + (", stacked" if properties.get("stacked") else "")


def _label(metric: list[Any], widget_stat: str) -> str:
    options = _options(metric)
    stat = options.get("stat", widget_stat)
    name = str(metric[1]) if stat == widget_stat else f"{metric[1]}, {stat.lower()}"
    return options.get("label", name) + (" (right axis)" if options.get("yAxis") == "right" else "")


def _options(metric: list[Any]) -> dict[str, str]:
    return metric[-1] if isinstance(metric[-1], dict) else {}


def _rect(parent: ET.Element, x: int, y: int, width: int, height: int, **look: str) -> None:
    ET.SubElement(parent, "rect", {"x": f"{x}", "y": f"{y}", "width": f"{width}", "height": f"{height}"} | look)


def _line(parent: ET.Element, y: int, width: int, **look: str) -> None:
    ends = {"x1": f"{_PADDING}", "x2": f"{width - _PADDING}", "y1": f"{y}", "y2": f"{y}"}
    ET.SubElement(parent, "line", ends | _attributes(look))


def _text(parent: ET.Element, x: int, y: int, text: str, **look: str) -> None:
    ET.SubElement(parent, "text", {"x": f"{x}", "y": f"{y}"} | _attributes(look)).text = text


def _attributes(look: dict[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in look.items()}
