"""What a person gets to play with a running sandbox: a file that points a shell at it, and commands to paste."""

from __future__ import annotations

import json
import os
import shlex
import sys
from pathlib import Path

from sandbox.callbacks import SECRET_KEY, local
from sandbox.stack import APP_ID, EVENT_BUS, OUTCOME_BUS, STACK_NAME, Sandbox

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
AWS        {aws}   (its log, and the functions': {log})
RTC API    {rtc}   (it knows one application: {app_id})
callbacks  {callback_url}
           signed with the key {callback_key}
buses      {event_bus}: its events go to the event queue; {outcome_bus}: is told of stops, and so is $OUTCOME_QUEUE_URL
stack      {stack}
{outputs}

In another terminal, from this folder. It names the stack, and finds the AWS CLI and the tools:

  . {settings}

Start a task in the room, send an event that ends the room, and wait for what becomes of it:

  curl -s "$RTC_API/_control/tasks" -d {task_1}
  aws sqs send-message --queue-url "$(output EventQueueUrl)" --message-body {ended_1}
  until python -m tools room {app_id} room-1; do sleep 1; done
  curl -s "$RTC_API/_control/requests" | python -m json.tool

The same from the event bus, and from the RTC server itself:

  aws events put-events --entries {bus_entries}
  python -m sandbox.callbacks RoomDestroy {room_4} | curl -s -w '\\n' --cacert "$AWS_CA_BUNDLE" "$CALLBACK_URL" -d @-
  python -m tools callback test

Let the API fail for a task, and heal it: the event is tried until it is served.

  curl -s "$RTC_API/_control/tasks" -d {task_2}
  curl -s "$RTC_API/_control/fail" -d {fault_2}
  aws sqs send-message --queue-url "$(output EventQueueUrl)" --message-body {ended_2}
  until curl -s "$RTC_API/_control/requests" | grep room-2 > /dev/null; do sleep 1; done
  curl -s -X POST "$RTC_API/_control/heal"
  until python -m tools room {app_id} room-2; do sleep 1; done

Send what can never work, read why on the dead-letter queue, and throw it away:

  aws sqs send-message --queue-url "$(output EventQueueUrl)" --message-body {typo_5}
  until python -m tools letters show --room-id room-5; do sleep 1; done
  python -m tools letters purge --room-id room-5 --save {purged} --yes

See what has been stopped, and what the outcome bus was told:

  aws dynamodb scan --table-name "$(output SegmentTableName)"
  aws sqs receive-message --queue-url "$OUTCOME_QUEUE_URL"

Ctrl-C here stops everything.
"""


def settings(box: Sandbox) -> str:
    """Write the file that a shell sources. It works in any POSIX shell, and does not mind what was set before."""
    variables = box.aws.environment | {
        "AWS_REGION": box.aws.environment["AWS_DEFAULT_REGION"],  # the SDKs of Node and Java read no other
        "NODE_EXTRA_CA_CERTS": str(box.aws.ca_bundle),
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "STACK": STACK_NAME,
        "RTC_API": box.rtc.url,
        "CALLBACK_URL": _callback_url(box),
        "CALLBACK_KEY": SECRET_KEY,
        "OUTCOME_QUEUE_URL": box.outcome_queue_url,
    }
    lines = " \\\n    ".join(f"{name}={shlex.quote(value)}" for name, value in variables.items())
    return _SETTINGS.format(variables=lines, programs=shlex.quote(str(Path(sys.executable).parent)))


def instructions(box: Sandbox, settings_file: Path) -> str:
    """Say what runs where, and give commands that can be pasted as they stand: the indented lines."""
    return _INSTRUCTIONS.format(
        aws=box.aws.endpoint,
        log=box.aws.log,
        rtc=box.rtc.url,
        app_id=APP_ID,
        callback_url=_callback_url(box),
        callback_key=SECRET_KEY,
        event_bus=EVENT_BUS,
        outcome_bus=OUTCOME_BUS,
        stack=STACK_NAME,
        outputs="\n".join(f"           {name:<24}{value}" for name, value in box.outputs.items()),
        settings=shlex.quote(str(settings_file)),
        purged=shlex.quote(str(settings_file.with_name("purged.jsonl"))),
        task_1=_quoted(_task("room-1")),
        ended_1=_quoted(_ended("room-1")),
        bus_entries=_quoted(
            [
                {
                    "EventBusName": EVENT_BUS,
                    "Source": "me",
                    "DetailType": "RoomEnded",
                    "Detail": json.dumps(_task("room-3")),
                }
            ]
        ),
        room_4=_quoted({"RoomId": "room-4"}),
        task_2=_quoted(_task("room-2")),
        fault_2=_quoted({"kind": "error", "status": 500, "task": [APP_ID, "room-2", "audio"]}),
        ended_2=_quoted(_ended("room-2")),
        typo_5=_quoted(_ended("room-5") | {"EventType": "RoomEnd"}),
    )


def _callback_url(box: Sandbox) -> str:
    return local(box.aws, box.outputs["CallbackUrl"])


def _task(room_id: str) -> dict[str, str]:
    return {"AppId": APP_ID, "RoomId": room_id, "TaskId": "audio"}


def _ended(room_id: str) -> dict[str, str]:
    return {"EventType": "RoomEnded"} | _task(room_id)


def _quoted(value: object) -> str:
    return shlex.quote(json.dumps(value))
