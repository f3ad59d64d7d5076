"""The event source mapping: what hands the event queue's messages to the stop function, and so can be paused."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mypy_boto3_lambda import LambdaClient

SETTLING_SECONDS = 120  # AWS takes a minute at most, as a rule


class NoEventSource(Exception):
    """Nothing takes messages from the event queue, or more than one function does. The message says which."""


@dataclass(frozen=True)
class EventSource:
    """The mapping, as Lambda describes it.

    Parameters
    ----------
    state
        `Enabled`, `Disabled`, or what Lambda calls the way from one to the other.
    last_result
        What Lambda says of its last look at the queue; empty where it says nothing.
    """

    uuid: str
    state: str
    last_result: str = ""


def find_event_source(client: LambdaClient, queue_arn: str) -> EventSource:
    """Find the mapping of a queue.

    Raises
    ------
    NoEventSource
        There is none, or there are several.
    """
    found = client.list_event_source_mappings(EventSourceArn=queue_arn)["EventSourceMappings"]
    if len(found) != 1:
        raise NoEventSource(
            f"{len(found)} event source mappings take messages from the event queue, and there must be one"
        )
    return EventSource(found[0]["UUID"], found[0]["State"], found[0].get("LastProcessingResult", ""))


def switch(client: LambdaClient, queue_arn: str, *, on: bool, interrupted: Callable[[], bool]) -> EventSource:
    """Enable or disable the mapping of a queue, and wait until it is.

    Returns
    -------
    EventSource
        As it is then, or where Lambda takes longer than SETTLING_SECONDS or somebody interrupts, as it was last.
    """
    wanted = "Enabled" if on else "Disabled"
    mapping = find_event_source(client, queue_arn)
    if mapping.state != wanted:
        client.update_event_source_mapping(UUID=mapping.uuid, Enabled=on)
    deadline = time.monotonic() + SETTLING_SECONDS
    while (mapping := find_event_source(client, queue_arn)).state != wanted:
        if interrupted() or time.monotonic() > deadline:
            break
        time.sleep(1)
    return mapping
