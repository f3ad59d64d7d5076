"""The commands for callbacks, which `stopper callback --help` lists."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import click
from botocore.exceptions import ClientError

from segments.times import now_ms
from tools import callbacks
from tools.cli import NOT_ALL, client, common_options, examples, report
from tools.deployment import Deployment, find_deployment
from tools.interruption import interruptible


@click.group("callback")
def callback_group() -> None:
    """Check whether the RTC server's callbacks reach the stop function."""


@callback_group.command(
    "test", epilog=examples("callback test", "callback test --key-file console-key.txt", "callback test --output json")
)
@click.option(
    "--url",
    envvar="CALLBACK_URL",
    show_envvar=True,
    help="The URL in the RTC console, if the console has another URL than the stack's output CallbackUrl.",
)
@click.option(
    "--key-file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="File with the key of the RTC console, to check that the secret holds the same key. Default: the secret.",
)
@common_options
def test(*, url: str | None, key_file: Path | None, stack_name: str, output_format: str) -> None:
    """Send a GET, a forged and a signed callback, and check the answers.

    The RTC console sends a GET when a URL is entered, and refuses the URL if the answer is not 200. Both callbacks end
    a test room that does not exist. The stack must refuse the forged callback, and must accept and process the signed
    callback. The exit code is 0 if all checks succeed, else 1.
    """
    deployment = find_deployment(client("cloudformation"), stack_name)
    url = url or deployment.outputs.get("CallbackUrl")
    if url is None:
        raise click.ClickException(
            "the stack has no callback URL: deploy with CallbackSecretArn (docs/setup.md), or give --url"
        )
    if not url.startswith("https://"):
        raise click.ClickException(
            f"{url} is not an https URL, and the RTC server calls only https URLs: give one with --url"
        )
    key = key_file.read_text().strip() if key_file else _key_of(deployment)
    if not key:
        raise click.ClickException(
            f"{key_file or 'the callback secret'} is empty: write the callback key of the RTC console into it"
        )
    get_answer = callbacks.send_get(url)
    signed = callbacks.make_callback(now_ms(), "signed", key)
    forged = callbacks.forge(signed, now_ms())
    # Send the forged callback first: `status` reports a wrong key unless an accepted callback follows a refusal.
    forged_answer = callbacks.send(url, forged)
    signed_answer = callbacks.send(url, signed)
    with interruptible() as interrupted:
        arrived = signed_answer.is_taken and _arrives(deployment, signed["EventId"], interrupted)
    forged_served = _last_end(deployment) == forged["EventId"]
    queue = _at_the_queue(taken=signed_answer.is_taken, arrived=arrived, forged_served=forged_served)
    well = get_answer.status == 200 and arrived and forged_answer.is_refused and not forged_served
    report(
        output_format,
        {
            "url": url,
            "well": well,
            "get": {"status": get_answer.status, "word": callbacks.describe_get(get_answer)},
            "signed": {"status": signed_answer.status, "word": callbacks.describe_signed(signed_answer)},
            "forged": {"status": forged_answer.status, "word": callbacks.describe_forged(forged_answer)},
            "queue": {"arrived": arrived, "word": queue},
        },
        url,
        f"GET      {callbacks.describe_get(get_answer)}",
        f"signed   {callbacks.describe_signed(signed_answer)}",
        f"forged   {callbacks.describe_forged(forged_answer)}",
        f"queue    {queue}",
    )
    if not well:
        click.get_current_context().exit(NOT_ALL)


def _key_of(deployment: Deployment) -> str:
    secret_arn = deployment.parameters.get("CallbackSecretArn")
    if not secret_arn:
        raise click.ClickException(
            "the stack has no callback secret: deploy with CallbackSecretArn, or give --key-file"
        )
    try:
        return str(client("secretsmanager").get_secret_value(SecretId=secret_arn).get("SecretString", "")).strip()
    except ClientError as error:
        code = error.response["Error"]["Code"]
        raise click.ClickException(
            f"the callback secret {secret_arn} cannot be read ({code}): check its ARN and your permissions, or give "
            "--key-file"
        ) from None


def _arrives(deployment: Deployment, event_id: str, interrupted: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + callbacks.ARRIVAL_SECONDS
    while (arrived := _last_end(deployment)) != event_id:
        if interrupted() or time.monotonic() > deadline:
            break
        time.sleep(0.5)
    return arrived == event_id


def _last_end(deployment: Deployment) -> str | None:
    return callbacks.read_last_end(client("dynamodb"), deployment.outputs["SegmentTableName"])


def _at_the_queue(*, taken: bool, arrived: bool, forged_served: bool) -> str:
    if forged_served:
        return "the FORGED callback was processed: check that the URL leads to this stack's function"
    if arrived:
        return "the signed callback was processed, and the forged callback never arrived"
    if taken:
        return f"the signed callback was not processed within {callbacks.ARRIVAL_SECONDS} s: run `stopper status`"
    return "neither callback arrived"
