"""The operator's command line, run as a person runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping

from sandbox.stack import ROOT, STACK_NAME, Sandbox


def environment(box: Sandbox, changes: Mapping[str, str | None] | None = None) -> dict[str, str]:
    """Give the variables that point a program at the sandbox; a change to None leaves one out."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    settings: dict[str, str | None] = {**inherited, **box.aws.environment, **(changes or {})}
    return {name: value for name, value in settings.items() if value is not None}


def command(*arguments: str, stack_name: str = STACK_NAME) -> list[str]:
    return [sys.executable, "-m", "tools", *arguments, "--stack-name", stack_name]


def run_tool(
    box: Sandbox, *arguments: str, stack_name: str = STACK_NAME, **changes: str | None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments, stack_name=stack_name),
        cwd=ROOT,
        env=environment(box, changes),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
