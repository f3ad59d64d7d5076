"""The segment table: the one module that knows DynamoDB."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from botocore.exceptions import BotoCoreError, ClientError

from segments.errors import Retryable
from segments.events import Event, Room, Task
from segments.rules import Outcome, Record

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

ROOM_ITEM = "#room"  # `#` cannot occur in an id, so no task can be called so
WATCHED_ROOMS = "WatchedRooms"
WATCHED = "1"
_KEYS_A_READ = 100
_ATTRIBUTES = {
    "stop_event_time": "stop_event_time_ms",
    "started_at": "started_at_ms",
    "seen_at": "seen_at_ms",
    "open_since": "open_since_ms",
    "outcome": "outcome",
    "event_type": "event_type",
    "event_id": "event_id",
    "business_id": "business_id",
    "open_tasks": "open_tasks",
    "check_at": "check_at_ms",
    "gone_at": "gone_at_ms",
    "idle_at": "idle_at_ms",
}


class SegmentTable:
    """What has been stopped, started and seen, what may be running, and which rooms the sweeper watches.

    Every method may raise `Retryable` where DynamoDB does not answer. Reads are strongly consistent, but for those of
    the index.

    A task's item is closed by the answer to a stop, and has `expires_at` from then on: one that may be running does not
    expire. The same goes for a room's item while the room is watched.

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
        """Read every task known in a room, the closed ones too."""
        pages = self._pages(
            ConsistentRead=True,
            KeyConditionExpression="room = :room AND task_id > :room_item",
            ExpressionAttributeValues={":room": {"S": _room_key(room)}, ":room_item": {"S": ROOM_ITEM}},
        )
        return {_task(item): _record(item) for page in pages for item in page["Items"]}

    def note_start(self, task: Task, started_at_ms: int, business_id: str | None = None) -> bool:
        """Open a task that started then, unless a later start or a later answer to a stop is known.

        Returns whether it is open.
        """
        try:
            self._update(
                task,
                {"started_at": started_at_ms, "open_since": started_at_ms, **_business_id(business_id)},
                remove=["expires_at"],
                when=[("started_at", "<=", started_at_ms), ("stop_event_time", "<=", started_at_ms)],
            )
        except _Refused:
            return False
        return True

    def note_sighting(self, task: Task, seen_at_ms: int, business_id: str | None = None) -> bool:
        """Open a task that was seen then, unless a stop of that time or later has been answered.

        Returns whether it is open.
        """
        try:
            self._update(
                task,
                {"seen_at": seen_at_ms, **_business_id(business_id)},
                set_once={"open_since": seen_at_ms},
                remove=["expires_at"],
                when=[("stop_event_time", "<", seen_at_ms)],
            )
        except _Refused:
            return False
        return True

    def note_stop(self, task: Task, event: Event, outcome: Outcome, request_id: str | None, now_ms: int) -> None:
        """Remember the answer to a stop event, and close the task. Call it after the API did.

        A newer event's answer stays, and a task with a later start stays open. An answer in vain does not make a
        record last longer.
        """
        answer = {"outcome": outcome.value, "request_id": request_id, "stopped_at": now_ms}
        stop = {
            "stop_event_time": event.time_ms,
            **answer,
            "event_type": event.type.value,
            "event_id": event.event_id,
            **_business_id(event.business_id),
        }
        expires = {"expires_at": self._expires_at(now_ms)}
        done = outcome is Outcome.STOPPED
        # Another copy of this very event may have stopped the task: then it is not for us to say that it was gone.
        newest: _Condition = ("stop_event_time", "<=" if done else "<", event.time_ms)
        not_restarted: _Condition = ("started_at", "<=", event.time_ms)
        try:
            self._update(
                task,
                {**stop, **(expires if done else {})},
                set_once={} if done else expires,
                remove=["open_since", "seen_at"],
                when=[newest, not_restarted],
            )
        except _Refused as refused:
            found = refused.record
            with contextlib.suppress(_Refused):  # then the item holds something newer still
                if not found.covers(event.time_ms):
                    self._update(task, stop, when=[newest])
                elif done and found.outcome == Outcome.ALREADY_STOPPED.value:
                    # A newer event, or another copy of this one, found gone what this one has stopped.
                    unchanged: list[_Condition] = [
                        ("stop_event_time", "=", found.stop_event_time_ms),
                        ("outcome", "=", found.outcome),
                    ]
                    # What a newer event found gone may be a later session; what a copy did cannot.
                    is_newer = found.stop_event_time_ms != event.time_ms
                    self._update(task, answer, when=[*unchanged, *([not_restarted] if is_newer else [])])

    def note_over(self, task: Task, open_since_ms: int, now_ms: int) -> None:
        """Close a task that the API calls over: no stop was answered, so nothing else of it is remembered.

        Parameters
        ----------
        open_since_ms
            Since when the task was open as the API was asked: one that was opened since then stays open.
        """
        with contextlib.suppress(_Refused):
            self._update(
                task,
                {},
                set_once={"expires_at": self._expires_at(now_ms)},
                # Without these it does not count as open, as a record of version 0.1 would.
                remove=["open_since", "seen_at", "started_at"],
                when=[("open_since", "=", open_since_ms)],
            )

    def note_room_end(self, event: Event, closed: Collection[str], now_ms: int) -> Record:
        """Remember that every task that started in the room until the event's time is to be stopped.

        Parameters
        ----------
        closed
            Tasks that need no longer be named among the open ones.

        Returns
        -------
        Record
            The room, after this. A newer end stays.
        """
        end = {
            "stop_event_time": event.time_ms,
            "event_type": event.type.value,
            "event_id": event.event_id,
            **_business_id(event.business_id),
            "expires_at": self._expires_at(now_ms),
        }
        try:
            return self._update(
                room_item(event.room),
                end,
                delete={"open_tasks": closed},
                when=[("stop_event_time", "<=", event.time_ms)],
            )
        except _Refused as refused:
            return refused.record

    def watch(self, room: Room, task_ids: Collection[str], check_at_ms: int | None) -> Record:
        """Name tasks among the open ones of their room, and have the room watched.

        Parameters
        ----------
        check_at_ms
            When the sweeper is to look at it first; None where nothing sweeps.

        Returns
        -------
        Record
            The room, after this.
        """
        index = {} if check_at_ms is None else {"watch": WATCHED}
        once = {} if check_at_ms is None else {"check_at": check_at_ms}
        return self._update(
            room_item(room), index, set_once=once, remove=["expires_at", "idle_at"], add={"open_tasks": task_ids}
        )

    def rooms_due(self, now_ms: int, most: int) -> list[tuple[Room, int]]:
        """Name watched rooms whose time has come, the one that waits longest first, each with its `check_at`."""
        page = next(
            self._pages(
                IndexName=WATCHED_ROOMS,
                KeyConditionExpression="watch = :watch AND check_at <= :now",
                ExpressionAttributeValues={":watch": {"S": WATCHED}, ":now": {"N": str(now_ms)}},
                Limit=most,
            )
        )
        return [(_task(item).room, int(item["check_at"]["N"])) for item in page["Items"]]

    def count_watched(self) -> int:
        """Count the rooms that are watched."""
        pages = self._pages(
            IndexName=WATCHED_ROOMS,
            Select="COUNT",
            KeyConditionExpression="watch = :watch",
            ExpressionAttributeValues={":watch": {"S": WATCHED}},
        )
        return sum(page["Count"] for page in pages)

    def postpone_check(self, room: Room, seen_at_ms: int, check_at_ms: int) -> Record | None:
        """Say when a watched room is looked at next.

        Parameters
        ----------
        seen_at_ms
            The `check_at` that is known: another sweep that has changed it has the room now.

        Returns
        -------
        Record | None
            The room, after this; None where another sweep has it, or where it is no longer watched.
        """
        return self._note_check(room, seen_at_ms, {"check_at": check_at_ms})

    def note_gone(self, room: Room, seen_at_ms: int, check_at_ms: int, gone_at_ms: int | None) -> Record | None:
        """Remember since when a watched room is gone (None: it is there), and when it is looked at next.

        `seen_at_ms` and what is returned are those of `postpone_check`.
        """
        return self._note_check(room, seen_at_ms, {"check_at": check_at_ms, "gone_at": gone_at_ms})

    def _note_check(self, room: Room, seen_at_ms: int, values: Mapping[str, int | None]) -> Record | None:
        try:
            return self._update(room_item(room), values, remove=["expires_at"], when=[("check_at", "=", seen_at_ms)])
        except _Refused:
            return None

    def note_idle(self, room: Room, seen_at_ms: int, now_ms: int) -> Record | None:
        """Mark a watched room in which no task is open. Read its tasks after this, and `unwatch` it then.

        Whoever opens a task meanwhile finds the mark and takes it away. So the room stays watched whoever dies.
        `seen_at_ms` and what is returned are those of `postpone_check`.
        """
        return self._note_check(room, seen_at_ms, {"idle_at": now_ms})

    def unwatch(self, room: Room, seen_at_ms: int, idle_at_ms: int, now_ms: int) -> None:
        """Watch a room no longer, unless somebody has opened a task since it was marked.

        Parameters
        ----------
        seen_at_ms
            As for `postpone_check`.
        idle_at_ms
            The mark.
        """
        with contextlib.suppress(_Refused):
            self._update(
                room_item(room),
                {"expires_at": self._expires_at(now_ms)},
                remove=["watch", "check_at", "gone_at", "idle_at"],
                when=[("check_at", "=", seen_at_ms), ("idle_at", "=", idle_at_ms)],
            )

    def _expires_at(self, now_ms: int) -> int:
        return now_ms // 1000 + self._retention_seconds

    def _update(
        self,
        task: Task,
        values: Mapping[str, str | int | None],
        *,
        set_once: Mapping[str, int] | None = None,
        remove: Sequence[str] = (),
        add: Mapping[str, Collection[str]] | None = None,
        delete: Mapping[str, Collection[str]] | None = None,
        when: Sequence[_Condition] = (),
    ) -> Record:
        """Change an item on conditions, and return it as it is then.

        Parameters
        ----------
        values
            What is set; None removes an attribute.
        set_once
            What is set where the item does not have it.
        add, delete
            What is added to sets, and taken from them.
        when
            The conditions. One with ``<`` or ``<=`` also holds where the item does not have the attribute.

        Raises
        ------
        _Refused
            A condition fails.
        """
        update = _Expressions()
        clauses = {
            "SET": [
                f"{update.name(name)} = {update.value(value)}" for name, value in values.items() if value is not None
            ]
            + [
                f"{update.name(name)} = if_not_exists({update.name(name)}, {update.value(value)})"
                for name, value in (set_once or {}).items()
            ],
            "REMOVE": [
                update.name(name) for name in (*remove, *(key for key, value in values.items() if value is None))
            ],
            "ADD": [f"{update.name(name)} {update.value(items)}" for name, items in (add or {}).items() if items],
            "DELETE": [f"{update.name(name)} {update.value(items)}" for name, items in (delete or {}).items() if items],
        }
        conditions = []
        for name, sign, value in when:
            comparison = f"{update.name(name)} {sign} {update.value(value)}"
            absent = f"attribute_not_exists({update.name(name)})"
            conditions.append(comparison if sign == "=" else f"({absent} OR {comparison})")
        request: dict[str, Any] = {
            "Key": _key(task),
            "UpdateExpression": " ".join(f"{verb} {', '.join(parts)}" for verb, parts in clauses.items() if parts),
            "ExpressionAttributeNames": update.names,
            "ReturnValues": "ALL_NEW",
        }
        if conditions:
            request["ConditionExpression"] = " AND ".join(conditions)
            request["ReturnValuesOnConditionCheckFailure"] = "ALL_OLD"
        if update.values:
            request["ExpressionAttributeValues"] = update.values
        return _record(self._call("update_item", TableName=self._name, **request)["Attributes"])

    def _pages(self, **request: Any) -> Iterator[dict[str, Any]]:
        request["TableName"] = self._name
        while True:
            answer = self._call("query", **request)
            yield answer
            if "LastEvaluatedKey" not in answer:
                return
            request["ExclusiveStartKey"] = answer["LastEvaluatedKey"]

    def _call(self, method: str, **request: Any) -> Any:
        try:
            return getattr(self._client, method)(**request)
        except ClientError as error:
            code = error.response["Error"]["Code"]
            if code == "ConditionalCheckFailedException":
                # No item: a condition that needs one has failed.
                item: Any = error.response.get("Item", {})
                raise _Refused(_record(item)) from None
            raise Retryable(f"Table{code}", f"DynamoDB refused {method}") from error
        except BotoCoreError as error:
            raise Retryable("TableUnreachable", f"DynamoDB did not answer {method}: {type(error).__name__}") from error


_Condition = tuple[str, Literal["<=", "<", "="], str | int | None]  # an attribute, how it compares, with what


class _Refused(Exception):
    """A write's condition failed.

    Parameters
    ----------
    record
        The item that is there.
    """

    def __init__(self, record: Record) -> None:
        super().__init__(record)
        self.record = record


class _Expressions:
    """The names and values that an expression stands for. Every name is replaced: DynamoDB reserves hundreds."""

    def __init__(self) -> None:
        self.names: dict[str, str] = {}
        self.values: dict[str, dict[str, Any]] = {}

    def name(self, attribute: str) -> str:
        self.names[f"#{attribute}"] = attribute
        return f"#{attribute}"

    def value(self, value: str | int | Collection[str] | None) -> str:
        placeholder = f":v{len(self.values)}"
        if isinstance(value, int):
            self.values[placeholder] = {"N": str(value)}
        elif isinstance(value, str):
            self.values[placeholder] = {"S": value}
        else:
            self.values[placeholder] = {"SS": sorted(value or ())}
        return placeholder


def room_item(room: Room) -> Task:
    """Name the room's own item, as if it were a task's."""
    return Task(room, ROOM_ITEM)


def _business_id(business_id: str | None) -> dict[str, str]:
    # An event without one says nothing of the task's, so what the record knows of it stays.
    return {"business_id": business_id} if business_id else {}


def _room_key(room: Room) -> str:
    return f"{room.app_id}#{room.room_id}"


def _key(task: Task) -> dict[str, Any]:
    return {"room": {"S": _room_key(task.room)}, "task_id": {"S": task.task_id}}


def _task(item: Mapping[str, Any]) -> Task:
    app_id, room_id = item["room"]["S"].split("#")
    return Task(Room(app_id, room_id), item["task_id"]["S"])


def _record(item: Mapping[str, Any]) -> Record:
    values: dict[str, Any] = {}
    for attribute, field in _ATTRIBUTES.items():
        if attribute in item:
            ((kind, value),) = item[attribute].items()
            values[field] = int(value) if kind == "N" else frozenset(value) if kind == "SS" else value
    return Record(**values)
