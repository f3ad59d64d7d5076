"""The commands that `stopper --help` lists."""

from __future__ import annotations

import click

from segments.events import Room
from segments.times import now_ms
from tools import display, parameters, rooms
from tools.callback_commands import callback_group
from tools.cli import NOT_ALL, Commands, client, common_options, examples, report
from tools.deployment import find_deployment
from tools.event_queue import read_depth
from tools.event_source import switch
from tools.inspection import inspect
from tools.interruption import interruptible
from tools.letter_commands import letters_group
from tools.status import is_well, judge

EXIT_CODES = """

\b
Exit codes:
  0    done
  1    status and callback test found a problem; show and room found nothing; redrive, purge and restore left
       letters where they were; Lambda did not finish pause or resume within 2 minutes
  2    wrong usage
  3    no such stack, not a stack of this application, no credentials, or AWS refused a call
  130  interrupted: the remaining steps were not done
"""


@click.group(
    cls=Commands,
    epilog=examples(
        "status",
        "callback test",
        "pause",
        "letters list",
        "letters redrive --kind exhausted --newer-than 2h",
        "letters redrive --kind exhausted --newer-than 2h --yes",
        "room 661e room-1",
        "open",
        "set MaxConcurrency=20",
    )
    + EXIT_CODES,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
def main() -> None:
    """Operate an RTC segment stopper.

    The commands use the account, the region and the endpoint of the AWS CLI, which AWS_PROFILE and AWS_REGION select.
    For the sandbox, set the variables of `.sandbox/env`, such as AWS_ENDPOINT_URL.
    """


@main.command(epilog=examples("room 661e room-1", "room 661e room-1 --output json"))
@click.argument("app_id")
@click.argument("room_id")
@click.option(
    "--limit", type=click.IntRange(1, 10_000), default=100, show_default=True, help="Maximum number of tasks to show."
)
@common_options
@click.pass_context
def room(ctx: click.Context, *, app_id: str, room_id: str, limit: int, stack_name: str, output_format: str) -> None:
    """Show all records of a room.

    The records show when the room ended, whether the sweeper found the room gone, and when each task started and was
    stopped. An open task may be running. For a task that is only watched, the sweeper checks once more whether a
    session began right after the stop.
    """
    asked = Room(app_id, room_id)
    deployment = find_deployment(client("cloudformation"), stack_name)
    items, more = rooms.read_room(client("dynamodb"), deployment.outputs["SegmentTableName"], asked, limit)
    report(
        output_format,
        {"app_id": app_id, "room_id": room_id, "items": [rooms.to_json(item) for item in items], "more": more},
        display.room_text(asked, items, now_ms()) if items else "The table has no record of this room.",
        *(["--limit leaves out some tasks. Open tasks are shown first."] if more else []),
    )
    if not items:
        ctx.exit(NOT_ALL)


@main.command("open", epilog=examples("open", "open --limit 1000 --output json"))
@click.option(
    "--limit", type=click.IntRange(1, 100_000), default=100, show_default=True, help="Maximum number of tasks to show."
)
@common_options
def open_tasks(*, limit: int, stack_name: str, output_format: str) -> None:
    """List the open tasks of all rooms, the oldest first."""
    deployment = find_deployment(client("cloudformation"), stack_name)
    tasks, count = rooms.read_open_tasks(client("dynamodb"), deployment.outputs["SegmentTableName"], limit)
    facts = [
        {
            "app_id": one.task.room.app_id,
            "room_id": one.task.room.room_id,
            "task_id": one.task.task_id,
            "open_since": one.open_since_ms,
        }
        for one in tasks
    ]
    report(
        output_format,
        {"open": count, "tasks": facts},
        display.open_table(tasks, now_ms()) if tasks else "No task is open.",
        *([f"--limit leaves out {count - len(tasks)} more."] if len(tasks) < count else []),
    )


@main.command(epilog=examples("status", "status --output json"))
@common_options
def status(*, stack_name: str, output_format: str) -> None:
    """Show on one screen whether the stack works, and which parts have a problem.

    Each line is well, wrong, waiting, unknown or off. The exit code is 0 if nothing is wrong, else 1.
    """
    deployment = find_deployment(client("cloudformation"), stack_name)
    with interruptible() as interrupted:
        facts = inspect(client, deployment, interrupted, now_ms())
    findings = judge(facts)
    report(
        output_format,
        {
            "stack": stack_name,
            "well": is_well(findings),
            "checks": {one.name: {"verdict": one.verdict, "word": one.word} for one in findings},
        },
        display.status_table(findings),
        display.status_line(findings),
    )
    if not is_well(findings):
        click.get_current_context().exit(NOT_ALL)


@main.command(epilog=examples("pause", "status", "resume"))
@common_options
def pause(*, stack_name: str, output_format: str) -> None:
    """Pause the stopping of tasks until `resume`. Events wait on the event queue.

    The command disables the event source mapping of the stop function. The function finishes the events that it has
    already received.
    """
    _switch(stack_name, output_format, on=False)


@main.command(epilog=examples("resume", "resume --output json"))
@common_options
def resume(*, stack_name: str, output_format: str) -> None:
    """Process events again, including the events that waited on the queue."""
    _switch(stack_name, output_format, on=True)


def _switch(stack_name: str, output_format: str, *, on: bool) -> None:
    deployment = find_deployment(client("cloudformation"), stack_name)
    with interruptible() as interrupted:
        event_source = switch(client("lambda"), deployment.outputs["EventQueueArn"], on=on, interrupted=interrupted)
    depth = read_depth(client("sqs"), deployment.outputs["EventQueueUrl"])
    report(
        output_format,
        {"state": event_source.state, "waiting": depth.waiting, "in_work": depth.in_work},
        display.switch_text(event_source, depth, on=on, stack_name=stack_name),
    )
    if event_source.state != ("Enabled" if on else "Disabled"):
        click.get_current_context().exit(NOT_ALL)


@main.command(
    "set",
    epilog=examples(
        "set MaxConcurrency=20", "set MaxConcurrency=20 RtcQpsLimit=100 --yes", "set --clear AlarmTopicArn --yes"
    ),
)
@click.argument("assignments", nargs=-1, metavar="PARAMETER=VALUE...")
@click.option(
    "--clear",
    "cleared",
    multiple=True,
    metavar="PARAMETER",
    help="Parameter to make empty, which removes the parameter's feature.",
)
@click.option("--yes", is_flag=True, help="Change the stack. Without --yes, the command only shows the changes.")
@common_options
def set_parameters(
    *, assignments: tuple[str, ...], cleared: tuple[str, ...], yes: bool, stack_name: str, output_format: str
) -> None:
    """Change parameters of the stack, but not its code.

    The stack keeps its deployed template and code, even if the files in this folder differ. The next deployment keeps
    the new values, unless it sets other values. To make a value empty, use --clear. docs/parameters.md describes the
    parameters.
    """
    deployment = find_deployment(client("cloudformation"), stack_name)
    try:
        values = parameters.unlike(deployment, parameters.read(assignments, cleared))
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="PARAMETER=VALUE") from None
    if yes and values:
        parameters.change(client("cloudformation"), deployment, values)
    before = {name: deployment.parameters[name] for name in values}
    lines = [f"{name}: {before[name] or 'empty'} -> {value or 'empty'}" for name, value in values.items()]
    end = "Done." if yes else "Nothing was done. With --yes, the stack would be updated."
    report(
        output_format,
        {"before": before, "after": values, "dry_run": not yes},
        *(lines or ["The stack has these values already."]),
        *([end] if values else []),
    )


main.add_command(callback_group)
main.add_command(letters_group)

if __name__ == "__main__":
    main(prog_name="stopper")
