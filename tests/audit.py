"""Ask for known vulnerabilities of the locked packages, as `make lint` does: `python -m tests.audit FILE ...`."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click

# Vulnerabilities by id that must not stop us, each with its reason.
ACCEPTED: dict[str, str] = {}
TIMEOUT_SECONDS = 5
DEADLINE_SECONDS = 180
# The last line of what pip-audit reports when the service gave no answer, or none that is one. Anything else that ends
# an audit, such as a lock without hashes, is a fault of ours.
_NO_ANSWER = re.compile(r"(requests\.exceptions|pip_audit\._service\.interface)\.\w+\b|.*`-s SERVICE`$")


class NotAudited(Exception):
    """The advisory service gave no answer. The message says what came instead."""


@dataclass(frozen=True)
class Audit:
    """What the service knows.

    Parameters
    ----------
    findings
        A line for each known vulnerability.
    """

    packages: int
    findings: Sequence[str]


def audit(requirements: Sequence[Path], service_url: str | None = None) -> Audit:
    """Let pip-audit look up the packages of hash-locked requirements, without resolving anything.

    Parameters
    ----------
    service_url
        Where to ask, in OSV's protocol; None is OSV itself.

    Raises
    ------
    NotAudited
        The service gave no answer.
    RuntimeError
        pip-audit failed for another reason.
    """
    command = [
        *(str(Path(sys.executable).with_name("pip-audit")), "--strict", "--require-hashes", "--disable-pip"),
        *("--vulnerability-service", "osv", *(["--osv-url", service_url] if service_url else [])),
        *("--timeout", str(TIMEOUT_SECONDS), "--progress-spinner", "off", "--format", "json"),
        *(argument for advisory in ACCEPTED for argument in ("--ignore-vuln", advisory)),
        *(argument for path in requirements for argument in ("--requirement", str(path))),
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=DEADLINE_SECONDS)
    except subprocess.TimeoutExpired:
        raise NotAudited(f"no end after {DEADLINE_SECONDS} s") from None
    if done.stdout:
        return _read(done.stdout)
    last_line = done.stderr.strip().rpartition("\n")[2]
    if no_answer := _NO_ANSWER.match(last_line):
        raise NotAudited(no_answer[0])
    raise RuntimeError(done.stderr)


def _read(report: str) -> Audit:
    packages = json.loads(report)["dependencies"]
    findings = [
        f"{package['name']} {package['version']}: {found['id']}, mended in {', '.join(found['fix_versions']) or 'none'}"
        for package in packages
        for found in package["vulns"]
    ]
    return Audit(len(packages), findings)


@click.command()
@click.option("--service-url", help="Where to ask, in OSV's protocol. [default: OSV]")
@click.argument("requirements", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
def main(requirements: tuple[Path, ...], service_url: str | None) -> None:
    """Exit with 1 where a vulnerability is known, and say so where nobody could be asked."""
    try:
        done = audit(requirements, service_url)
    except NotAudited as error:
        click.echo(f"pip-audit: the advisory service cannot be reached, so advisories were NOT checked ({error})")
        return
    except RuntimeError as error:
        raise click.ClickException(f"pip-audit failed:\n{error}") from error
    for finding in done.findings:
        click.echo(f"pip-audit: {finding}", err=True)
    if done.findings:
        raise SystemExit(1)
    click.echo(f"pip-audit: no known vulnerability in {done.packages} locked packages")


if __name__ == "__main__":
    main()
