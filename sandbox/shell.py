"""The instructions for a running sandbox: a file that a shell sources, and commands to paste."""

from __future__ import annotations

import json
import os
import shlex
import sys
import textwrap
from pathlib import Path

from sandbox.callbacks import local
from sandbox.stack import APP_ID, EVENT_BUS, OUTCOME_BUS, ROOT, STACK_NAME, Sandbox

_SETTINGS = """\
# Points a shell at the sandbox that `make sandbox` runs.
for name in $(env | sed -n 's/^\\(AWS_[A-Z0-9_]*\\)=.*/\\1/p'); do unset "$name"; done
export {variables}
export NO_PROXY="127.0.0.1${{NO_PROXY:+,$NO_PROXY}}"
export no_proxy="$NO_PROXY"
export PATH={programs}:"$PATH"
aws() {{ # version 1 of the AWS CLI ignores AWS_ENDPOINT_URL for SQS
    command aws --endpoint-url "$AWS_ENDPOINT_URL" "$@"
}}
output() {{ # the value of one of the stack's outputs
    aws cloudformation describe-stacks --stack-name "$STACK" \\
        --query "Stacks[0].Outputs[?OutputKey=='$1'].OutputValue" --output text
}}
"""

_INSTRUCTIONS = """
In another terminal, from this folder:

  . {settings}

The file names the stack, and finds the AWS CLI and the operator's command,
stopper.

Start a task in a room, send an event that ends the room, and wait for the
record of the stop:

  curl -s "$RTC_API/_control/tasks" \\
      -d {task_1}
  aws sqs send-message --queue-url "$(output EventQueueUrl)" --message-body \\
      {ended_1}
  until stopper room {app_id} room-1; do sleep 1; done
  curl -s "$RTC_API/_control/requests" | python -m json.tool

Send such an event through EventBridge, and through a callback:

  aws events put-events --entries \\
      {bus_entries}
  python -m sandbox.callbacks RoomDestroy {room_4} |
      curl -s -w '\\n' --cacert "$AWS_CA_BUNDLE" "$CALLBACK_URL" -d @-
  stopper callback test

Let the API fail for a task, and repair the API. The event is retried until
it succeeds.

  curl -s "$RTC_API/_control/tasks" \\
      -d {task_2}
  curl -s "$RTC_API/_control/fail" -d \\
      {fault_2}
  aws sqs send-message --queue-url "$(output EventQueueUrl)" --message-body \\
      {ended_2}
  until curl -s "$RTC_API/_control/requests" | grep room-2 > /dev/null
      do sleep 1; done
  curl -s -X POST "$RTC_API/_control/heal"
  until stopper room {app_id} room-2; do sleep 1; done

Send an event with a typing error, read the reason on the dead-letter queue,
and delete it:

  aws sqs send-message --queue-url "$(output EventQueueUrl)" --message-body \\
      {typo_5}
  until stopper letters show --room-id room-5; do sleep 1; done
  stopper letters purge --room-id room-5 --save {purged} --yes

Show the stopped tasks, and the events that the outcome bus received:

  aws dynamodb scan --table-name "$(output SegmentTableName)" \\
      --query 'Items[].[room.S, task_id.S, outcome.S]' --output text
  aws sqs receive-message --queue-url "$OUTCOME_QUEUE_URL"

The RTC API knows one application, {app_id}. Events on the bus {event_bus}
go to the event queue. The bus {outcome_bus} and the queue $OUTCOME_QUEUE_URL
receive the outcomes. `env | grep AWS_` and `output NAME` show the other
settings. The log of the functions is
{log}

Ctrl-C here stops everything.
"""


def settings(box: Sandbox) -> str:
    """Write the file that a shell sources. The file works in every POSIX shell, whatever variables are set."""
    variables = box.aws.environment | {
        "AWS_REGION": box.aws.environment["AWS_DEFAULT_REGION"],  # for the SDKs for Node.js and Java
        "NODE_EXTRA_CA_CERTS": str(box.aws.ca_bundle),
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "SAM_CLI_TELEMETRY": "0",
        "STACK": STACK_NAME,
        "RTC_API": box.rtc.url,
        "CALLBACK_URL": local(box.aws, box.outputs["CallbackUrl"]),
        "OUTCOME_QUEUE_URL": box.outcome_queue_url,
    }
    lines = " \\\n    ".join(f"{name}={shlex.quote(value)}" for name, value in variables.items())
    return _SETTINGS.format(variables=lines, programs=shlex.quote(str(Path(sys.executable).parent)))


def instructions(box: Sandbox, settings_file: Path) -> str:
    """Describe the sandbox. The indented lines are commands to paste."""
    return _INSTRUCTIONS.format(
        log=_from_here(box.aws.log),
        app_id=APP_ID,
        event_bus=EVENT_BUS,
        outcome_bus=OUTCOME_BUS,
        settings=shlex.quote(_from_here(settings_file)),
        purged=shlex.quote(_from_here(settings_file.with_name("purged.jsonl"))),
        task_1=_quoted(_task("room-1")),
        ended_1=_quoted(_ended("room-1")),
        bus_entries=_quoted(
            [
                {
                    "EventBusName": EVENT_BUS,
                    "Source": "me",
                    "DetailType": "RoomEnded",
                    "Detail": json.dumps(_task("room-3"), separators=(",", ":")),
                }
            ]
        ),
        room_4=_quoted({"RoomId": "room-4"}),
        task_2=_quoted(_task("room-2")),
        fault_2=_quoted({"kind": "error", "status": 500, "task": [APP_ID, "room-2", "audio"]}),
        ended_2=_quoted(_ended("room-2")),
        typo_5=_quoted(_ended("room-5") | {"EventType": "RoomEnd"}),
    )


def _from_here(path: Path) -> str:
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


def _task(room_id: str) -> dict[str, str]:
    return {"AppId": APP_ID, "RoomId": room_id, "TaskId": "audio"}


def _ended(room_id: str) -> dict[str, str]:
    return {"EventType": "RoomEnded"} | _task(room_id)


def _quoted(value: object) -> str:
    """Write a value as JSON for a shell, with long lines broken between values."""
    lines = textwrap.wrap(shlex.quote(json.dumps(value)), 72, break_long_words=False, break_on_hyphens=False)
    return "\n      ".join(lines)
