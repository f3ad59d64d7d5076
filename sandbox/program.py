"""The start, the progress and the end of the sandbox's programs."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from types import FrameType

from rich.console import Console

from sandbox.stack import DeployError

INTERRUPTED = 130


def run(program: Callable[[], int], *, interrupted: int = INTERRUPTED) -> int:
    """Run a program until it ends, fails or is interrupted by Ctrl-C or SIGTERM. Return its exit code.

    Parameters
    ----------
    interrupted
        The exit code after an interruption. Give 0 for a program that does not end by itself.
    """
    console = Console(stderr=True, highlight=False, markup=False, emoji=False, soft_wrap=True)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    try:
        return program()
    except KeyboardInterrupt:
        console.print("\nInterrupted. Nothing is left running.")
        return interrupted
    except (DeployError, RuntimeError, TimeoutError) as error:
        console.print(f"\n{error}")
        return 1


@contextlib.contextmanager
def progress(console: Console) -> Iterator[Callable[[str], None]]:
    """Show progress in one changing line of a terminal, or in one line for each step without a terminal."""
    with console.status("") as status:
        yield status.update if console.is_terminal else console.print


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    # From now on, the program stops its servers. A second Ctrl-C must not leave a server running.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt
