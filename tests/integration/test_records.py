import re
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest

from sandbox.embedded_aws import EmbeddedAws
from stop_segment.errors import Retryable
from stop_segment.events import Event, EventType, Room, Task
from stop_segment.records import ROOM_ITEM, SegmentTable, room_item
from stop_segment.rules import Outcome, Record
from tests.second_opinion import moto_client
from tests.unit.memory_dynamo import MemoryDynamo

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
        AttributeDefinitions=[{"AttributeName": key, "AttributeType": "S"} for key in ("room", "task_id")],
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
            task: Record(T, None, None, "stopped", "ModerationViolation", "evt-1", "biz-1", EXPIRES)
        }

    @pytest.mark.parametrize(
        ("first_ms", "second_ms", "kept_ms"), [(T, T + 1, T + 1), (T, T, T), (T + 1, T, T + 1), (-1, 0, 0), (0, -1, 0)]
    )
    def test_older_stop_never_overwrites_a_newer_one(
        self, table: SegmentTable, task: Task, first_ms: int, second_ms: int, kept_ms: int
    ) -> None:
        table.note_stop(task, event(task, first_ms), Outcome.STOPPED, "first", NOW_MS)
        table.note_stop(task, event(task, second_ms), Outcome.ALREADY_STOPPED, "second", LATER_MS)
        record = table.read([task])[task]
        newer = second_ms >= first_ms
        assert record.stop_event_time_ms == kept_ms
        assert record.outcome == ("already_stopped" if newer else "stopped")
        assert record.expires_at_seconds == (LATER_EXPIRES if newer else EXPIRES)

    def test_a_newer_stop_leaves_nothing_of_the_older_ones_ids(
        self, table: SegmentTable, client: Any, name: str, task: Task
    ) -> None:
        table.note_stop(task, event(task), Outcome.STOPPED, "request-1", NOW_MS)
        table.note_stop(task, event(task, T + 1, event_id=None), Outcome.ALREADY_STOPPED, None, LATER_MS)
        assert not {"event_id", "request_id"} & item(client, name, task).keys()

    def test_a_stop_keeps_what_else_is_known_of_the_task(self, table: SegmentTable, task: Task) -> None:
        table.note_start(event(task, T, EventType.SEGMENT_STARTED, business_id="biz-1"), NOW_MS)
        table.note_sighting(event(task, T + 1, EventType.SEGMENT_REAL_TIME_DATA), NOW_MS)
        table.note_stop(task, event(task, T + 2), Outcome.STOPPED, "request-1", NOW_MS)
        record = table.read([task])[task]
        assert (record.stop_event_time_ms, record.started_at_ms, record.seen_at_ms) == (T + 2, T, T + 1)
        assert record.business_id == "biz-1"

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

    @NOTES
    def test_it_is_remembered(
        self, table: SegmentTable, task: Task, note: Callable[[SegmentTable, Event, int], None], field: str
    ) -> None:
        note(table, event(task, business_id="biz-1"), NOW_MS)
        assert table.read([task]) == {
            task: Record(**{field: T}, business_id="biz-1", expires_at_seconds=EXPIRES)  # type: ignore[arg-type]
        }

    @NOTES
    @pytest.mark.parametrize(("first_ms", "second_ms"), [(T, T + 1), (T + 1, T), (T + 1, T + 1)])
    def test_the_newest_is_kept(
        self,
        table: SegmentTable,
        task: Task,
        note: Callable[[SegmentTable, Event, int], None],
        field: str,
        first_ms: int,
        second_ms: int,
    ) -> None:
        note(table, event(task, first_ms), NOW_MS)
        note(table, event(task, second_ms), NOW_MS)
        assert getattr(table.read([task])[task], field) == T + 1

    @NOTES
    def test_it_keeps_the_record_for_another_retention_period(
        self, table: SegmentTable, task: Task, note: Callable[[SegmentTable, Event, int], None], field: str
    ) -> None:
        note(table, event(task), NOW_MS)
        note(table, event(task, T + 1), LATER_MS)
        record = table.read([task])[task]
        assert (getattr(record, field), record.expires_at_seconds) == (T + 1, LATER_EXPIRES)

    @NOTES
    def test_an_event_without_a_business_id_takes_none_away(
        self, table: SegmentTable, task: Task, note: Callable[[SegmentTable, Event, int], None], field: str
    ) -> None:
        note(table, event(task, business_id="biz-1"), NOW_MS)
        note(table, event(task, T + 1), NOW_MS)
        record = table.read([task])[task]
        assert (getattr(record, field), record.business_id) == (T + 1, "biz-1")

    @NOTES
    def test_it_changes_no_stop(
        self, table: SegmentTable, task: Task, note: Callable[[SegmentTable, Event, int], None], field: str
    ) -> None:
        table.note_stop(task, event(task), Outcome.STOPPED, "request-1", NOW_MS)
        note(table, event(task, T - 1), NOW_MS)
        record = table.read([task])[task]
        assert (record.stop_event_time_ms, getattr(record, field)) == (T, T - 1)
        assert (record.outcome, record.event_id) == ("stopped", "evt-1")

    @pytest.mark.parametrize(("first_ms", "second_ms"), [(T, T + 1), (T + 1, T)])
    def test_a_start_that_the_api_told_of_counts_like_any_other(
        self, table: SegmentTable, task: Task, first_ms: int, second_ms: int
    ) -> None:
        table.note_start(event(task, first_ms), NOW_MS)
        table.note_known_start(task, second_ms, NOW_MS)
        assert table.read([task])[task].started_at_ms == T + 1


class TestRooms:
    def test_the_end_of_a_room_is_remembered_with_its_event(
        self, table: SegmentTable, client: Any, name: str, room: Room
    ) -> None:
        table.note_room_end(room_end(room, business_id="biz-1"), NOW_MS)
        assert item(client, name, Task(room, "#room")) == {
            "stop_event_time": str(T),
            "event_type": "RoomEnded",
            "event_id": "evt-1",
            "business_id": "biz-1",
            "expires_at": str(EXPIRES),
        }

    @pytest.mark.parametrize(("first_ms", "second_ms"), [(T, T + 1), (T + 1, T)])
    def test_the_newest_end_is_kept(self, table: SegmentTable, room: Room, first_ms: int, second_ms: int) -> None:
        table.note_room_end(room_end(room, first_ms), NOW_MS)
        table.note_room_end(room_end(room, second_ms), NOW_MS)
        assert table.read([room_item(room)])[room_item(room)].stop_event_time_ms == T + 1

    def test_the_rooms_own_item_is_no_task_of_it(self, table: SegmentTable, room: Room, task: Task) -> None:
        table.note_room_end(room_end(room), NOW_MS)
        assert table.tasks_of(room) == {}
        table.note_start(event(task), NOW_MS)
        assert table.tasks_of(room).keys() == {task}
        assert ROOM_ITEM not in {known.task_id for known in table.tasks_of(room)}

    def test_rooms_of_like_names_share_no_task(self, table: SegmentTable, room: Room) -> None:
        others = [Room(room.app_id + "x", room.room_id), Room(room.app_id, room.room_id + "x")]
        for other in others:
            table.note_start(event(Task(other, "audio")), NOW_MS)
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


class TestReading:
    def test_a_task_without_a_record_is_left_out(self, table: SegmentTable, task: Task) -> None:
        assert table.read([task]) == {}

    def test_nothing_asked_is_nothing_read(self, table: SegmentTable) -> None:
        assert table.read([]) == {}

    @NOT_IN_MEMORY
    def test_records_are_read_a_hundred_a_call(self, table: SegmentTable, client: Any, room: Room) -> None:
        tasks = [Task(room, f"task-{number}") for number in range(205)]
        for number, task in enumerate(tasks[::2]):
            table.note_start(event(task, T + number), NOW_MS)
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
        table.note_start(event(task), NOW_MS)
        table.note_room_end(room_end(room, T + 1), NOW_MS)
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
        pytest.param(lambda table, task: table.note_start(event(task), NOW_MS), id="note_start"),
        pytest.param(lambda table, task: table.note_sighting(event(task), NOW_MS), id="note_sighting"),
        pytest.param(lambda table, task: table.note_known_start(task, T, NOW_MS), id="note_known_start"),
        pytest.param(lambda table, task: table.note_room_end(room_end(task.room), NOW_MS), id="note_room_end"),
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
