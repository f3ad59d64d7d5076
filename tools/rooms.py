"""What the segment table knows of a room, whole: the functions read only what they decide by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from segments.events import Room
from segments.ledger import LOOK_ITEM, ROOM_ITEM, WATCHED, WATCHED_TASKS

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

_ATTRIBUTES = {
    "task_id": "task_id",
    "started_at": "started_at_ms",
    "open_since": "open_since_ms",
    "stop_event_time": "stop_event_time_ms",
    "stopped_at": "stopped_at_ms",
    "outcome": "outcome",
    "request_id": "request_id",
    "event_type": "event_type",
    "event_id": "event_id",
    "business_id": "business_id",
    "watch": "watch",
    "gone_at": "gone_at_ms",
    "expires_at": "expires_at_seconds",
}


@dataclass(frozen=True)
class Item:
    """An item of the table: a task's record or, as the task `#room`, the room's own. Times are Unix ms."""

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
        """Whether it is about the room itself."""
        return self.task_id in (ROOM_ITEM, LOOK_ITEM)

    @property
    def heard_ms(self) -> int:
        """When the task was opened, as far as the item says."""
        return self.open_since_ms or 0

    @property
    def is_open(self) -> bool:
        """Whether it is a task that may be running."""
        return self.open_since_ms is not None

    @property
    def state(self) -> str:
        """What the item says of its task, or of the room, in a few words."""
        if self.is_room:
            return self._room_state
        if not self.is_open:
            return str(self.outcome)
        if self.stop_event_time_ms is not None:
            return f"open again, after it was {self.outcome}"
        return "open: seen, no stop event yet" if self.started_at_ms is None else "open: started, no stop event since"

    @property
    def _room_state(self) -> str:
        ended = "" if self.stop_event_time_ms is None else "ended"
        gone = "" if self.gone_at_ms is None else "found gone"
        return ended or gone


def read_room(client: DynamoDBClient, table_name: str, room: Room) -> list[Item]:
    """Read every item of a room, its own first and then its tasks' by name; none where the table knows nothing."""
    pages = client.get_paginator("query").paginate(
        TableName=table_name,
        ConsistentRead=True,
        KeyConditionExpression="room = :room",
        ExpressionAttributeValues={":room": {"S": f"{room.app_id}#{room.room_id}"}},
    )
    return [_item(attributes) for page in pages for attributes in page["Items"]]


def read_open_tasks(client: DynamoDBClient, table_name: str) -> list[tuple[Room, Item]]:
    """Read the open tasks of all rooms that the sweeper watches, the one that has been open longest first."""
    pages = client.get_paginator("query").paginate(
        TableName=table_name,
        IndexName=WATCHED_TASKS,
        KeyConditionExpression="watch = :watch",
        ExpressionAttributeValues={":watch": {"S": WATCHED}},
    )
    keys = dict.fromkeys(attributes["room"]["S"] for page in pages for attributes in page["Items"])
    rooms = [Room(*key.split("#", 1)) for key in keys]
    found = [(room, item) for room in rooms for item in read_room(client, table_name, room) if item.is_open]
    return sorted(found, key=lambda one: (one[1].heard_ms, one[0], one[1].task_id))


def to_json(item: Item) -> dict[str, Any]:
    """Write an item under the table's own names; what it does not say is left out."""
    return {name: value for name, key in _ATTRIBUTES.items() if (value := getattr(item, key)) is not None}


def _item(attributes: dict[str, Any]) -> Item:
    plain = {name: _plain(attribute) for name, attribute in attributes.items()}
    return Item(**{field: plain[name] for name, field in _ATTRIBUTES.items() if name in plain})


def _plain(attribute: Mapping[str, Any]) -> Any:
    ((kind, value),) = attribute.items()
    return int(value) if kind == "N" else value
