"""The commands for dead letters, which `stopper letters --help` lists."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.console import RenderableType

from segments.times import now_ms
from tools import display, letters, saved
from tools.cli import NOT_ALL, Command, client, common_options, examples, report
from tools.deployment import Deployment, find_deployment
from tools.interruption import interruptible
from tools.letters import DeadLetter, Selection
from tools.queues import DeadLetterQueue, Reading, Tally
from tools.times import parse_age


class Age(click.ParamType):
    """An age on the command line, in seconds."""

    name = "age"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read an age such as `90s` or `2h`."""
        try:
            return parse_age(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def selection_options(command: Command) -> Command:
    """Add the options that select letters, and pass the `Selection` to the command."""

    @click.option("--id", "source_message_id", help="The letter of the message with this id on the event queue.")
    @click.option("--kind", type=click.Choice(letters.KINDS), help="Letters with this ErrorKind.")
    @click.option("--code", help="Letters with this ErrorCode.")
    @click.option("--app-id", help="Letters of this application.")
    @click.option("--room-id", help="Letters of rooms with this id.")
    @click.option(
        "--older-than", type=Age(), help="Letters that failed longer ago than this age, such as 90s, 15m, 2h, 3d, 1w."
    )
    @click.option("--newer-than", type=Age(), help="Letters that failed within this age.")
    @functools.wraps(command)
    def with_selection(*, older_than: int | None, newer_than: int | None, **options: Any) -> None:
        asked_at_ms = now_ms()
        selection = Selection(
            **{name: options.pop(name) for name in ("source_message_id", "kind", "code", "app_id", "room_id")},
            failed_before_ms=None if older_than is None else asked_at_ms - older_than * 1_000,
            failed_after_ms=None if newer_than is None else asked_at_ms - newer_than * 1_000,
        )
        command(selection=selection, **options)

    return with_selection


@click.group("letters")
def letters_group() -> None:
    """List, show, redrive or delete dead letters.

    SQS cannot list a queue. Every command therefore receives all letters, and other readers do not receive these
    letters meanwhile. At the end, and on Ctrl-C, the command gives back the letters that it did not delete. The letters
    of a killed command appear again after 20 seconds, plus 40 seconds for every 1,000 letters. A redrive adds the time
    that it needs to send the letters.
    """


@letters_group.command("list", epilog=examples("letters list", "letters list --newer-than 15m --output json"))
@selection_options
@common_options
def list_letters(*, selection: Selection, stack_name: str, output_format: str) -> None:
    """Count the dead letters by their reason.

    Letters of the kind `died` have no reason, because the function crashed and SQS moved the messages.
    """
    with _opened(stack_name) as (_, queue):
        reading = queue.read()
    chosen = letters.select(reading.letters, selection)
    report(output_format, _overview(reading, chosen), _groups_or_none(chosen))
    _warn(output_format, reading)


@letters_group.command(
    "show",
    epilog=examples(
        "letters show --id 0d2d2d6c-6b0e-4e4e-9c56-7a4c2b3f1a52",
        "letters show --app-id 661e --room-id room-1",
        "letters show --kind rejected --limit 3 --output json",
    ),
)
@selection_options
@click.option("--limit", type=click.IntRange(1), help="Maximum number of letters to show.")
@common_options
@click.pass_context
def show_letters(
    ctx: click.Context, *, selection: Selection, limit: int | None, stack_name: str, output_format: str
) -> None:
    """Show whole dead letters, the oldest failure first."""
    with _opened(stack_name) as (_, queue):
        reading = queue.read()
    chosen = letters.select(reading.letters, selection)
    shown, left_off = chosen[:limit], len(chosen[limit:]) if limit else 0
    shown_at_ms = now_ms()
    report(
        output_format,
        {**_completeness(reading), "letters": [letters.to_json(letter) for letter in shown], "left_off": left_off},
        *[display.letter_text(letter, shown_at_ms) for letter in shown],
        *([] if chosen else ["No such letter."]),
        *([f"--limit leaves out {_letters(left_off)}."] if left_off else []),
    )
    _warn(output_format, reading)
    if not chosen:
        ctx.exit(NOT_ALL)


@letters_group.command(
    epilog=examples(
        "letters redrive",
        "letters redrive --yes",
        "letters redrive --kind exhausted --older-than 10m --per-second 20 --yes",
        "letters redrive --app-id 661e --room-id room-1 --yes",
    )
)
@selection_options
@click.option("--yes", is_flag=True, help="Send the letters. Without --yes, the command only shows the letters.")
@click.option(
    "--per-second",
    type=click.IntRange(1, 3_000),
    default=50,
    show_default=True,
    help="Maximum number of letters to send per second.",
)
@common_options
def redrive(*, selection: Selection, yes: bool, per_second: int, stack_name: str, output_format: str) -> None:
    """Send dead letters to the event queue again.

    Fix the cause first. Each letter keeps its event time, so it cannot stop a task that started later. Redriving a
    letter twice changes nothing. A letter is deleted only after the event queue has accepted it, so no letter is lost.
    A message that fails again becomes a new letter.
    """
    with _opened(stack_name) as (deployment, queue):
        reading = queue.read(seconds_a_letter=1 / per_second)
        chosen = letters.select(reading.letters, selection)
        steps = queue.redrive(chosen, deployment.outputs["EventQueueUrl"], per_second)
        _warn_of_hopeless(output_format, chosen)
        _work(reading, chosen, steps if yes else None, "redriven", output_format)


@letters_group.command(
    epilog=examples(
        "letters purge --kind invalid_message --save invalid.jsonl",
        "letters purge --kind invalid_message --save invalid.jsonl --yes",
        "letters restore invalid.jsonl",
    )
)
@selection_options
@click.option(
    "--save",
    "file",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    metavar="FILE",
    help="New file for the copies, in JSON Lines. The file is on the disk before any letter is deleted.",
)
@click.option("--yes", is_flag=True, help="Delete the letters. Without --yes, the command only shows the letters.")
@common_options
def purge(*, selection: Selection, file: Path, yes: bool, stack_name: str, output_format: str) -> None:
    """Save dead letters to a file, then delete them."""
    if file.exists():
        raise click.BadParameter(f"{file} exists already: name a new file", param_hint="--save")
    with _opened(stack_name) as (_, queue):
        reading = queue.read()
        chosen = letters.select(reading.letters, selection)
        if yes and chosen:
            try:
                saved.save(file, chosen)
            except OSError as error:
                raise click.FileError(str(file), error.strerror) from None
        _work(reading, chosen, queue.delete(chosen) if yes else None, "purged", output_format)


@letters_group.command(epilog=examples("letters restore invalid.jsonl"))
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@common_options
def restore(*, file: Path, stack_name: str, output_format: str) -> None:
    """Put purged letters back on the dead-letter queue.

    FILE is a file that `purge` has written.
    """
    try:
        copies = saved.load(file)
    except (ValueError, OSError) as error:
        raise click.BadParameter(
            f"{file} cannot be restored, because {error}. Give a file that `stopper letters purge` saved",
            param_hint="FILE",
        ) from None
    with _opened(stack_name) as (_, queue):
        _follow(queue.restore(copies), len(copies), "restored", {}, output_format)


@contextlib.contextmanager
def _opened(stack_name: str) -> Iterator[tuple[Deployment, DeadLetterQueue]]:
    deployment = find_deployment(client("cloudformation"), stack_name)
    with (
        interruptible() as interrupted,
        DeadLetterQueue(client("sqs"), deployment.outputs["DeadLetterQueueUrl"], interrupted) as queue,
    ):
        yield deployment, queue


def _work(
    reading: Reading, chosen: list[DeadLetter], steps: Iterable[Tally] | None, verb: str, output_format: str
) -> None:
    """Carry out the job on the letters with --yes, or only show which letters the job would change."""
    facts = {**_overview(reading, chosen), "dry_run": steps is None}
    _warn(output_format, reading)
    if steps is not None:
        _follow(steps, len(chosen), verb, facts, output_format)
    else:
        advice = [f"\nNothing was done. With --yes, {_letters(len(chosen))} would be {verb}."] if chosen else []
        report(output_format, facts | asdict(Tally()), _groups_or_none(chosen), *advice)


def _follow(steps: Iterable[Tally], total: int, verb: str, facts: dict[str, Any], output_format: str) -> None:
    """Carry out a job with a progress bar, and report how many letters the job handled."""
    tally = Tally()
    try:
        with display.progress_bar(verb.capitalize(), shown=output_format == "text" and total > 0) as progress:
            bar = progress.add_task(verb, total=total)
            for step in steps:
                tally += step
                progress.update(bar, completed=tally.total)
    finally:
        left = []
        if tally.refused:
            left.append(f"{_letters(tally.refused)} refused, and left on the queue: {tally.reason}")
        if tally.undeleted:
            left.append(f"{_letters(tally.undeleted)} not deleted, so they can be chosen again: {tally.reason}")
        report(output_format, facts | asdict(tally), f"{tally.done} of {_letters(total)} {verb}.", *left)
    if tally.done < total:
        click.get_current_context().exit(NOT_ALL)


def _overview(reading: Reading, chosen: list[DeadLetter]) -> dict[str, Any]:
    return {
        **_completeness(reading),
        "letters": len(chosen),
        "groups": [letters.group_to_json(one) for one in letters.group(chosen)],
    }


def _completeness(reading: Reading) -> dict[str, Any]:
    return {"complete": reading.complete, "hidden": reading.hidden}


def _groups_or_none(chosen: list[DeadLetter]) -> RenderableType:
    return display.groups_text(letters.group(chosen), now_ms()) if chosen else "No dead letters."


def _warn(output_format: str, reading: Reading) -> None:
    if output_format == "json":
        return
    if reading.hidden:
        display.messages.print(
            f"Another reader, perhaps a killed command, holds about {_letters(reading.hidden)}, which are not shown. "
            "The held letters appear again within minutes."
        )
    if not reading.complete:
        display.messages.print(
            "The queue was not read to its end: letters arrived faster than they could be read, or 120,000 letters "
            "are in flight, and SQS delivers no more. Repeat the command later."
        )


def _warn_of_hopeless(output_format: str, chosen: list[DeadLetter]) -> None:
    kinds = sorted({letter.kind for letter in chosen} & set(letters.HOPELESS))
    if kinds and output_format != "json":
        count = sum(letter.kind in kinds for letter in chosen)
        display.messages.print(
            f"{_letters(count)} of the kind {' or '.join(kinds)} will fail again, unless the cause was in your "
            "account. Leave them out with --kind exhausted, and let the sender send corrected events."
        )


def _letters(count: int) -> str:
    return "1 letter" if count == 1 else f"{count} letters"
