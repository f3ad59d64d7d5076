"""The event source mapping between the event queue and the stop function, which can be paused."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

if TYPE_CHECKING:
    from mypy_boto3_lambda import LambdaClient

SETTLING_SECONDS = 120  # AWS usually takes at most a minute
_STILL_CHANGING = ("ResourceInUseException", "ResourceConflictException")


class NoEventSource(Exception):
    """The event queue has no event source mapping, or more than one. The message gives the number."""


@dataclass(frozen=True)
class EventSource:
    """The mapping, as Lambda describes it.

    Parameters
    ----------
    state
        `Enabled`, `Disabled`, or Lambda's name for the change from one to the other. Lambda reports no last result for
        the mapping of a queue, only for the mapping of a stream.
    """

    uuid: str
    state: str


def find_event_source(client: LambdaClient, queue_arn: str) -> EventSource:
    """Find the mapping of a queue.

    Raises
    ------
    NoEventSource
        The queue has no mapping, or several.
    """
    found = client.list_event_source_mappings(EventSourceArn=queue_arn)["EventSourceMappings"]
    if len(found) != 1:
        raise NoEventSource(
            f"{len(found)} event source mappings take messages from the event queue, and there must be one"
        )
    return EventSource(found[0]["UUID"], found[0]["State"])


def switch(client: LambdaClient, queue_arn: str, *, on: bool, interrupted: Callable[[], bool]) -> EventSource:
    """Enable or disable the mapping of a queue, and wait until Lambda has done so.

    Returns
    -------
    EventSource
        The mapping afterwards, or its last known state if Lambda takes longer than SETTLING_SECONDS or the operator
        interrupts.
    """
    wanted = "Enabled" if on else "Disabled"
    deadline = time.monotonic() + SETTLING_SECONDS
    is_asked = False
    while (mapping := find_event_source(client, queue_arn)).state != wanted:
        if not is_asked:
            is_asked = _ask(client, mapping, on=on)
            if is_asked:
                continue
        if interrupted() or time.monotonic() > deadline:
            break
        time.sleep(1)
    return mapping


def _ask(client: LambdaClient, mapping: EventSource, *, on: bool) -> bool:
    """Ask Lambda to switch the mapping; return False if Lambda is still busy with another change."""
    try:
        client.update_event_source_mapping(UUID=mapping.uuid, Enabled=on)
    except ClientError as error:
        if error.response["Error"]["Code"] in _STILL_CHANGING:
            return False
        raise
    return True
