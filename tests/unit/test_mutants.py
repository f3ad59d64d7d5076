"""`make mutants` copies every file, and locks every package, that its tests need."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

from tests.mutants.__main__ import ROOT, SETTINGS, copy_project

TESTS = SETTINGS["pytest_add_cli_args_test_selection"]
FOLDERS = (ROOT, ROOT / "functions")


def source_of(module: str) -> Path | None:
    """Return the file of a module of this project, or None."""
    names = [module.replace(".", "/") + ending for ending in (".py", "/__init__.py")]
    return next((folder / name for folder in FOLDERS for name in names if (folder / name).exists()), None)


def imports_of(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def all_imports(paths: list[Path]) -> set[str]:
    found: set[str] = set()
    waiting = list(paths)
    while waiting:
        for module in set(imports_of(waiting.pop())) - found:
            found.add(module)
            if source := source_of(module):
                waiting.append(source)
    return found


def test_the_tests_can_be_collected_in_the_copy(tmp_path: Path) -> None:
    copy_project(tmp_path / "copy")
    command = [sys.executable, "-m", "pytest", "--collect-only", "--quiet", "-p", "no:cacheprovider", *TESTS]
    done = subprocess.run(command, cwd=tmp_path / "copy", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_packages_that_the_tests_import_are_locked() -> None:
    tops = {module.partition(".")[0] for module in all_imports([ROOT / test for test in TESTS])}
    ours = {top for top in tops if any((folder / top).is_dir() for folder in FOLDERS)}
    locked = set(re.findall(r"^([\w.-]+)==", (ROOT / "locks" / "mutants.txt").read_text(), re.MULTILINE))
    distributions = packages_distributions()
    for top in sorted(tops - ours - set(sys.stdlib_module_names)):
        if not top.startswith("mypy_boto3_"):  # types: no test imports them at run time
            assert {name.lower().replace("_", "-") for name in distributions[top]} & locked, top
