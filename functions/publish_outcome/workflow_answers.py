"""Answers for workflows: each task token is answered with the result of its message."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from typing import Any

import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from segments.batches import at_once

# Step Functions' codes for a token that no longer has a waiting workflow; the last code is from embedded AWS.
OVER = ("TaskTimedOut", "InvalidToken", "TaskDoesNotExist")


def answer_in(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the answer for a workflow in a record, or an empty dictionary if the record holds no answer."""
    answer: dict[str, Any] = json.loads(record["body"]) if record["eventSource"] == "aws:sqs" else {}
    return answer if "TaskToken" in answer else {}


def answer_all(answers: Mapping[str, Mapping[str, Any]]) -> dict[str, str | None]:
    """Answer workflows at the same time. Returns each answer's failure, or None, by the id of its message.

    An answer has a TaskToken, and either an Output or an Error with a Cause. A failure is AWS's error code, or the name
    of the exception.
    """
    if not answers:
        return {}
    client = step_functions()
    failures = at_once([functools.partial(_answer, client, answer) for answer in answers.values()])
    return dict(zip(answers, failures, strict=True))


def _answer(client: Any, answer: Mapping[str, Any]) -> str | None:
    try:
        if "Output" in answer:
            client.send_task_success(taskToken=answer["TaskToken"], output=json.dumps(answer["Output"]))
        else:
            client.send_task_failure(taskToken=answer["TaskToken"], error=answer["Error"], cause=answer["Cause"])
    except (ClientError, BotoCoreError) as error:
        return code_of(error)
    return None


def code_of(error: ClientError | BotoCoreError) -> str:
    """Return AWS's error code in an exception, or the exception's name."""
    return error.response["Error"]["Code"] if isinstance(error, ClientError) else type(error).__name__


@functools.cache
def step_functions() -> Any:
    """Create the client when the first workflow is answered: most stacks answer no workflow."""
    return make_client("stepfunctions")


def make_client(service: str) -> Any:
    """Create a client of an AWS service."""
    config = Config(connect_timeout=2, read_timeout=5, retries={"mode": "standard", "total_max_attempts": 3})
    return botocore.session.get_session().create_client(service, config=config)
