"""Pausing and resuming the event source mapping between the event queue and the stop function."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

if TYPE_CHECKING:
    from mypy_boto3_lambda import LambdaClient

SETTLING_SECONDS = 120  # AWS usually takes at most 1 minute
_STILL_CHANGING = ("ResourceInUseException", "ResourceConflictException")


class NoEventSource(Exception):
    """The event queue has no event source mapping, or several mappings. The message gives the number of mappings."""


@dataclass(frozen=True)
class EventSource:
    """The event source mapping, as Lambda describes it.

    Parameters
    ----------
    state
        `Enabled`, `Disabled`, or Lambda's name for the change between these states. Lambda reports a last result only
        for mappings of streams, not of queues.
    """

    uuid: str
    state: str


def find_event_source(client: LambdaClient, queue_arn: str) -> EventSource:
    """Find the event source mapping of a queue.

    Raises
    ------
    NoEventSource
        The queue has no mapping, or several mappings.
    """
    found = client.list_event_source_mappings(EventSourceArn=queue_arn)["EventSourceMappings"]
    if len(found) != 1:
        advice = "delete every mapping but the stack's" if found else "deploy the stack again"
        raise NoEventSource(f"the event queue has {len(found)} event source mappings, but must have 1: {advice}")
    return EventSource(found[0]["UUID"], found[0]["State"])


def switch(client: LambdaClient, queue_arn: str, *, on: bool, interrupted: Callable[[], bool]) -> EventSource:
    """Enable or disable the mapping of a queue, and wait until Lambda has finished the change.

    Returns
    -------
    EventSource
        The changed mapping, or its last known state if Lambda takes longer than SETTLING_SECONDS or the operator
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
    """Ask Lambda to switch the mapping. Return False if Lambda is still busy with another change."""
    try:
        client.update_event_source_mapping(UUID=mapping.uuid, Enabled=on)
    except ClientError as error:
        if error.response["Error"]["Code"] in _STILL_CHANGING:
            return False
        raise
    return True
