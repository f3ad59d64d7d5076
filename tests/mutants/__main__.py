"""`make mutants`: change the code in small ways and run the tests on each change. `ONLY="pace"` limits the modules."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import time
import tomllib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from sandbox.embedded_aws import embedded_aws
from tests.mutants.survivors import explained, mutant, place

ROOT = Path(__file__).parents[2]
COPY = ROOT / ".mutants" / "copy"
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mutmut"]
PACKAGES = SETTINGS["source_paths"]
COPIED = (*PACKAGES, *SETTINGS["also_copy"], "tests", "pyproject.toml")
CHILDREN = 2
NOTICED = ("killed", "timeout")

_MUTMUT = str(Path(sys.executable).with_name("mutmut"))


def main(modules: Sequence[str]) -> None:
    """Let mutmut create and test the mutants. Exits with 1 unless the survivors are those that README.md explains.

    Parameters
    ----------
    modules
        The names of modules; empty for all modules that pyproject.toml names.
    """
    console = Console(highlight=False, soft_wrap=True)
    console.print("Changing a copy of the code in small ways" + ("" if modules else ": half an hour"))
    began = time.monotonic()

    def is_asked_for(place: str) -> bool:
        return not modules or _module(place) in modules

    copy_project(COPY)
    names = [f"{package}.{module}.*" for module in modules for package in PACKAGES]
    _test_mutants(names)
    results = {name: result for name, result in _results().items() if is_asked_for(place(name))}
    known = {one for one in explained() if is_asked_for(one.place)}
    survivors = {mutant(name, _ask("show", name)) for name, result in results.items() if result not in NOTICED}
    console.print(_table(results))
    console.print(
        f"{time.monotonic() - began:.0f} s, {CHILDREN} processes on {os.cpu_count()} cores, "
        f"Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    )
    for title, mutants in (
        ("Survived, with a reason in tests/mutants/README.md", survivors & known),
        ("Survived, without a reason", survivors - known),
        ("Did not survive, but tests/mutants/README.md has a reason", known - survivors),
    ):
        console.print(f"\n{title}: {len(mutants)}")
        for one in sorted(mutants):
            console.print(one.row, markup=False)
    sys.exit(0 if survivors == known else 1)


def _test_mutants(names: Sequence[str]) -> None:
    """Run the tests on each mutant, in one embedded AWS that all mutants share."""
    tests = (test for test in SETTINGS["pytest_add_cli_args_test_selection"] if test.startswith("tests/integration/"))
    with embedded_aws() as aws:
        shared = {"MUTANTS_AWS": aws.endpoint, "MUTANTS_AWS_AUTHORITY": str(aws.ca_bundle)}
        for command in (
            [_MUTMUT, "run", "--max-children", str(CHILDREN), *names],
            # If the AWS no longer served unchanged code, mutants would count as found although no test found them.
            [sys.executable, "-m", "pytest", "-q", "-x", *SETTINGS["pytest_add_cli_args"], *tests],
        ):
            subprocess.run(command, cwd=COPY, env=os.environ | shared, check=True)


def copy_project(folder: Path) -> None:
    """Create a folder with the files that the tests on mutants need."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for source in (
        next(found for found in (ROOT / name, ROOT / "functions" / name) if found.exists()) for name in COPIED
    ):
        target = folder / source.name
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, target)


def _results() -> dict[str, str]:
    """Return the result of each mutant, by mutmut's name for the mutant."""
    lines = _ask("results", "--all", "true").splitlines()
    return dict(line.strip().split(": ") for line in lines if ": " in line)


def _module(place: str) -> str:
    return place.partition(".")[0]


def _ask(*arguments: str) -> str:
    return subprocess.run([_MUTMUT, *arguments], cwd=COPY, check=True, capture_output=True, text=True).stdout


def _table(results: dict[str, str]) -> Table:
    modules = Counter(_module(place(name)) for name in results)
    counts = Counter((_module(place(name)), result) for name, result in results.items())
    rows = {}
    for module, made in sorted(modules.items()):
        killed, endless = (counts[module, result] for result in NOTICED)
        rows[f"{module}.py"] = (made, killed, endless, made - killed - endless)
    table = Table(title="Mutants", title_justify="left", show_footer=True)
    table.add_column("module", footer="all")
    for heading, *numbers in zip(("mutants", "killed", "endless", "survived"), *rows.values(), strict=True):
        table.add_column(heading, footer=str(sum(numbers)), justify="right")
    for name, row in rows.items():
        table.add_row(name, *map(str, row))
    return table


if __name__ == "__main__":
    main(sys.argv[1:])
