"""The segment table: the one module that knows DynamoDB."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from stop_segment.errors import Retryable
from stop_segment.events import Event, Room, Task
from stop_segment.rules import Outcome, Record

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

ROOM_ITEM = "#room"  # `#` cannot occur in an id, so no task can be called so
_KEYS_A_READ = 100
_ATTRIBUTES = {
    "stop_event_time": "stop_event_time_ms",
    "started_at": "started_at_ms",
    "seen_at": "seen_at_ms",
    "outcome": "outcome",
    "event_type": "event_type",
    "event_id": "event_id",
    "business_id": "business_id",
    "expires_at": "expires_at_seconds",
}


class SegmentTable:
    """What has been stopped, started and seen.

    Every method may raise `Retryable` where DynamoDB does not answer. Reads are strongly consistent.

    Parameters
    ----------
    client
        A botocore DynamoDB client.
    name
        The table's name.
    retention_seconds
        How long an item outlives its last event.
    """

    def __init__(self, client: DynamoDBClient, name: str, retention_seconds: int) -> None:
        self._client = client
        self._name = name
        self._retention_seconds = retention_seconds

    def read(self, tasks: Sequence[Task]) -> dict[Task, Record]:
        """Read the records of many tasks in one call for each 100; a task without one is left out.

        `room_item` names a room's own item.
        """
        found: dict[Task, Record] = {}
        for start in range(0, len(tasks), _KEYS_A_READ):
            keys = [_key(task) for task in tasks[start : start + _KEYS_A_READ]]
            answer = self._call("batch_get_item", RequestItems={self._name: {"Keys": keys, "ConsistentRead": True}})
            if answer.get("UnprocessedKeys"):
                raise Retryable("TableThrottled", "DynamoDB did not read every record of the batch")
            found.update((_task(item), _record(item)) for item in answer["Responses"].get(self._name, []))
        return found

    def tasks_of(self, room: Room) -> dict[Task, Record]:
        """Read every task known in a room."""
        return {task: record for item in self._query(room) for task, record in [(_task(item), _record(item))]}

    def note_start(self, event: Event, now_ms: int) -> None:
        """Remember that the event's task started then, unless a later start is known."""
        self._note(event, "started_at", now_ms)

    def note_sighting(self, event: Event, now_ms: int) -> None:
        """Remember that the event's task exists, and keep its record for another retention period."""
        self._note(event, "seen_at", now_ms)

    def note_room_end(self, event: Event, now_ms: int) -> None:
        """Remember that every task that started in the room until the event's time is to be stopped."""
        self._update(
            room_item(event.room),
            {
                "stop_event_time": event.time_ms,
                "event_type": event.type.value,
                "event_id": event.event_id,
                **_business_id(event),
            },
            newer_than="stop_event_time",
            now_ms=now_ms,
        )

    def note_known_start(self, task: Task, started_at_ms: int, now_ms: int) -> None:
        """Remember a start that the API told of."""
        self._update(task, {"started_at": started_at_ms}, newer_than="started_at", now_ms=now_ms)

    def note_stop(self, task: Task, event: Event, outcome: Outcome, request_id: str | None, now_ms: int) -> None:
        """Remember the answer to a stop event, unless a newer event's answer is known. Call it after the API did."""
        self._update(
            task,
            {
                "stop_event_time": event.time_ms,
                "stopped_at": now_ms,
                "outcome": outcome.value,
                "request_id": request_id,
                "event_type": event.type.value,
                "event_id": event.event_id,
                **_business_id(event),
            },
            newer_than="stop_event_time",
            now_ms=now_ms,
        )

    def _note(self, event: Event, attribute: str, now_ms: int) -> None:
        for task in event.tasks:
            self._update(task, {attribute: event.time_ms, **_business_id(event)}, newer_than=attribute, now_ms=now_ms)

    def _update(self, task: Task, values: dict[str, str | int | None], *, newer_than: str, now_ms: int) -> None:
        kept = {key: value for key, value in values.items() if value is not None}
        kept["expires_at"] = now_ms // 1000 + self._retention_seconds
        gone = [key for key in values if key not in kept]
        expression = "SET " + ", ".join(f"#{key} = :{key}" for key in kept)
        if gone:
            expression += " REMOVE " + ", ".join(f"#{key}" for key in gone)
        with contextlib.suppress(_Superseded):  # then the item holds something newer, which says more
            self._call(
                "update_item",
                TableName=self._name,
                Key=_key(task),
                UpdateExpression=expression,
                ConditionExpression=f"attribute_not_exists(#{newer_than}) OR #{newer_than} <= :{newer_than}",
                ExpressionAttributeNames={f"#{key}": key for key in (*kept, *gone)},
                ExpressionAttributeValues={
                    f":{key}": {"N": str(value)} if isinstance(value, int) else {"S": value}
                    for key, value in kept.items()
                },
            )

    def _query(self, room: Room) -> Iterator[dict[str, Any]]:
        request: dict[str, Any] = {
            "TableName": self._name,
            "ConsistentRead": True,
            "KeyConditionExpression": "room = :room AND task_id > :room_item",
            "ExpressionAttributeValues": {":room": {"S": _room_key(room)}, ":room_item": {"S": ROOM_ITEM}},
        }
        while True:
            answer = self._call("query", **request)
            yield from answer["Items"]
            if "LastEvaluatedKey" not in answer:
                return
            request["ExclusiveStartKey"] = answer["LastEvaluatedKey"]

    def _call(self, method: str, **request: Any) -> Any:
        try:
            return getattr(self._client, method)(**request)
        except ClientError as error:
            code = error.response["Error"]["Code"]
            if code == "ConditionalCheckFailedException":
                raise _Superseded from None
            raise Retryable(f"Table{code}", f"DynamoDB refused {method}") from error
        except BotoCoreError as error:
            raise Retryable("TableUnreachable", f"DynamoDB did not answer {method}: {type(error).__name__}") from error


class _Superseded(Exception):
    """A write's condition failed: the item holds something newer."""


def room_item(room: Room) -> Task:
    """Name the room's own item, as if it were a task's."""
    return Task(room, ROOM_ITEM)


def _business_id(event: Event) -> dict[str, str | int | None]:
    # An event without one says nothing of the task's, so what the record knows of it stays.
    return {"business_id": event.business_id} if event.business_id else {}


def _room_key(room: Room) -> str:
    return f"{room.app_id}#{room.room_id}"


def _key(task: Task) -> dict[str, Any]:
    return {"room": {"S": _room_key(task.room)}, "task_id": {"S": task.task_id}}


def _task(item: dict[str, Any]) -> Task:
    app_id, room_id = item["room"]["S"].split("#")
    return Task(Room(app_id, room_id), item["task_id"]["S"])


def _record(item: dict[str, Any]) -> Record:
    values: dict[str, Any] = {}
    for attribute, field in _ATTRIBUTES.items():
        if attribute in item:
            value = item[attribute]
            values[field] = int(value["N"]) if "N" in value else value["S"]
    return Record(**values)
