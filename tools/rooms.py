"""The complete records of rooms. The functions read only the fields that they need."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from segments.events import Room, Task
from segments.ledger import LOOK_ITEM, OPEN_TASKS, ROOM_ITEM, WATCHED, WATCHED_TASKS, fields_of, task_of

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient


@dataclass(frozen=True)
class Item:
    """An item of the table: a task's record, `#room` (the room's newest end) or `#look` (when the room was found gone).

    Times are Unix ms, except `expires_at_seconds`.
    """

    task_id: str
    started_at_ms: int | None = None
    open_since_ms: int | None = None
    stop_event_time_ms: int | None = None
    stopped_at_ms: int | None = None
    outcome: str | None = None
    request_id: str | None = None
    event_type: str | None = None
    event_id: str | None = None
    business_id: str | None = None
    watch: str | None = None
    gone_at_ms: int | None = None
    expires_at_seconds: int | None = None

    @property
    def is_room(self) -> bool:
        """Whether the item is about the room itself."""
        return self.task_id in (ROOM_ITEM, LOOK_ITEM)

    @property
    def state(self) -> str:
        """The state of the task, or of the room, in a few words."""
        if self.task_id == LOOK_ITEM:
            return "found gone"
        if self.task_id == ROOM_ITEM:
            return "ended"
        if self.open_since_ms is None:
            end = self.outcome or "over"
            return f"{end}, only watched: the sweeper checks once more" if self.watch else end
        if self.stop_event_time_ms is not None:
            return f"open again, after it was {self.outcome}"
        return "open: seen, no stop event yet" if self.started_at_ms is None else "open: started, no stop event since"


_ATTRIBUTES = {field.name.removesuffix("_ms").removesuffix("_seconds"): field.name for field in fields(Item)}


@dataclass(frozen=True, order=True)
class OpenTask:
    """A task that may be running, as the index of the watched tasks shows it."""

    open_since_ms: int
    task: Task


def read_room(client: DynamoDBClient, table_name: str, room: Room, most: int = 100) -> tuple[list[Item], bool]:
    """Read the items of a room: first the items about the room itself, then the tasks by name.

    Parameters
    ----------
    most
        The maximum number of items, in the order of their names. At most the same number of open tasks is read in
        addition.

    Returns
    -------
    tuple
        The items, and whether the room may have more items.
    """
    of_room = {
        "TableName": table_name,
        "ConsistentRead": True,
        "KeyConditionExpression": "room = :room",
        "ExpressionAttributeValues": {":room": {"S": f"{room.app_id}#{room.room_id}"}},
    }
    listed = list(itertools.islice(_query(client, of_room), most + 1))
    open_ones = list(itertools.islice(_query(client, {**of_room, "IndexName": OPEN_TASKS}), most + 1))
    found = {item.task_id: item for item in (_item(one) for one in listed[:most] + open_ones[:most])}
    return [found[task_id] for task_id in sorted(found)], len(listed) > most or len(open_ones) > most


def read_open_tasks(client: DynamoDBClient, table_name: str, most: int) -> tuple[list[OpenTask], int]:
    """Read the tasks of all rooms that may be running.

    Returns
    -------
    tuple
        At most `most` tasks, the longest open task first, and the number of all open tasks.
    """
    count = 0

    def open_tasks() -> Iterator[OpenTask]:
        nonlocal count
        for item in read_watched(client, table_name):
            if "open_since" in item:
                count += 1
                open_since_ms = fields_of(item, {"open_since": "open_since_ms"})["open_since_ms"]
                yield OpenTask(open_since_ms or 0, task_of(item))

    return heapq.nsmallest(most, open_tasks()), count


def read_watched(client: DynamoDBClient, table_name: str) -> Iterator[dict[str, Any]]:
    """Read the keys and the sweeper's attributes of all watched items, in the order of their rooms."""
    return _query(
        client,
        {
            "TableName": table_name,
            "IndexName": WATCHED_TASKS,
            "KeyConditionExpression": "watch = :watch",
            "ExpressionAttributeValues": {":watch": {"S": WATCHED}},
        },
    )


def read_fields(client: DynamoDBClient, table_name: str, task: Task) -> dict[str, Any]:
    """Read the attributes of one item. The result is empty if the item does not exist."""
    room = f"{task.room.app_id}#{task.room.room_id}"
    key = {"room": {"S": room}, "task_id": {"S": task.task_id}}
    return dict(client.get_item(TableName=table_name, Key=key, ConsistentRead=True).get("Item", {}))


def _query(client: DynamoDBClient, request: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for page in client.get_paginator("query").paginate(**request):
        yield from page["Items"]


def to_json(item: Item) -> dict[str, Any]:
    """Write an item as JSON under the attribute names of the table, without missing attributes."""
    return {name: value for name, key in _ATTRIBUTES.items() if (value := getattr(item, key)) is not None}


def _item(attributes: dict[str, Any]) -> Item:
    return Item(**fields_of(attributes, _ATTRIBUTES))
