"""A sandbox to play in: stays up until interrupted."""

from __future__ import annotations

import json
import shlex
import signal
import threading

from rich.console import Console

from sandbox.callbacks import local
from sandbox.stack import Sandbox, sandbox


def main() -> None:
    """Start the sandbox, print how to use it, and wait for Ctrl-C or SIGTERM."""
    console = Console(highlight=False, soft_wrap=True, emoji=False)
    interrupted = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: interrupted.set())
    console.print("Starting an AWS and an RTC API on this machine, and deploying template.yaml with SAM CLI ...")
    with sandbox() as box:
        console.print(_instructions(box), markup=False)
        interrupted.wait()
    console.print("\nBoth servers are stopped.")


def _instructions(box: Sandbox) -> str:
    event = {"EventType": "RoomEnded", "AppId": "661e", "RoomId": "room-1", "TaskId": "audio"}
    task = {key: event[key] for key in ("AppId", "RoomId", "TaskId")}
    callback_url = local(box.aws, box.outputs["CallbackUrl"])
    settings = " ".join(
        f"{name}={shlex.quote(value)}" for name, value in {**box.aws.environment, "CALLBACK_URL": callback_url}.items()
    )
    outputs = "\n".join(f"  {name:<24}{value}" for name, value in box.outputs.items())
    return f"""
AWS      {box.aws.endpoint}   (its log, and the functions': {box.aws.log})
RTC API  {box.rtc.url}
{outputs}

CallbackUrl is here {callback_url}

In another terminal, from this folder:

  # point the AWS CLI here
  export {settings} PATH="$PWD/.venv/bin:$PATH"

  # start a task in the room, send an event that ends the room, see the requests that the RTC API got
  curl -s {box.rtc.url}/_control/tasks -d {shlex.quote(json.dumps(task))}
  aws sqs send-message --endpoint-url {box.aws.endpoint} --queue-url {box.outputs["EventQueueUrl"]} \\
      --message-body {shlex.quote(json.dumps(event))}
  curl -s {box.rtc.url}/_control/requests

  # what has been stopped, and what could not be
  aws dynamodb scan --table-name {box.outputs["SegmentTableName"]}
  aws sqs receive-message --endpoint-url {box.aws.endpoint} --message-attribute-names All \\
      --queue-url {box.outputs["DeadLetterQueueUrl"]}

  # let the API's next three requests fail
  curl -s {box.rtc.url}/_control/fail -d '{{"kind": "error", "status": 500, "next_requests": 3}}'

Ctrl-C stops everything.
"""


if __name__ == "__main__":
    main()
