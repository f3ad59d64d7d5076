"""Mutants by their change, and the documentation's reasons for the survivors."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

PAGE = Path(__file__).with_name("README.md")

_ROW = re.compile(r"^\| `(?P<place>[^`]+)` \| `(?P<before>[^`]+)` becomes `(?P<after>[^`]+)` \| .+ \|$", re.MULTILINE)


@dataclass(frozen=True, order=True)
class Mutant:
    """A change of one function. It has no line number, so it stays the same when the code above it grows.

    Parameters
    ----------
    place
        The function, from its module on: ``circuit.Circuit.note``.
    before, after
        The changed lines, whole, before and after.
    """

    place: str
    before: str
    after: str

    @property
    def row(self) -> str:
        """The mutant's cells in the documentation's table, except the reason."""
        before, after = (code.replace("|", r"\|") for code in (self.before, self.after))
        return f"| `{self.place}` | `{before}` becomes `{after}` |"


def explained() -> set[Mutant]:
    """Read of which surviving mutants the documentation says why."""
    rows = _ROW.finditer(PAGE.read_text())
    return {Mutant(*(cell.replace(r"\|", "|") for cell in row.groups())) for row in rows}


def place(name: str) -> str:
    """Say in which function a mutant is that mutmut calls so.

    Its names are like ``stop_segment.failures.x_parts__mutmut_1`` and
    ``segments.circuit.xǁCircuitǁnote__mutmut_7``.
    """
    module, _, function = name.partition("__mutmut_")[0].partition(".")[2].rpartition(".")
    return f"{module}.{function[2:].replace('ǁ', '.')}"


def mutant(name: str, difference: str) -> Mutant:
    """Read mutmut's unified difference of a mutant."""
    before, after = (
        " ".join(line.strip() for line in re.findall(rf"^[{sign}](?![{sign}]{{2}})(.*)", difference, re.MULTILINE))
        for sign in ("-", "+")
    )
    return Mutant(place(name), before, after)
