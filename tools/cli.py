"""The shared part of the operator's commands: options, clients, output and errors."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import boto3
import click
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from rich.console import RenderableType
from rich.table import Table

from tools import display
from tools.deployment import DEFAULT_STACK_NAME, NotDeployed
from tools.event_source import NoEventSource
from tools.queues import Interrupted

NOT_ALL = 1
AWS_TROUBLE = 3
INTERRUPTED = 130

Command = Callable[..., None]


def examples(*commands: str) -> str:
    """Format example calls for the end of a command's help text."""
    lines = "".join(f"\n  stopper {command}" for command in commands)
    return f"\b\nExamples:{lines}"


class AwsTrouble(click.ClickException):
    """An error of a call to AWS. The message is one sentence."""

    exit_code = AWS_TROUBLE


class Commands(click.Group):
    """Commands that report an error of AWS with one sentence and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command, and report an error of AWS in one sentence."""
        try:
            return super().invoke(ctx)
        except (NotDeployed, NoEventSource) as error:
            raise AwsTrouble(str(error)) from None
        except (ClientError, BotoCoreError) as error:
            raise AwsTrouble(f"a call to AWS failed. Fix the cause, then run the command again: {error}") from None
        except Interrupted:
            display.messages.print("Interrupted. The remaining steps were not done.")
            ctx.exit(INTERRUPTED)


def common_options(command: Command) -> Command:
    """Add the options that every command has."""
    for option in (
        click.option(
            "--output",
            "output_format",
            type=click.Choice(["text", "json"]),
            default="text",
            show_default=True,
            help="Output format: text for people, or json for programs, with times in Unix ms.",
        ),
        click.option(
            "--stack-name",
            envvar="STACK",
            default=DEFAULT_STACK_NAME,
            show_default=True,
            show_envvar=True,
            help="Name of the deployed stack.",
        ),
    ):
        command = option(command)
    return command


def client(service: str) -> Any:
    """Create a boto3 client of a service, for the account, region and endpoint of the environment."""
    config = Config(connect_timeout=5, read_timeout=15, retries={"mode": "standard", "total_max_attempts": 3})
    try:
        return boto3.session.Session().client(service, config=config)  # type: ignore[call-overload]
    except ValueError as error:  # an invalid setting, such as an endpoint that is not a URL
        raise AwsTrouble(
            f"an AWS setting is invalid: {error}. Correct AWS_PROFILE, AWS_REGION or AWS_ENDPOINT_URL"
        ) from None


def report(output_format: str, facts: dict[str, Any], *texts: RenderableType) -> None:
    """Print the result: `facts` as JSON, or `texts` for people."""
    if output_format == "json":
        click.echo(json.dumps(facts, indent=2))
        return
    for text in texts:
        display.output.print(text, soft_wrap=not isinstance(text, Table))
