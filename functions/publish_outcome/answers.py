"""Answers to workflows: each task token is answered with the end of the message that carried it."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from enum import Enum, auto
from typing import Any

import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from segments.batches import ENTRIES_A_CALL

# What Step Functions says of a token that nobody waits with any more; the last is embedded AWS's word for it.
_OVER = ("TaskTimedOut", "InvalidToken", "TaskDoesNotExist")


class Answered(Enum):
    """What became of an answer."""

    TAKEN = auto()
    GONE = auto()


def answer_in(record: Mapping[str, Any]) -> dict[str, Any]:
    """Read the answer that a message of the queue holds; empty where it holds something else."""
    told: dict[str, Any] = json.loads(record["body"]) if record["eventSource"] == "aws:sqs" else {}
    return told if "TaskToken" in told else {}


def answer(client: Any, told: Mapping[str, Any]) -> Answered | str:
    """Answer a workflow.

    Parameters
    ----------
    client
        A client of Step Functions.
    told
        The stop function's answer: a TaskToken, and either an Output or an Error with its Cause.

    Returns
    -------
    Answered | str
        A text is why it could not be answered: it may work later.
    """
    try:
        if "Output" in told:
            client.send_task_success(taskToken=told["TaskToken"], output=json.dumps(told["Output"]))
        else:
            client.send_task_failure(taskToken=told["TaskToken"], error=told["Error"], cause=told["Cause"])
    except ClientError as error:
        code = error.response["Error"]["Code"]
        return Answered.GONE if code in _OVER else code
    except BotoCoreError as error:
        return type(error).__name__
    return Answered.TAKEN


def answer_all(answers: Mapping[str, Mapping[str, Any]]) -> dict[str, Answered | str]:
    """Answer several workflows at once, by the ids of the messages that hold the answers."""
    if not answers:
        return {}
    with ThreadPoolExecutor(ENTRIES_A_CALL) as threads:
        return dict(
            zip(answers, threads.map(functools.partial(answer, step_functions()), answers.values()), strict=True)
        )


@functools.cache
def step_functions() -> Any:
    """Make the client, when the first workflow is answered: most stacks answer none."""
    config = Config(connect_timeout=2, read_timeout=5, retries={"mode": "standard", "total_max_attempts": 3})
    return botocore.session.get_session().create_client("stepfunctions", config=config)
