"""Mutants as changes of the code, and the survivors that README.md explains."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

PAGE = Path(__file__).with_name("README.md")

_ROW = re.compile(r"^\| `(?P<place>[^`]+)` \| `(?P<before>[^`]+)` becomes `(?P<after>[^`]+)` \| .+ \|$", re.MULTILINE)


@dataclass(frozen=True, order=True)
class Mutant:
    """A change of one function. It has no line number, so it stays equal when the code above it grows.

    Parameters
    ----------
    place
        The function's name with its module: ``circuit.Circuit.note``.
    before, after
        The complete changed lines, before and after.
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
    """Read the surviving mutants that README.md explains."""
    rows = _ROW.finditer(PAGE.read_text())
    return {Mutant(*(cell.replace(r"\|", "|") for cell in row.groups())) for row in rows}


def place(name: str) -> str:
    """Return the function of a mutant, from mutmut's name for the mutant.

    These names are like ``stop_segment.failures.x_parts__mutmut_1`` and
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
