"""`make release` creates the files of a release, with the same bytes for the same commit on every machine.

Only a machine without the runtime's Python creates different files, because it cannot compile the bytecode.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import shutil
import subprocess  # nosec B404 # makes the bill of materials
import sys
import tomllib
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import click

from release.contracts import CONTRACTS, digests
from release.plain import functions, plain, read

ROOT = Path(__file__).parents[1]
BUILT = ROOT / ".aws-sam" / "build"
# The earliest time that a zip file can hold. The times of the build would differ between machines.
_NO_TIME = (1980, 1, 1, 0, 0, 0)
_READABLE_FILE = 0o100644 << 16


class NotReady(click.ClickException):
    """The repository is not ready for this release."""


@click.command()
@click.option(
    "--to", "folder", type=click.Path(path_type=Path), default=ROOT / "dist", help="Folder of the files. It is emptied."
)
@click.option("--tag", help="Tag of the release, such as v1.2.3. Fails if the repository is not ready for it.")
def main(folder: Path, tag: str | None) -> None:
    """Create the functions' zip files, templates that name the files, a bill of materials, notes and checksums."""
    version = _version()
    if tag:
        _check(tag, version)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    template = read(BUILT / "template.yaml")
    archives = {name: _zip(BUILT / name, folder).name for name in functions(template)}
    (folder / "template.yaml").write_text(_with_archives((BUILT / "template.yaml").read_text(), archives))
    (folder / "cloudformation.json").write_text(json.dumps(plain(template, archives), indent=2) + "\n")
    # SAM CLI looks for its settings beside the template.
    for file in (ROOT / "samconfig.toml", *CONTRACTS.glob("*.schema.json")):
        shutil.copyfile(file, folder / file.name)
    _write_bill_of_materials(folder / "sbom.cdx.json")
    (folder / "notes.md").write_text(_notes(version if tag else "Unreleased"))
    sums = _sums(sorted(folder.iterdir()))
    (folder / "SHA256SUMS").write_text(sums)
    click.echo(sums, nl=False)


def _sums(files: Iterable[Path]) -> str:
    return "".join(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in files)


def _version() -> str:
    version: str = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    return version


def _check(tag: str, version: str) -> None:
    if tag != f"v{version}":
        raise NotReady(f"the tag is {tag}, but pyproject.toml needs the tag v{version}")
    _notes(version)
    kept = CONTRACTS / "earlier" / version / "digests.txt"
    if not kept.exists() or kept.read_text() != digests():
        raise NotReady(
            f"{kept.relative_to(ROOT)} lacks the schemas' digests: write it with `python -m release.contracts`"
        )
    if not list(BUILT.rglob("*.pyc")):
        raise NotReady("the functions hold no bytecode: install the runtime's Python, and build the functions again")


def _notes(version: str) -> str:
    changelog = (ROOT / "CHANGELOG.md").read_text()
    found = re.search(rf"^## \[{re.escape(version)}\][^\n]*\n(.*?)(?=^## |\Z)", changelog, re.MULTILINE | re.DOTALL)
    if not found:
        raise NotReady(f"CHANGELOG.md has no section [{version}]: add the section")
    return found[1].strip() + "\n"


def _zip(source: Path, folder: Path) -> Path:
    """Pack a function into a zip file that is named after its content, so that new code gets a new name."""
    target = folder / f"{source.name}.zip"
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for path in sorted(path for path in source.rglob("*") if path.is_file()):
            entry = zipfile.ZipInfo(path.relative_to(source).as_posix(), _NO_TIME)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = _READABLE_FILE
            archive.writestr(entry, path.read_bytes())
    return target.rename(folder / f"{source.name}-{hashlib.sha256(target.read_bytes()).hexdigest()[:12]}.zip")


def _with_archives(template: str, archives: Mapping[str, str]) -> str:
    return re.sub(r"^( +CodeUri: )(\w+)$", lambda found: found[1] + archives[found[2]], template, flags=re.MULTILINE)


def _write_bill_of_materials(path: Path) -> None:
    command = [
        *(str(Path(sys.executable).with_name("cyclonedx-py")), "requirements", "--output-reproducible"),
        *("--pyproject", str(ROOT / "pyproject.toml"), "--output-file", str(path)),
        str(ROOT / "functions" / "requirements.txt"),
    ]
    subprocess.run(command, check=True)  # noqa: S603 # nosec B603 # our own command, no shell


if __name__ == "__main__":
    logging.getLogger("samtranslator").setLevel(logging.ERROR)  # samtranslator warns about metrics that it did not send
    main()
