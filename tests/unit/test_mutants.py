"""All imports of the tests that `make mutants` runs are in its copy of the project, or in its lock."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

from tests.mutants.__main__ import COPIED, ROOT

SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mutmut"]
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


def test_what_the_tests_import_is_there() -> None:
    tops = {module.partition(".")[0] for module in all_imports([ROOT / test for test in TESTS])}
    ours = {top for top in tops if any((folder / top).is_dir() for folder in FOLDERS)}
    assert ours <= {Path(name).name for name in COPIED}
    assert ours - {"tests"} <= {*SETTINGS["source_paths"], *SETTINGS["also_copy"]}
    locked = set(re.findall(r"^([\w.-]+)==", (ROOT / "locks" / "mutants.txt").read_text(), re.MULTILINE))
    distributions = packages_distributions()
    for top in sorted(tops - ours - set(sys.stdlib_module_names)):
        if not top.startswith("mypy_boto3_"):  # types: no test imports them at run time
            assert {name.lower().replace("_", "-") for name in distributions[top]} & locked, top
