"""docs/setup.md, word for word: its commands, in a shell that is pointed at the sandbox, print what the page shows."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.shell import settings
from sandbox.stack import ROOT, Sandbox, sandbox
from tests.e2e.observer import APP_ID
from tests.environments import OF_A_SHELL

PAGE = (ROOT / "docs" / "setup.md").read_text()


def steps() -> list[tuple[str, str]]:
    """Give the commands that are followed by what they print, each with that."""
    line = r"(?!```).*\n"
    return re.findall(rf"^```sh\n((?:{line})*)```\n\n```text\n((?:{line})*)```$", PAGE, re.MULTILINE)


def pattern(shown: str) -> str:
    """Make a pattern of what a page shows, where `...` stands for anything, and spaces are as many as you like."""
    parts = [re.sub(r"(\\ )+", r"\\s+", re.escape(part)) for part in re.split(r"\s*\.\.\.\s*", shown.strip())]
    return r"\s*" + r".*?".join(parts).replace("\\\n", r"\s*\n") + r"\s*"


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    with sandbox(app_ids={APP_ID}) as running:
        yield running


def test_from_nothing_to_the_first_stopped_room_paused_and_resumed(box: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "env").write_text(settings(box))
    commands = steps()
    assert len(commands) == PAGE.count("```text\n")
    for command, shown in commands:
        done = subprocess.run(
            ["/bin/sh", "-c", f". {tmp_path / 'env'}\n{command}"],
            cwd=ROOT,
            env=OF_A_SHELL | {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "COLUMNS": "120"},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        printed = re.sub(r"[ \t]+", " ", done.stdout)
        assert re.fullmatch(pattern(shown), printed, re.DOTALL), (command, printed, shown)
    assert not box.rtc.is_running(APP_ID, "first-room", "audio")
