"""Saved copies of letters in JSON Lines, one letter per line."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from tools.letters import DeadLetter, Message, restored, to_json


def save(path: Path, letters: Sequence[DeadLetter]) -> None:
    """Write letters to a new file, and return when they are on the disk.

    Raises
    ------
    OSError
        The file exists already, or cannot be written.
    """
    with path.open("x", encoding="utf-8") as file:
        file.writelines(json.dumps(to_json(letter)) + "\n" for letter in letters)
        file.flush()
        os.fsync(file.fileno())
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # otherwise a crash may lose the name of the file, and so the letters
    finally:
        os.close(folder)


def load(path: Path) -> list[Message]:
    """Read the letters from a file that `save` wrote.

    Raises
    ------
    ValueError
        A line holds no letter. The message names the line.
    OSError
        The file cannot be read.
    """
    letters = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            letters.append(restored(line))
        except ValueError as error:
            raise ValueError(f"line {number} holds no dead letter ({error})") from None
    return letters
