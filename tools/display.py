"""The commands' output for people. Control characters in letters and records are escaped."""

from __future__ import annotations

import json
from collections.abc import Sequence

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from segments.events import Room
from tools.event_queue import Depth
from tools.event_source import EventSource
from tools.letters import DeadLetter, Group
from tools.rooms import Item, OpenTask
from tools.status import Finding, Verdict
from tools.times import readable_age, readable_time

output = Console(highlight=False, markup=False, emoji=False)
messages = Console(stderr=True, highlight=False, markup=False, emoji=False)

_LABEL_WIDTH = 14
_STYLES = {
    Verdict.WELL: "green",
    Verdict.WRONG: "bold red",
    Verdict.UNKNOWN: "yellow",
    Verdict.WAITING: "yellow",
    Verdict.OFF: "dim",
}


def progress_bar(what: str, *, shown: bool) -> Progress:
    """Create a progress bar on standard error."""
    return Progress(
        TextColumn(what),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=messages,
        disable=not shown,
    )


def printable(text: str) -> str:
    """Escape characters that control a terminal or hide text, except line ends."""
    return "".join(
        character if character.isprintable() or character == "\n" else character.encode("unicode_escape").decode()
        for character in text
    )


def groups_text(groups: Sequence[Group], now_ms: int) -> Text:
    """Show the groups of letters by reason, each with an example on a separate line."""
    heads = ("ErrorKind", "ErrorCode", "Letters", "Oldest")
    cells = [
        (one.kind, printable(one.code or "-"), str(one.count), readable_age(one.oldest_failed_at_ms, now_ms))
        for one in groups
    ]
    widths = [max(map(len, column)) + 2 for column in zip(heads, *cells, strict=True)]
    head, *rows = ("".join(map(str.ljust, row, widths)).rstrip() + "\n" for row in (heads, *cells))
    examples = (f"  {printable(one.example)}\n" if one.example else "" for one in groups)
    return Text.assemble((head, "bold"), *(line for pair in zip(rows, examples, strict=True) for line in pair))


def letter_text(letter: DeadLetter, now_ms: int) -> Text:
    """Show a whole letter."""
    rows = [
        ("room", f"{letter.room.room_id}  of application {letter.room.app_id}" if letter.room else None),
        ("event time", _time(letter.event_time_ms, now_ms)),
        ("failed", _time(letter.failed_at_ms, now_ms)),
        ("received", None if letter.receive_count is None else _times(letter.receive_count)),
        ("message", letter.error_message),
        ("request id", letter.request_id),
    ]
    title = f"{letter.source_message_id}  {letter.kind}  {letter.code or ''}".rstrip()
    text = _block(title, rows)
    return text.append("\n" + _indented(printable(_pretty(letter.body)), 4) + "\n")


def room_text(room: Room, items: Sequence[Item], now_ms: int) -> Text:
    """Show all records of a room."""
    text = Text(printable(f"Room {room.room_id} of application {room.app_id}\n"))
    for item in items:
        stop_event = " ".join(filter(None, [item.event_type, item.event_id]))
        rows = [
            ("started", _time(item.started_at_ms, now_ms)),
            ("open since", _time(item.open_since_ms, now_ms)),
            ("found gone", _time(item.gone_at_ms, now_ms)),
            ("stop event", _time(item.stop_event_time_ms, now_ms)),
            ("", stop_event or None),
            ("answered", _time(item.stopped_at_ms, now_ms)),
            ("request id", item.request_id),
            ("business id", item.business_id),
            ("kept until", _time(item.expires_at_seconds and item.expires_at_seconds * 1_000, now_ms)),
        ]
        name = "the room itself" if item.is_room else f"task {item.task_id}"
        text.append("\n").append(_block(f"{name}: {item.state}", rows))
    return text


def open_table(tasks: Sequence[OpenTask], now_ms: int) -> Table:
    """Show open tasks, each with its room."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for head in ("Open for", "AppId", "RoomId", "TaskId"):
        table.add_column(head, overflow="fold")
    for one in tasks:
        age = readable_age(one.open_since_ms, now_ms).removesuffix(" ago")
        names = one.task.room.app_id, one.task.room.room_id, one.task.task_id
        table.add_row(*(Text(printable(cell)) for cell in (age, *names)))
    return table


def status_table(findings: Sequence[Finding]) -> Table:
    """Show the findings as a table."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for one in findings:
        table.add_row(Text(one.name), Text(one.verdict, style=_STYLES[one.verdict]), Text(printable(one.word)))
    return table


def status_line(findings: Sequence[Finding]) -> Text:
    """Summarize the findings in one line."""
    wrong, unknown = (
        [one.name for one in findings if one.verdict is verdict] for verdict in (Verdict.WRONG, Verdict.UNKNOWN)
    )
    if wrong:
        return Text(f"\nNot well: {', '.join(wrong)}.", style=_STYLES[Verdict.WRONG])
    known = f" Not known: {', '.join(unknown)}." if unknown else ""
    return Text(f"\nNothing is wrong.{known}", style=_STYLES[Verdict.WELL])


def switch_text(event_source: EventSource, depth: Depth, *, on: bool, stack_name: str) -> str:
    """Describe the effect of switching the event source mapping."""
    on_queue = f"{_count(depth.waiting, 'event waits', 'events wait')} on the queue, {depth.in_work} in work."
    if event_source.state != ("Enabled" if on else "Disabled"):
        return f"Lambda has not finished: the mapping is {event_source.state}. Run `stopper status` again. {on_queue}"
    if on:
        return (
            f"Resumed. {on_queue}\n"
            "Events that waited are late: the function asks the API about their tasks first, "
            "and stops no session that began after the event."
        )
    days = depth.retention_seconds / 86_400
    return (
        f"Paused: nothing is stopped from now on. {on_queue}\n"
        f"Events and callbacks still arrive. SQS keeps each for {days:.3g} days after it was sent.\n"
        "The alarm for the oldest message starts after 2 minutes, and the heartbeat's alarm after 15 minutes.\n"
        f"To resume: stopper resume --stack-name {stack_name}"
    )


def _count(number: int, one: str, many: str) -> str:
    return f"1 {one}" if number == 1 else f"{number} {many}"


def _block(title: str, rows: Sequence[tuple[str, str | None]]) -> Text:
    text = Text(printable(title) + "\n", style="bold")
    lines = [f"  {label:<{_LABEL_WIDTH}}{printable(value)}\n" for label, value in rows if value is not None]
    return Text.assemble(text, "".join(lines))


def _time(time_ms: int | None, now_ms: int) -> str | None:
    return None if time_ms is None else f"{readable_time(time_ms)}  ({readable_age(time_ms, now_ms)})"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _pretty(body: str) -> str:
    try:
        return json.dumps(json.loads(body), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        return body


def _indented(text: str, spaces: int) -> str:
    return "\n".join(" " * spaces + line for line in text.splitlines())
