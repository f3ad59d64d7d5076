"""`make sandbox` runs the stack on this machine until Ctrl-C or SIGTERM."""

from __future__ import annotations

import contextlib
import functools
import sys
import time
from pathlib import Path
from typing import NoReturn

from rich.console import Console

from sandbox.embedded_aws import embedded_aws, free_port
from sandbox.program import progress, run
from sandbox.shell import instructions, settings
from sandbox.stack import APP_ID, ROOT, number_the_concurrency, sandbox

FOLDER = ROOT / ".sandbox"
# The ports are fixed, so that the settings of a shell stay valid when the sandbox starts again.
_AWS_PORT, _RTC_PORT = 24566, 24567


def main(folder: Path = FOLDER) -> NoReturn:
    """Start the sandbox, print how to use it, and wait for Ctrl-C or SIGTERM.

    Parameters
    ----------
    folder
        The folder for the certificate and the file that a shell sources. The certificate and the file outlive the
        sandbox.
    """
    console = Console(highlight=False, soft_wrap=True, emoji=False)
    start_aws = functools.partial(embedded_aws, port=free_port(_AWS_PORT), certificate_folder=folder)
    with contextlib.ExitStack() as stack:
        with progress(console) as report:
            box = stack.enter_context(
                sandbox(app_ids={APP_ID}, port=free_port(_RTC_PORT), start_aws=start_aws, report=report)
            )
        file = folder / "env"
        file.write_text(settings(box))
        console.print(instructions(box, file), markup=False)
        numbered = number_the_concurrency(box.aws)
        while True:
            time.sleep(2)
            numbered = number_the_concurrency(box.aws, numbered)  # `stopper set` may have changed MaxConcurrency


if __name__ == "__main__":
    sys.exit(run(main, interrupted=0))
