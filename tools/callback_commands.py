"""The commands for callbacks: `stopper callback --help`."""

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
    help="The URL in the RTC console, if it is not the stack's own: your domain, or the sandbox's URL.",
)
@click.option(
    "--key-file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="The key in the RTC console, to check that the secret holds the same. Without it, the secret's key.",
)
@common_options
def test(*, url: str | None, key_file: Path | None, stack_name: str, output_format: str) -> None:
    """Send a GET, a forged and a signed callback, and check the answers.

    The RTC console sends the GET when a URL is entered, and refuses the URL if the answer is not 200. The callbacks end
    a test room of a test application, and neither exists. The stack must refuse the forged callback, and accept and
    process the signed one. The exit code is 0 if all of this holds, else 1.
    """
    deployment = find_deployment(client("cloudformation"), stack_name)
    url = url or deployment.outputs.get("CallbackUrl")
    if url is None:
        raise click.ClickException("there is no callback URL: deploy with CallbackSecretArn (docs/setup.md)")
    if not url.startswith("https://"):
        raise click.ClickException(f"{url} is not an https URL, and the RTC server calls only https URLs")
    key = key_file.read_text().strip() if key_file else _key_of(deployment)
    if not key:
        raise click.ClickException("the file or the secret holds no callback key: put the RTC console's key into it")
    get_answer = callbacks.send_get(url)
    signed = callbacks.make_callback(now_ms(), "signed", key)
    forged = callbacks.forge(signed, now_ms())
    # The forged one first: `status` reports a wrong key if no accepted callback follows a refused one.
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
        raise click.ClickException("there is no callback secret: deploy with CallbackSecretArn, or give --key-file")
    try:
        return str(client("secretsmanager").get_secret_value(SecretId=secret_arn).get("SecretString", "")).strip()
    except ClientError as error:
        code = error.response["Error"]["Code"]
        raise click.ClickException(f"the callback secret {secret_arn} cannot be read: {code}") from None


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
        return "the FORGED one was served"
    if arrived:
        return "the signed one was served; the forged one never reached it"
    if taken:
        return f"the signed one was not served within {callbacks.ARRIVAL_SECONDS} s: run `stopper status`"
    return "neither callback reached it"
