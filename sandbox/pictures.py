"""The pictures for the documentation, drawn from the demo's output."""

from __future__ import annotations

import io
import re
import sys

from rich.console import Console

from sandbox import demo
from sandbox.stack import ROOT

COLUMNS = 100  # a page shows this number of columns in a readable size

# Like the theme of rich, but without a font from a server.
_SVG = """\
<svg viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{
    font-family: ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", "Liberation Mono", monospace;
    font-size: 21px; /* as high as a line, so that lines of a table meet */
}}
.{unique_id}-title {{ font: bold 18px Helvetica, Arial, sans-serif; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal"><rect width="{terminal_width}" height="{terminal_height}"/></clipPath>
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


def main() -> int:
    """Run the demo, draw its output, and return 0 if every outcome was as expected."""
    whole, short = (Console(record=True, file=io.StringIO(), width=COLUMNS, no_color=False) for _ in range(2))
    if status := demo.main(whole, short):
        return status
    (ROOT / "docs" / "demo.svg").write_text(_export(whole))
    (ROOT / "docs" / "demo-short.svg").write_text(_export(short))
    return 0


def _export(picture: Console) -> str:
    svg = picture.export_svg(title="make demo", code_format=_SVG, unique_id="demo")
    # The text is stretched to its cells with every font. Otherwise the lines of the tables would have gaps.
    wide = svg.replace(" textLength=", ' lengthAdjust="spacingAndGlyphs" textLength=')
    return re.sub(r' clip-path="url\(#demo-line-\d+\)"', "", wide)


if __name__ == "__main__":
    sys.exit(main())
