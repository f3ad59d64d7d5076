"""Small changes of the code, and whether the tests notice them: `make mutants`."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "mutants.md"
COPY = ROOT / ".mutants" / "copy"
COPIED = ("functions/stop_segment", "sandbox", "tests", "pyproject.toml")
CHILDREN = 2

_ROW = re.compile(r"^\| `(?P<place>[^`]+)` \| `(?P<before>[^`]+)` becomes `(?P<after>[^`]+)` \|", re.MULTILINE)


@dataclass(frozen=True, order=True)
class Mutant:
    """A change of one function. Its lines are not numbered, so that it keeps its name when the code moves."""

    place: str
    before: str
    after: str

    def __str__(self) -> str:
        return f"| `{self.place}` | `{_cell(self.before)}` becomes `{_cell(self.after)}` |"


def main() -> None:
    """Let mutmut make and test the mutants. Exits with 1 where the documentation tells of other survivors."""
    console = Console(highlight=False, soft_wrap=True)
    console.print("Changing the code in small ways, in a copy: about a quarter of an hour")
    began = time.monotonic()
    _copy()
    subprocess.run([_MUTMUT, "run", "--max-children", str(CHILDREN)], cwd=COPY, check=True)
    results = _results()
    console.print(_table(results))
    console.print(f"{time.monotonic() - began:.0f} seconds on {CHILDREN} processes")
    survivors = {_mutant(name) for name, result in results.items() if result != "killed"}
    explained = {
        Mutant(*(part.replace(r"\|", "|") for part in row.groups())) for row in _ROW.finditer(PAGE.read_text())
    }
    for title, mutants in (
        ("Survived, and docs/mutants.md says why", survivors & explained),
        ("Survived, and nobody knows why", survivors - explained),
        ("Survives no longer, but docs/mutants.md says so", explained - survivors),
    ):
        console.print(f"{title}: {len(mutants)}")
        for mutant in sorted(mutants):
            console.print(str(mutant), markup=False)
    sys.exit(0 if survivors == explained else 1)


def _copy() -> None:
    shutil.rmtree(COPY, ignore_errors=True)
    COPY.mkdir(parents=True)
    for name in COPIED:
        source, target = ROOT / name, COPY / Path(name).name
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, target)


def _results() -> dict[str, str]:
    """Give each mutant's result by mutmut's name of it."""
    lines = _ask_mutmut("results", "--all", "true").splitlines()
    return dict(line.strip().split(": ") for line in lines if ": " in line)


def _table(results: dict[str, str]) -> Table:
    counts = Counter((_place(name).partition(".")[0], result == "killed") for name, result in results.items())
    modules = sorted({module for module, _ in counts})
    table = Table(title="Mutants", title_justify="left", show_footer=True)
    table.add_column("module", footer="all")
    killed, survived = ([counts[module, is_killed] for module in modules] for is_killed in (True, False))
    made = [sum(both) for both in zip(killed, survived, strict=True)]
    for heading, numbers in (("mutants", made), ("killed", killed), ("survived", survived)):
        table.add_column(heading, footer=str(sum(numbers)), justify="right")
    for module, *numbers in zip(modules, made, killed, survived, strict=True):
        table.add_row(f"{module}.py", *map(str, numbers))
    return table


def _mutant(name: str) -> Mutant:
    difference = _ask_mutmut("show", name)
    before, after = (
        " ".join(line.strip() for line in re.findall(rf"^[{sign}](?![{sign}]{{2}})(.*)", difference, re.MULTILINE))
        for sign in ("-", "+")
    )
    return Mutant(_place(name), before, after)


def _place(name: str) -> str:
    """Read mutmut's names: stop_segment.failures.x_parts__mutmut_1, stop_segment.circuit.xǁCircuitǁnote__mutmut_7."""
    module, _, function = name.partition("__mutmut_")[0].removeprefix("stop_segment.").rpartition(".")
    return f"{module}.{function[2:].replace('ǁ', '.')}"


def _cell(code: str) -> str:
    return code.replace("|", r"\|")


_MUTMUT = str(Path(sys.executable).with_name("mutmut"))


def _ask_mutmut(*arguments: str) -> str:
    return subprocess.run([_MUTMUT, *arguments], cwd=COPY, check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    main()
