import re
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest

from sandbox.embedded_aws import EmbeddedAws
from segments.errors import Retryable
from segments.events import Event, EventType, Room, Task
from segments.ledger import ROOM_ITEM, SegmentTable, room_item
from segments.rules import Outcome, Record
from tests.second_opinion import moto_client
from tests.unit.memory_dynamo import MemoryDynamo
from tools.rooms import read_open_tasks

T = 1_795_327_920_123
NOW_MS = 1_795_327_930_456
RETENTION_SECONDS = 604_800
NOT_IN_MEMORY = pytest.mark.parametrize("client", ["embedded AWS", "moto"], indirect=True)
EXPIRES = NOW_MS // 1000 + RETENTION_SECONDS
LATER_MS = NOW_MS + 60_000
LATER_EXPIRES = LATER_MS // 1000 + RETENTION_SECONDS


@pytest.fixture(scope="module", params=["embedded AWS", "moto", "stand-in"])
def client(request: pytest.FixtureRequest, aws: EmbeddedAws) -> Iterator[Any]:
    """Make a client; test_time_decides.py runs on the stand-in, so that is held to the same."""
    if request.param == "stand-in":
        yield MemoryDynamo().client
        return
    if request.param == "moto":
        with moto_client("dynamodb") as client:
            yield client
        return
    client = aws.client("dynamodb")
    yield client
    client.close()


@pytest.fixture(scope="module")
def name(client: Any) -> str:
    """Make a table like the template's."""
    name = f"segments-{uuid4().hex}"
    if isinstance(client, MemoryDynamo):
        return name
    client.create_table(
        TableName=name,
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[
            *({"AttributeName": key, "AttributeType": "S"} for key in ("room", "task_id", "watch")),
            {"AttributeName": "check_at", "AttributeType": "N"},
        ],
        GlobalSecondaryIndexes=[
            {
                "IndexName": "WatchedRooms",
                "KeySchema": [
                    {"AttributeName": "watch", "KeyType": "HASH"},
                    {"AttributeName": "check_at", "KeyType": "RANGE"},
                ],
                "Projection": {"ProjectionType": "KEYS_ONLY"},
            }
        ],
        KeySchema=[
            {"AttributeName": "room", "KeyType": "HASH"},
            {"AttributeName": "task_id", "KeyType": "RANGE"},
        ],
    )
    return name


@pytest.fixture
def table(client: Any, name: str) -> SegmentTable:
    return SegmentTable(client, name, RETENTION_SECONDS)


@pytest.fixture
def room() -> Room:
    """Name a room that no other test knows."""
    return Room("661e", uuid4().hex)


@pytest.fixture
def task(room: Room) -> Task:
    return Task(room, "audio")


def event(
    task: Task,
    time_ms: int = T,
    event_type: EventType = EventType.MODERATION_VIOLATION,
    event_id: str | None = "evt-1",
    business_id: str | None = None,
) -> Event:
    return Event(event_type, task.room, time_ms, (task.task_id,), event_id, business_id)


def room_end(room: Room, time_ms: int = T, event_id: str | None = "evt-1", business_id: str | None = None) -> Event:
    return Event(EventType.ROOM_ENDED, room, time_ms, (), event_id, business_id)


def item(client: Any, name: str, task: Task) -> dict[str, Any]:
    """Read all attributes of a task's item, but for its key."""
    key = {"room": {"S": f"{task.room.app_id}#{task.room.room_id}"}, "task_id": {"S": task.task_id}}
    found = client.get_item(TableName=name, Key=key, ConsistentRead=True).get("Item", {})
    return {attribute: next(iter(value.values())) for attribute, value in found.items() if attribute not in key}


class TestStops:
    def test_a_stop_is_remembered_whole(self, table: SegmentTable, client: Any, name: str, task: Task) -> None:
        table.note_stop(task, event(task, business_id="biz-1"), Outcome.STOPPED, "request-1", NOW_MS)
        assert item(client, name, task) == {
            "stop_event_time": str(T),
            "stopped_at": str(NOW_MS),
            "outcome": "stopped",
            "request_id": "request-1",
            "event_type": "ModerationViolation",
            "event_id": "evt-1",
            "business_id": "biz-1",
            "expires_at": str(EXPIRES),
        }
        assert table.read([task]) == {
            task: Record(
                stop_event_time_ms=T,
                outcome="stopped",
                event_type="ModerationViolation",
                event_id="evt-1",
                business_id="biz-1",
            )
        }

    @pytest.mark.parametrize(
        ("first_ms", "second_ms", "kept_ms"), [(T, T + 1, T + 1), (T, T, T), (T + 1, T, T + 1), (-1, 0, 0), (0, -1, 0)]
    )
    def test_older_stop_never_overwrites_a_newer_one(
        self, table: SegmentTable, client: Any, name: str, task: Task, first_ms: int, second_ms: int, kept_ms: int
    ) -> None:
        table.note_stop(task, event(task, first_ms), Outcome.STOPPED, "first", NOW_MS)
        table.note_stop(task, event(task, second_ms), Outcome.STOPPED, "second", LATER_MS)
        found = item(client, name, task)
        newer = second_ms >= first_ms
        assert found["stop_event_time"] == str(kept_ms)
        assert found["request_id"] == ("second" if newer else "first")
        assert found["expires_at"] == str(LATER_EXPIRES if newer else EXPIRES)

    def test_an_answer_in_vain_does_not_keep_a_record_for_longer(
        self, table: SegmentTable, client: Any, name: str, task: Task
    ) -> None:
        table.note_stop(task, event(task), Outcome.ALREADY_STOPPED, "first", NOW_MS)
        table.note_stop(task, event(task, T + 1), Outcome.ALREADY_STOPPED, "second", LATER_MS)
        found = item(client, name, task)
        assert (found["stop_event_time"], found["expires_at"]) == (str(T + 1), str(EXPIRES))

    @pytest.mark.parametrize(
        "outcomes", [(Outcome.STOPPED, Outcome.ALREADY_STOPPED), (Outcome.ALREADY_STOPPED, Outcome.STOPPED)]
    )
    def test_of_two_copies_the_one_that_stopped_the_task_is_remembered(
        self, table: SegmentTable, client: Any, name: str, task: Task, outcomes: tuple[Outcome, Outcome]
    ) -> None:
        for outcome in outcomes:
            table.note_stop(task, event(task), outcome, f"of {outcome}", NOW_MS)
        found = item(client, name, task)
        assert (found["outcome"], found["request_id"]) == ("stopped", "of stopped")

    def test_of_two_copies_the_one_that_stopped_the_task_is_remembered_though_the_task_has_started_again(
        self, table: SegmentTable, client: Any, name: str, task: Task
    ) -> None:
        table.note_stop(task, event(task), Outcome.ALREADY_STOPPED, "gone", NOW_MS)
        table.note_start(task, T + 1)
        table.note_stop(task, event(task), Outcome.STOPPED, "done", LATER_MS)
        found = item(client, name, task)
        assert (found["outcome"], found["request_id"]) == ("stopped", "done")
        assert found["open_since"] == str(T + 1)
        assert "expires_at" not in found

    def test_a_stop_whose_record_comes_second_is_told_of_with_the_newer_event(
        self, table: SegmentTable, client: Any, name: str, task: Task
    ) -> None:
        table.note_stop(task, event(task, T + 1), Outcome.ALREADY_STOPPED, "gone", NOW_MS)
        table.note_stop(task, event(task), Outcome.STOPPED, "done", LATER_MS)
        found = item(client, name, task)
        assert (found["stop_event_time"], found["stopped_at"]) == (str(T + 1), str(LATER_MS))
        assert (found["outcome"], found["request_id"]) == ("stopped", "done")

    def test_a_stop_of_an_earlier_session_says_nothing_of_a_later_one(
        self, table: SegmentTable, client: Any, name: str, task: Task
    ) -> None:
        table.note_start(task, T + 1)
        table.note_stop(task, event(task, T + 2), Outcome.ALREADY_STOPPED, "gone", NOW_MS)
        table.note_stop(task, event(task), Outcome.STOPPED, "done", LATER_MS)
        assert item(client, name, task)["request_id"] == "gone"

    def test_a_newer_stop_leaves_nothing_of_the_older_ones_ids(
        self, table: SegmentTable, client: Any, name: str, task: Task
    ) -> None:
        table.note_stop(task, event(task), Outcome.STOPPED, "request-1", NOW_MS)
        table.note_stop(task, event(task, T + 1, event_id=None), Outcome.ALREADY_STOPPED, None, LATER_MS)
        assert not {"event_id", "request_id"} & item(client, name, task).keys()

    def test_a_stop_closes_its_task_and_keeps_what_else_is_known_of_it(
        self, table: SegmentTable, client: Any, name: str, task: Task
    ) -> None:
        table.note_start(task, T, "biz-1")
        table.note_sighting(task, T + 1)
        assert "expires_at" not in item(client, name, task)
        table.note_stop(task, event(task, T + 2), Outcome.STOPPED, "request-1", NOW_MS)
        record = table.read([task])[task]
        assert (record.stop_event_time_ms, record.started_at_ms, record.seen_at_ms) == (T + 2, T, None)
        assert (record.is_open, record.business_id) == (False, "biz-1")
        assert item(client, name, task)["expires_at"] == str(EXPIRES)

    def test_a_task_with_a_later_start_stays_open(
        self, table: SegmentTable, client: Any, name: str, task: Task
    ) -> None:
        table.note_start(task, T + 1)
        table.note_stop(task, event(task), Outcome.STOPPED, "request-1", NOW_MS)
        record = table.read([task])[task]
        assert (record.stop_event_time_ms, record.open_since_ms) == (T, T + 1)
        assert "expires_at" not in item(client, name, task)

    def test_every_id_that_the_api_allows_is_a_key(self, table: SegmentTable) -> None:
        room = Room("a" * 128, uuid4().hex + "_@-." + "r" * 92)
        tasks = [Task(room, task_id) for task_id in ("t" * 128, "0", "_", "@", "-", ".", "Z")]
        for task in tasks:
            table.note_stop(task, event(task), Outcome.STOPPED, None, NOW_MS)
        assert table.read(tasks).keys() == set(tasks)
        assert table.tasks_of(room).keys() == set(tasks)


class TestStartsAndSightings:
    NOTES = pytest.mark.parametrize(
        ("note", "field"), [(SegmentTable.note_start, "started_at_ms"), (SegmentTable.note_sighting, "seen_at_ms")]
    )
    Note = Callable[..., bool]

    @NOTES
    def test_it_opens_the_task(self, table: SegmentTable, task: Task, note: Note, field: str) -> None:
        assert note(table, task, T, "biz-1")
        known: dict[str, Any] = {field: T, "open_since_ms": T, "business_id": "biz-1"}
        assert table.read([task]) == {task: Record(**known)}

    @NOTES
    def test_an_event_without_a_business_id_takes_none_away(
        self, table: SegmentTable, task: Task, note: Note, field: str
    ) -> None:
        note(table, task, T, "biz-1")
        note(table, task, T + 1)
        record = table.read([task])[task]
        assert (getattr(record, field), record.business_id) == (T + 1, "biz-1")

    @pytest.mark.parametrize("note", [SegmentTable.note_start, SegmentTable.note_sighting])
    def test_one_before_the_last_stop_opens_nothing(
        self, table: SegmentTable, client: Any, name: str, task: Task, note: Note
    ) -> None:
        table.note_stop(task, event(task), Outcome.STOPPED, "request-1", NOW_MS)
        before = item(client, name, task)
        assert not note(table, task, T - 1)
        assert item(client, name, task) == before

    @pytest.mark.parametrize(("note", "opens"), [(SegmentTable.note_start, True), (SegmentTable.note_sighting, False)])
    def test_at_the_time_of_the_stop_only_a_start_is_of_a_new_session(
        self, table: SegmentTable, task: Task, note: Note, opens: bool
    ) -> None:
        table.note_stop(task, event(task), Outcome.STOPPED, "request-1", NOW_MS)
        assert note(table, task, T) is opens
        assert table.read([task])[task].is_open is opens

    @pytest.mark.parametrize("note", [SegmentTable.note_start, SegmentTable.note_sighting])
    def test_one_after_the_last_stop_opens_the_task_again(
        self, table: SegmentTable, client: Any, name: str, task: Task, note: Note
    ) -> None:
        table.note_stop(task, event(task), Outcome.STOPPED, "request-1", NOW_MS)
        assert note(table, task, T + 1)
        record = table.read([task])[task]
        assert (record.open_since_ms, record.outcome) == (T + 1, "stopped")
        assert "expires_at" not in item(client, name, task)

    def test_only_a_later_start_moves_the_task_s_start(self, table: SegmentTable, task: Task) -> None:
        assert table.note_start(task, T + 1)
        assert not table.note_start(task, T)
        assert table.read([task])[task].open_since_ms == T + 1
        assert table.note_start(task, T + 2)
        record = table.read([task])[task]
        assert (record.started_at_ms, record.open_since_ms) == (T + 2, T + 2)

    def test_a_sighting_of_an_open_task_leaves_its_age(self, table: SegmentTable, task: Task) -> None:
        table.note_sighting(task, T)
        table.note_sighting(task, T + 1)
        record = table.read([task])[task]
        assert (record.seen_at_ms, record.open_since_ms) == (T + 1, T)


class TestRooms:
    def test_the_end_of_a_room_is_remembered_with_its_event(
        self, table: SegmentTable, client: Any, name: str, room: Room
    ) -> None:
        table.note_room_end(room_end(room, business_id="biz-1"), [], NOW_MS)
        assert item(client, name, Task(room, "#room")) == {
            "stop_event_time": str(T),
            "event_type": "RoomEnded",
            "event_id": "evt-1",
            "business_id": "biz-1",
            "expires_at": str(EXPIRES),
        }

    @pytest.mark.parametrize(("first_ms", "second_ms"), [(T, T + 1), (T + 1, T)])
    def test_the_newest_end_is_kept(self, table: SegmentTable, room: Room, first_ms: int, second_ms: int) -> None:
        table.note_room_end(room_end(room, first_ms), [], NOW_MS)
        table.note_room_end(room_end(room, second_ms), [], NOW_MS)
        assert table.read([room_item(room)])[room_item(room)].stop_event_time_ms == T + 1

    def test_the_rooms_own_item_is_no_task_of_it(self, table: SegmentTable, room: Room, task: Task) -> None:
        table.note_room_end(room_end(room), [], NOW_MS)
        assert table.tasks_of(room) == {}
        table.note_start(task, T)
        assert table.tasks_of(room).keys() == {task}
        assert ROOM_ITEM not in {known.task_id for known in table.tasks_of(room)}

    def test_rooms_of_like_names_share_no_task(self, table: SegmentTable, room: Room) -> None:
        others = [Room(room.app_id + "x", room.room_id), Room(room.app_id, room.room_id + "x")]
        for other in others:
            table.note_start(Task(other, "audio"), T)
        assert table.tasks_of(room) == {}
        assert table.tasks_of(others[0]).keys() == {Task(others[0], "audio")}

    @NOT_IN_MEMORY
    def test_every_task_of_a_large_room_is_found(self, table: SegmentTable, client: Any, name: str, room: Room) -> None:
        """DynamoDB gives at most 1 MB at once: these are 300 items of 5 kB, as if records had grown."""
        tasks = [Task(room, f"task-{number}") for number in range(300)]
        for start in range(0, len(tasks), 25):
            puts = [
                {
                    "PutRequest": {
                        "Item": {
                            "room": {"S": f"{room.app_id}#{room.room_id}"},
                            "task_id": {"S": task.task_id},
                            "started_at": {"N": str(T)},
                            "filler": {"S": "x" * 5_000},
                        }
                    }
                }
                for task in tasks[start : start + 25]
            ]
            client.batch_write_item(RequestItems={name: puts})
        pages: list[object] = []

        def note(params: object, **_: object) -> None:
            pages.append(params)

        client.meta.events.register("provide-client-params.dynamodb.Query", note)
        try:
            found = table.tasks_of(room)
        finally:
            client.meta.events.unregister("provide-client-params.dynamodb.Query", note)
        assert found == {task: Record(started_at_ms=T) for task in tasks}
        assert len(pages) > 1


class TestWatching:
    """Where the sweeper looks: the room's own item, and the sparse index of those that are watched."""

    @staticmethod
    def due(table: SegmentTable, room: Room, now_ms: int) -> list[int]:
        return [check_at_ms for found, check_at_ms in table.rooms_due(now_ms, 1_000) if found == room]

    def test_a_watched_room_names_its_open_tasks_and_is_due_at_its_time(
        self, table: SegmentTable, client: Any, name: str, room: Room
    ) -> None:
        table.note_room_end(room_end(room), [], NOW_MS)
        watched = table.watch(room, ["audio"], LATER_MS)
        assert (watched.open_tasks, watched.check_at_ms) == (frozenset({"audio"}), LATER_MS)
        assert watched.stop_event_time_ms == T
        assert "expires_at" not in item(client, name, room_item(room))
        assert self.due(table, room, LATER_MS - 1) == []
        assert self.due(table, room, LATER_MS) == [LATER_MS]
        assert table.count_watched() >= 1

    def test_a_further_task_leaves_the_time_at_which_the_room_is_due(self, table: SegmentTable, room: Room) -> None:
        table.watch(room, ["audio"], NOW_MS)
        watched = table.watch(room, ["video"], LATER_MS)
        assert (watched.open_tasks, watched.check_at_ms) == (frozenset({"audio", "video"}), NOW_MS)

    def test_an_operator_sees_the_open_tasks_of_all_watched_rooms_the_oldest_first(
        self, table: SegmentTable, client: Any, name: str
    ) -> None:
        if isinstance(client, MemoryDynamo):
            pytest.skip("the stand-in has no paginators, which the functions do without")
        one, another, unwatched = (Room("661e", uuid4().hex) for _ in range(3))
        tasks = [Task(one, "audio"), Task(another, "audio"), Task(one, "video")]
        for number, task in enumerate(tasks):
            table.note_start(task, T - number)
            table.watch(task.room, [task.task_id], LATER_MS)
        stopped = Task(one, "stopped")
        table.note_start(stopped, T - 9)
        table.note_stop(stopped, event(stopped), Outcome.STOPPED, None, NOW_MS)
        table.note_start(Task(unwatched, "audio"), T - 9)
        listed = [(room, found.task_id) for room, found in read_open_tasks(client, name)]
        wanted = [found for found in listed if found[0] in (one, another, unwatched)]
        assert wanted == [(task.room, task.task_id) for task in reversed(tasks)]

    def test_where_nothing_sweeps_a_room_only_names_its_open_tasks(self, table: SegmentTable, room: Room) -> None:
        watched = table.watch(room, ["audio"], None)
        assert (watched.open_tasks, watched.check_at_ms) == (frozenset({"audio"}), None)
        assert self.due(table, room, 2**50) == []

    def test_the_room_that_waits_longest_is_due_first(self, table: SegmentTable, room: Room) -> None:
        others = [Room(room.app_id, f"{room.room_id}-{number}") for number in range(3)]
        for number, other in enumerate(others):
            table.watch(other, ["audio"], 30 - 10 * number)
        assert [found for found, _ in table.rooms_due(30, 3)] == others[::-1]
        assert len(table.rooms_due(30, 2)) == 2
        for number, other in enumerate(others):
            table.note_idle(other, 30 - 10 * number, T)
            table.unwatch(other, 30 - 10 * number, T, NOW_MS)

    def test_only_one_of_two_sweeps_has_a_room(self, table: SegmentTable, room: Room) -> None:
        table.watch(room, ["audio"], NOW_MS)
        first = table.postpone_check(room, NOW_MS, LATER_MS)
        assert first
        assert (first.open_tasks, first.check_at_ms) == (frozenset({"audio"}), LATER_MS)
        assert table.postpone_check(room, NOW_MS, LATER_MS + 1) is None
        assert table.note_idle(room, NOW_MS, T) is None

    def test_since_when_a_room_is_gone_is_remembered_and_forgotten(self, table: SegmentTable, room: Room) -> None:
        table.watch(room, ["audio"], NOW_MS)
        gone = table.note_gone(room, NOW_MS, LATER_MS, T)
        assert gone
        assert (gone.gone_at_ms, gone.check_at_ms) == (T, LATER_MS)
        back = table.note_gone(room, LATER_MS, NOW_MS, None)
        assert back
        assert (back.gone_at_ms, back.check_at_ms) == (None, NOW_MS)

    def test_a_room_that_is_no_longer_watched_names_its_tasks_and_expires(
        self, table: SegmentTable, client: Any, name: str, room: Room
    ) -> None:
        table.watch(room, ["audio"], NOW_MS)
        table.note_gone(room, NOW_MS, LATER_MS, T)
        table.note_idle(room, LATER_MS, T)
        table.unwatch(room, LATER_MS, T, NOW_MS)
        left = table.read([room_item(room)])[room_item(room)]
        assert left == Record(open_tasks=frozenset({"audio"}))
        assert item(client, name, room_item(room))["expires_at"] == str(EXPIRES)
        assert self.due(table, room, 2**50) == []
        assert table.postpone_check(room, LATER_MS, NOW_MS) is None

    def test_a_task_that_is_opened_since_the_mark_keeps_its_room_watched(self, table: SegmentTable, room: Room) -> None:
        table.watch(room, ["audio"], NOW_MS)
        table.note_idle(room, NOW_MS, T)
        assert table.watch(room, ["video"], LATER_MS).idle_at_ms is None
        table.unwatch(room, NOW_MS, T, NOW_MS)
        assert table.read([room_item(room)])[room_item(room)].check_at_ms == NOW_MS

    def test_an_end_names_no_longer_what_was_closed(self, table: SegmentTable, room: Room) -> None:
        table.watch(room, ["audio", "video"], NOW_MS)
        assert table.note_room_end(room_end(room), ["video"], NOW_MS).open_tasks == {"audio"}
        assert table.note_room_end(room_end(room, T - 1), ["audio"], NOW_MS).open_tasks == {"audio"}


class TestReading:
    def test_a_task_without_a_record_is_left_out(self, table: SegmentTable, task: Task) -> None:
        assert table.read([task]) == {}

    def test_nothing_asked_is_nothing_read(self, table: SegmentTable) -> None:
        assert table.read([]) == {}

    @NOT_IN_MEMORY
    def test_records_are_read_a_hundred_a_call(self, table: SegmentTable, client: Any, room: Room) -> None:
        tasks = [Task(room, f"task-{number}") for number in range(205)]
        for number, task in enumerate(tasks[::2]):
            table.note_start(task, T + number)
        keys: list[int] = []

        def note(params: dict[str, Any], **_: object) -> None:
            keys.extend(len(asked["Keys"]) for asked in params["RequestItems"].values())

        client.meta.events.register("provide-client-params.dynamodb.BatchGetItem", note)
        try:
            found = table.read(tasks)
        finally:
            client.meta.events.unregister("provide-client-params.dynamodb.BatchGetItem", note)
        assert {task: record.started_at_ms for task, record in found.items()} == {
            task: T + number for number, task in enumerate(tasks[::2])
        }
        assert keys == [100, 100, 5]

    def test_records_of_tasks_and_rooms_are_read_together(self, table: SegmentTable, room: Room, task: Task) -> None:
        table.note_start(task, T)
        table.note_room_end(room_end(room, T + 1), [], NOW_MS)
        found = table.read([task, room_item(room), Task(room, "unknown")])
        assert found.keys() == {task, room_item(room)}

    def test_an_expired_record_that_is_still_there_is_read(self, table: SegmentTable, task: Task) -> None:
        table.note_stop(task, event(task, 1_000), Outcome.STOPPED, None, 2_000)
        assert table.read([task])[task].stop_event_time_ms == 1_000

    @NOT_IN_MEMORY
    def test_what_dynamodb_leaves_unread_is_tried_again_later(
        self, table: SegmentTable, client: Any, task: Task
    ) -> None:
        """The embedded AWS is never too busy, so its answer is changed on the way."""

        def leave_unread(parsed: dict[str, Any], **_: object) -> None:
            parsed["UnprocessedKeys"] = {"table": {"Keys": []}}

        client.meta.events.register("after-call.dynamodb.BatchGetItem", leave_unread)
        try:
            with pytest.raises(Retryable) as raised:
                table.read([task])
        finally:
            client.meta.events.unregister("after-call.dynamodb.BatchGetItem", leave_unread)
        assert str(raised.value) == "TableThrottled: DynamoDB did not read every record of the batch"

    @NOT_IN_MEMORY
    def test_an_answer_that_does_not_name_the_table_holds_no_record(
        self, table: SegmentTable, client: Any, task: Task
    ) -> None:
        """The embedded AWS always names it, so its answer is changed on the way."""

        def leave_out(parsed: dict[str, Any], **_: object) -> None:
            parsed["Responses"] = {}

        client.meta.events.register("after-call.dynamodb.BatchGetItem", leave_out)
        try:
            assert table.read([task]) == {}
        finally:
            client.meta.events.unregister("after-call.dynamodb.BatchGetItem", leave_out)


USES = pytest.mark.parametrize(
    "use",
    [
        pytest.param(lambda table, task: table.read([task]), id="read"),
        pytest.param(lambda table, task: table.tasks_of(task.room), id="tasks_of"),
        pytest.param(lambda table, task: table.note_start(task, T), id="note_start"),
        pytest.param(lambda table, task: table.note_sighting(task, T), id="note_sighting"),
        pytest.param(lambda table, task: table.watch(task.room, ["audio"], T), id="watch"),
        pytest.param(lambda table, _: table.rooms_due(T, 10), id="rooms_due"),
        pytest.param(lambda table, task: table.postpone_check(task.room, T, T + 1), id="postpone_check"),
        pytest.param(lambda table, task: table.note_room_end(room_end(task.room), [], NOW_MS), id="note_room_end"),
        pytest.param(
            lambda table, task: table.note_stop(task, event(task), Outcome.STOPPED, None, NOW_MS), id="note_stop"
        ),
    ],
)


@NOT_IN_MEMORY
@USES
def test_a_missing_table_is_trouble_that_may_pass(
    client: Any, task: Task, use: Callable[[SegmentTable, Task], object]
) -> None:
    with pytest.raises(Retryable) as raised:
        use(SegmentTable(client, "no-such-table", RETENTION_SECONDS), task)
    assert re.fullmatch(r"TableResourceNotFoundException: DynamoDB refused [a-z_]+", str(raised.value))


def test_a_dynamodb_that_does_not_answer_is_trouble_that_may_pass(aws_away: EmbeddedAws, task: Task) -> None:
    table = SegmentTable(aws_away.client("dynamodb"), "segments", RETENTION_SECONDS)
    with pytest.raises(Retryable) as raised:
        table.read([task])
    assert str(raised.value) == "TableUnreachable: DynamoDB did not answer batch_get_item: EndpointConnectionError"
