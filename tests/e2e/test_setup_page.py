"""The commands of docs/setup.md print the output that the page shows, when they are run word for word in the sandbox.

The page's Chinese twin has the same commands with the same output.
"""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.shell import settings
from sandbox.stack import ROOT, STACK_NAME, Sandbox, sandbox
from tests.e2e.observer import APP_ID
from tests.environments import OF_A_SHELL

PAGE, CHINESE_PAGE = ((ROOT / "docs" / name).read_text() for name in ("setup.md", "setup.zh-CN.md"))


def steps(page: str) -> list[tuple[str, str]]:
    """Return the commands of a page that have output, each with its output."""
    line = r"(?!```).*\n"
    return re.findall(rf"^```sh\n((?:{line})*)```\n\n```text\n((?:{line})*)```$", page, re.MULTILINE)


def pattern(shown: str) -> str:
    """Turn shown output into a pattern: `...` stands for any text, and any number of spaces for one."""
    parts = [re.sub(r"(\\ )+", r"\\s+", re.escape(part)) for part in re.split(r"\s*\.\.\.\s*", shown.strip())]
    return r"\s*" + r".*?".join(parts).replace("\\\n", r"\s*\n") + r"\s*"


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    with sandbox(app_ids={APP_ID}) as running:
        yield running


def test_commands_of_the_setup_page_print_the_output_that_it_shows(box: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "env").write_text(settings(box))
    commands = steps(PAGE)
    assert commands == steps(CHINESE_PAGE)
    assert len(commands) == PAGE.count("```text\n")
    callback_url = box.outputs["CallbackUrl"]
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
    (stack,) = box.client("cloudformation").describe_stacks(StackName=STACK_NAME)["Stacks"]
    assert {one["OutputKey"]: one["OutputValue"] for one in stack["Outputs"]}["CallbackUrl"] == callback_url
    parameters = {one["ParameterKey"]: one["ParameterValue"] for one in stack["Parameters"]}
    assert ":secret:rtc-callback-key-" in parameters["CallbackSecretArn"]
    assert not (ROOT / "callback-key.txt").exists()
