"""The tables of the demo, 80 columns wide as a default terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from tools.rooms import Item

STOPPED, LEFT_ALONE, FOR_PEOPLE = "green", "cyan", "yellow"
_STYLES = {
    "stopped": STOPPED,
    **dict.fromkeys(("invalid_message", "rejected", "exhausted"), FOR_PEOPLE),
}


def new_table(title: str, *columns: str) -> Table:
    """Create a table in which only the last column wraps."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    *narrow, last = columns
    for column in narrow:
        table.add_column(column, no_wrap=True)
    table.add_column(last)
    return table


def colored(ends: Iterable[str], separator: str = "\n") -> Text:
    """Return the outcomes and ErrorKinds as text in their colors."""
    return Text(separator).join(Text(end, _STYLES.get(end, LEFT_ALONE)) for end in ends)


def known(items: Sequence[Item]) -> str:
    """Describe the records of a room in the words of `stopper room`, with one line per item."""
    return "\n".join(f"{'room' if item.is_room else item.task_id}: {item.state}" for item in items)
