"""The segment table. Only this module knows DynamoDB."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any, Literal

from botocore.exceptions import BotoCoreError, ClientError

from segments.errors import Retryable
from segments.events import Event, EventType, Room, Task
from segments.stop_rules import Outcome, Record

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

OPEN_TASKS = "OpenTasks"
WATCHED_TASKS = "WatchedTasks"
WATCHED = "1"
# `#` cannot occur in an id, so no task and no room has these names.
ROOM_ITEM = "#room"
LOOK_ITEM = "#look"
SWEEP_ITEM = Task(Room("", ""), "#sweep")
_KEYS_A_READ = 100
_TRIES = 10
_ATTRIBUTES = {
    "stop_event_time": "stop_event_time_ms",
    "started_at": "started_at_ms",
    "open_since": "open_since_ms",
    "outcome": "outcome",
    "event_type": "event_type",
    "event_id": "event_id",
    "business_id": "business_id",
    "watch": "watch",
    "gone_at": "gone_at_ms",
}
_WHOLE_NUMBER = re.compile("-?[0-9]{1,38}")  # as DynamoDB writes a whole number


@dataclass(frozen=True)
class Lease:
    """The right to sweep, and the position of the sweeps in a round of the watched rooms. Times are Unix ms."""

    until_ms: int  # its end, which distinguishes this lease from all others
    place: Room | None = None  # the sweep goes on after this room
    round_began_at_ms: int | None = None
    last_round_began_at_ms: int | None = None


class SegmentTable:
    """The table of tasks that were started, were stopped or may be running, and of rooms that have ended or are gone.

    Every method may raise `Retryable` if DynamoDB does not answer. Reads are strongly consistent, except for reads of
    the index `WatchedTasks`. A task's item has `watch` or `expires_at`: a task that may be running does not expire.

    An item outlives its last event by `retention_seconds`. `sweeps` is True if a sweeper checks the watched tasks.
    """

    def __init__(self, client: DynamoDBClient, name: str, retention_seconds: int, *, sweeps: bool) -> None:
        self._client = client
        self._name = name
        self._retention_seconds = retention_seconds
        self._sweeps = sweeps

    def read(self, tasks: Sequence[Task]) -> dict[Task, Record]:
        """Read the records of tasks or rooms (`room_item`), 100 in each call. The result has only existing records."""
        found: dict[Task, Record] = {}
        for start in range(0, len(tasks), _KEYS_A_READ):
            keys = [_key(task) for task in tasks[start : start + _KEYS_A_READ]]
            answer = self._call("batch_get_item", RequestItems={self._name: {"Keys": keys, "ConsistentRead": True}})
            if answer.get("UnprocessedKeys"):
                raise Retryable("TableThrottled", "DynamoDB did not return every record: a later try may succeed")
            found.update((task_of(item), _record(item)) for item in answer["Responses"].get(self._name, []))
        return found

    def open_tasks(self, room: Room) -> dict[Task, Record]:
        """Read the records of the tasks that may be running in a room."""
        items = self._query(
            IndexName=OPEN_TASKS,
            ConsistentRead=True,
            KeyConditionExpression="room = :room",
            ExpressionAttributeValues={":room": {"S": _room_key(room)}},
        )
        return {task_of(item): _record(item) for item in items}

    def note_start(self, task: Task, started_at_ms: int, business_id: str | None = None) -> bool:
        """Open a task that started at this time if no later start or stop is known. Return whether the task is open."""
        return self._open(
            task,
            {"started_at": started_at_ms, "open_since": started_at_ms, **_business_id(business_id)},
            [("started_at", "<=", started_at_ms), ("stop_event_time", "<=", started_at_ms)],
        )

    def note_sighting(self, task: Task, seen_at_ms: int, business_id: str | None = None) -> bool:
        """Open a task that ran at this time, as `note_start` does, unless a stop at the same time or later is known."""
        return self._open(
            task,
            {"open_since": seen_at_ms, **_business_id(business_id)},
            [("started_at", "<=", seen_at_ms), ("stop_event_time", "<", seen_at_ms)],
        )

    def _open(self, task: Task, values: Mapping[str, str | int], when: Sequence[_Condition]) -> bool:
        try:
            return self._update(task, {**values, "watch": WATCHED, "expires_at": None}, when=when).is_open
        except _Refused as refused:
            return refused.record.is_open

    def note_stop(
        self, task: Task, known: Record, event: Event, outcome: Outcome, request_id: str | None, now_ms: int
    ) -> Record:
        """Record the API's answer to a stop event, close the task, and return the task's record.

        The answer to a newer event stays, and a task that was opened after the event stays open. Only the outcome
        `stopped` postpones the expiry of a record. If the record no longer equals `known`, the change is decided again.
        """
        answer = {"outcome": outcome.value, "request_id": request_id, "stopped_at": now_ms}
        for _ in range(_TRIES):
            changes = self._answered(known, event, answer, now_ms)
            if not changes:
                break
            try:
                return self._update(task, **changes, when=_unchanged(known))
            except _Refused as refused:
                known = refused.record
        else:
            raise Retryable("TableContended", f"other writes changed the task's record {_TRIES} times: try again later")
        return known

    def _answered(
        self, known: Record, event: Event, answer: Mapping[str, str | int | None], now_ms: int
    ) -> dict[str, Any]:
        """Return an answer's changes of a record, as options of `_update` (none if the answer changes nothing)."""
        is_done = answer["outcome"] == Outcome.STOPPED.value
        stop_event_time_ms = known.stop_event_time_ms
        if known.covers(event.time_ms) and not (is_done and stop_event_time_ms == event.time_ms):
            # The newer event's ALREADY_STOPPED is this event's stop, unless that answer was about a later session.
            is_ours = known.outcome == Outcome.ALREADY_STOPPED.value and (known.started_at_ms or 0) <= event.time_ms
            return {"values": answer} if is_done and is_ours else {}
        values = {**_stop(event), **answer}
        if known.open_since_ms is not None and known.open_since_ms > event.time_ms:
            return {"values": values}
        values["open_since"] = None
        if known.watch and self._sweeps and known.started_at_ms is None and event.type is not EventType.ROOM_GONE:
            # A session may have begun unseen: repeated slices within a minute are not written.
            return {"values": values}
        values["watch"] = None
        expires = {"expires_at": self._expires_at(now_ms)}
        return {"values": {**values, **expires}} if is_done else {"values": values, "set_once": expires}

    def note_over(self, task: Task, known: Record, now_ms: int) -> None:
        """Close a task that the API reports as over, unless the task was opened after `known` was read."""
        values = {"open_since": None, "watch": None, "expires_at": self._expires_at(now_ms)}
        with contextlib.suppress(_Refused):
            self._update(task, values, when=_unchanged(known))

    def note_room_end(self, event: Event, now_ms: int) -> Record:
        """Record a room's end, after which the tasks that started in the room until the event's time must be stopped.

        A newer end in the record stays. Returns the room's record from before this call.
        """
        end = {**_stop(event), "expires_at": self._expires_at(now_ms)}
        newest: _Condition = ("stop_event_time", "<", event.time_ms)
        try:
            return self._update(room_item(event.room), end, when=[newest], returns="ALL_OLD")
        except _Refused as refused:
            return refused.record

    def take_lease(self, now_ms: int, until_ms: int) -> Lease | None:
        """Take the right to sweep, or return None if another sweep holds the right."""
        try:
            item = self._change(SWEEP_ITEM, {"lease_until": until_ms}, when=[("lease_until", "<", now_ms)])
        except _Refused:
            return None
        place = _text(item, "place")
        rounds = (_whole_number(item, name) for name in ("round_began_at", "last_round_began_at"))
        return Lease(until_ms, _room(place) if place else None, *rounds)

    def note_place(self, lease: Lease, place: Room) -> bool:
        """Record the position of a sweep if its lease is still valid, and return whether the lease is valid.

        Call this method before checking the rooms up to this position.
        """
        values: dict[str, str | int | None] = {
            "place": _room_key(place),
            "round_began_at": lease.round_began_at_ms,
            "last_round_began_at": lease.last_round_began_at_ms,
        }
        return self._hold(lease, values)

    def give_back(self, lease: Lease) -> None:
        """Give the lease back, so that the next sweep can begin."""
        self._hold(lease, {"lease_until": 0})

    def _hold(self, lease: Lease, values: Mapping[str, str | int | None]) -> bool:
        try:
            self._change(SWEEP_ITEM, values, when=[("lease_until", "=", lease.until_ms)])
        except _Refused:
            return False
        return True

    def watched_rooms(
        self, *, after: Room | None = None, until: Room | None = None
    ) -> Iterator[tuple[Room, dict[Task, Record]]]:
        """Yield the rooms with watched items (tasks and `#look`), by name. The index may lag behind the table."""
        condition, values = "watch = :watch", {":watch": {"S": WATCHED}}
        for sign, name, bound in ((">", ":after", after), ("<=", ":until", until)):
            if bound:
                condition += f" AND room {sign} {name}"
                values[name] = {"S": _room_key(bound)}
        items = self._query(IndexName=WATCHED_TASKS, KeyConditionExpression=condition, ExpressionAttributeValues=values)
        for room, group in groupby(items, lambda item: task_of(item).room):
            yield room, {task_of(item): _record(item) for item in group}

    def note_gone(self, room: Room, gone_at_ms: int) -> None:
        """Record when a room was last found gone."""
        self._update(Task(room, LOOK_ITEM), {"gone_at": gone_at_ms, "watch": WATCHED})

    def forget_gone(self, room: Room) -> None:
        """Delete the record that a room was found gone."""
        self._call("delete_item", TableName=self._name, Key=_key(Task(room, LOOK_ITEM)))

    def _expires_at(self, now_ms: int) -> int:
        return now_ms // 1000 + self._retention_seconds

    def _update(self, task: Task, values: Mapping[str, str | int | None], **options: Any) -> Record:
        return _record(self._change(task, values, **options))

    def _change(
        self,
        task: Task,
        values: Mapping[str, str | int | None],
        *,
        set_once: Mapping[str, int] | None = None,
        when: Sequence[_Condition] = (),
        returns: Literal["ALL_NEW", "ALL_OLD"] = "ALL_NEW",
    ) -> Mapping[str, Any]:
        """Change an item under conditions, and return the item. Raises `_Refused` if a condition fails.

        A value of None removes its attribute. `set_once` sets only attributes that the item does not have. ``<`` and
        ``<=`` also hold for an attribute that the item does not have. ``=`` None holds only for such an attribute.
        """
        update = _Expressions()
        given = {name: value for name, value in values.items() if value is not None}
        sets = [f"{update.name(name)} = {update.value(value)}" for name, value in given.items()]
        for name, number in (set_once or {}).items():
            sets.append(f"{update.name(name)} = if_not_exists({update.name(name)}, {update.value(number)})")
        clauses = {"SET": sets, "REMOVE": [update.name(name) for name in values if name not in given]}
        conditions = []
        for name, sign, value in when:
            absent = f"attribute_not_exists({update.name(name)})"
            comparison = absent if value is None else f"{update.name(name)} {sign} {update.value(value)}"
            conditions.append(comparison if sign == "=" else f"({absent} OR {comparison})")
        request: dict[str, Any] = {
            "Key": _key(task),
            "UpdateExpression": " ".join(f"{verb} {', '.join(parts)}" for verb, parts in clauses.items() if parts),
            "ExpressionAttributeNames": update.names,
            "ReturnValues": returns,
        }
        if conditions:
            request["ConditionExpression"] = " AND ".join(conditions)
            request["ReturnValuesOnConditionCheckFailure"] = "ALL_OLD"
        if update.values:
            request["ExpressionAttributeValues"] = update.values
        changed: Mapping[str, Any] = self._call("update_item", TableName=self._name, **request).get("Attributes", {})
        return changed

    def _query(self, **request: Any) -> Iterator[dict[str, Any]]:
        request["TableName"] = self._name
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
                # Without an item, a condition that needs an item has failed.
                item: Any = error.response.get("Item", {})
                raise _Refused(_record(item)) from None
            raise Retryable(f"Table{code}", f"DynamoDB refused {method}: check the table and the role") from error
        except BotoCoreError as error:
            raise Retryable(
                "TableUnreachable", f"DynamoDB did not answer {method} ({type(error).__name__}): try later"
            ) from error


_Condition = tuple[str, Literal["<=", "<", "="], str | int | None]  # attribute, comparison, value


class _Refused(Exception):
    """The condition of a write failed. `record` is the record in the table."""

    def __init__(self, record: Record) -> None:
        super().__init__(record)
        self.record = record


class _Expressions:
    """The names and values in an expression. Every name gets a placeholder, since DynamoDB reserves many names."""

    def __init__(self) -> None:
        self.names: dict[str, str] = {}
        self.values: dict[str, dict[str, str]] = {}

    def name(self, attribute: str) -> str:
        self.names[f"#{attribute}"] = attribute
        return f"#{attribute}"

    def value(self, value: str | int) -> str:
        placeholder = f":v{len(self.values)}"
        self.values[placeholder] = {"N": str(value)} if isinstance(value, int) else {"S": value}
        return placeholder


def room_item(room: Room) -> Task:
    """Return the key of the room's item, in the form of a task."""
    return Task(room, ROOM_ITEM)


def _unchanged(known: Record) -> list[_Condition]:
    """Return conditions for an unchanged record: every change of a record changes one of the compared attributes."""
    return [("stop_event_time", "=", known.stop_event_time_ms), ("open_since", "=", known.open_since_ms)]


def _stop(event: Event) -> dict[str, str | int | None]:
    names = {"event_type": event.type.value, "event_id": event.event_id}
    return {"stop_event_time": event.time_ms, **names, **_business_id(event.business_id)}


def _business_id(business_id: str | None) -> dict[str, str]:
    # An event without a BusinessId keeps the BusinessId of the record.
    return {"business_id": business_id} if business_id else {}


def _room_key(room: Room) -> str:
    return f"{room.app_id}#{room.room_id}"


def _room(key: str) -> Room:
    app_id, _, room_id = key.partition("#")
    return Room(app_id, room_id)


def _key(task: Task) -> dict[str, Any]:
    return {"room": {"S": _room_key(task.room)}, "task_id": {"S": task.task_id}}


def task_of(item: Mapping[str, Any]) -> Task:
    """Return the task in an item's key."""
    return Task(_room(item["room"]["S"]), item["task_id"]["S"])


def _record(item: Mapping[str, Any]) -> Record:
    return Record(**fields_of(item, _ATTRIBUTES))


def fields_of(item: Mapping[str, Any], attributes: Mapping[str, str]) -> dict[str, Any]:
    """Read an item's attributes into fields. A value in a form that no function writes counts as missing.

    `attributes` maps attributes to fields. A field in ms or seconds is a whole number, every other field is a text.
    """
    return {
        field: _whole_number(item, attribute) if field.endswith(("_ms", "_seconds")) else _text(item, attribute)
        for attribute, field in attributes.items()
        if attribute in item
    }


def _whole_number(item: Mapping[str, Any], attribute: str) -> int | None:
    text = item.get(attribute, {}).get("N", "")
    return int(text) if _WHOLE_NUMBER.fullmatch(text) else None


def _text(item: Mapping[str, Any], attribute: str) -> str | None:
    text: str | None = item.get(attribute, {}).get("S")
    return text
