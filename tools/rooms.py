"""What the segment table knows of a room, whole: the functions read only what they decide by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stop_segment.events import Room
from stop_segment.records import ROOM_ITEM

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

_ATTRIBUTES = {
    "task_id": "task_id",
    "started_at": "started_at_ms",
    "seen_at": "seen_at_ms",
    "stop_event_time": "stop_event_time_ms",
    "stopped_at": "stopped_at_ms",
    "outcome": "outcome",
    "request_id": "request_id",
    "event_type": "event_type",
    "event_id": "event_id",
    "business_id": "business_id",
    "expires_at": "expires_at_seconds",
}


@dataclass(frozen=True)
class Item:
    """An item of the table: a task's record or, as the task `#room`, the room's own. Times are Unix ms."""

    task_id: str
    started_at_ms: int | None = None
    seen_at_ms: int | None = None
    stop_event_time_ms: int | None = None
    stopped_at_ms: int | None = None
    outcome: str | None = None
    request_id: str | None = None
    event_type: str | None = None
    event_id: str | None = None
    business_id: str | None = None
    expires_at_seconds: int | None = None

    @property
    def is_room(self) -> bool:
        """Whether it is the room's own item."""
        return self.task_id == ROOM_ITEM

    @property
    def state(self) -> str:
        """What the item says of its task, or of the room, in a few words."""
        if self.is_room:
            return "ended"
        if self.stop_event_time_ms is None:
            return "seen, no stop event yet" if self.started_at_ms is None else "started, no stop event since"
        if self.started_at_ms is not None and self.started_at_ms > self.stop_event_time_ms:
            return f"started again, after it was {self.outcome}"
        return str(self.outcome)


def read_room(client: DynamoDBClient, table_name: str, room: Room) -> list[Item]:
    """Read every item of a room, its own first and then its tasks' by name; none where the table knows nothing."""
    pages = client.get_paginator("query").paginate(
        TableName=table_name,
        ConsistentRead=True,
        KeyConditionExpression="room = :room",
        ExpressionAttributeValues={":room": {"S": f"{room.app_id}#{room.room_id}"}},
    )
    return [_item(attributes) for page in pages for attributes in page["Items"]]


def to_json(item: Item) -> dict[str, str | int]:
    """Write an item under the table's own names; what it does not say is left out."""
    return {name: value for name, key in _ATTRIBUTES.items() if (value := getattr(item, key)) is not None}


def _item(attributes: dict[str, Any]) -> Item:
    plain: dict[str, Any] = {
        name: int(value["N"]) if "N" in value else value["S"] for name, value in attributes.items()
    }
    return Item(**{field: plain[name] for name, field in _ATTRIBUTES.items() if name in plain})
