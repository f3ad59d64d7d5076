"""The segment table, in an embedded AWS, in moto, and in the stand-in of the unit tests."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest

from sandbox.embedded_aws import EmbeddedAws
from segments.errors import Retryable
from segments.events import Event, EventType, Room, Task
from segments.ledger import SWEEP_ITEM, WATCHED, Lease, SegmentTable, _key, _Refused, fields_of
from segments.stop_rules import Outcome, Record
from tests.environments import hooked
from tests.second_opinion import moto_client
from tests.segment_table import create_segment_table
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
    """Create a DynamoDB client. The stand-in must behave like AWS, since the explorer runs on the stand-in."""
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
def table(client: Any) -> SegmentTable:
    """Create a segment table with the keys and indexes of template.yaml."""
    table = SegmentTable(client, f"segments-{uuid4().hex}", RETENTION_SECONDS, sweeps=True)
    if not isinstance(client, MemoryDynamo):
        create_segment_table(client, table._name)
    return table


@pytest.fixture
def room() -> Room:
    """Name a room that no other test uses."""
    return Room("661e", uuid4().hex)


@pytest.fixture
def task(room: Room) -> Task:
    return Task(room, "audio")


def watched(table: SegmentTable, room: Room) -> dict[Task, Record]:
    """Read the items of a room in the global index, which has no delay in the embedded AWS and moto."""
    return dict(table.watched_rooms()).get(room, {})


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


def item(table: SegmentTable, task: Task) -> dict[str, Any]:
    """Read all attributes of a task's item, except its key."""
    key = {"room": {"S": f"{task.room.app_id}#{task.room.room_id}"}, "task_id": {"S": task.task_id}}
    found = table._client.get_item(TableName=table._name, Key=key, ConsistentRead=True).get("Item", {})
    return {attribute: next(iter(value.values())) for attribute, value in found.items() if attribute not in key}


def stop(
    table: SegmentTable, task: Task, event: Event, outcome: Outcome, request_id: str | None, now_ms: int
) -> Record:
    """Record an answer, based on the record that was read just before."""
    known = table.read([task]).get(task, Record())
    return table.note_stop(task, known, event, outcome, request_id, now_ms)


class TestStops:
    def test_a_stop_is_recorded_with_its_event_and_its_answer(self, table: SegmentTable, task: Task) -> None:
        stop(table, task, event(task, business_id="biz-1"), Outcome.STOPPED, "request-1", NOW_MS)
        assert item(table, task) == {
            "stop_event_time": str(T),
            "stopped_at": str(NOW_MS),
            "outcome": "stopped",
            "request_id": "request-1",
            "event_type": "ModerationViolation",
            "event_id": "evt-1",
            "business_id": "biz-1",
            "expires_at": str(EXPIRES),
        }

    @pytest.mark.parametrize(
        ("first_ms", "second_ms", "kept_ms"), [(T, T + 1, T + 1), (T, T, T), (T + 1, T, T + 1), (-1, 0, 0), (0, -1, 0)]
    )
    def test_older_stop_never_overwrites_a_newer_one(
        self, table: SegmentTable, task: Task, first_ms: int, second_ms: int, kept_ms: int
    ) -> None:
        stop(table, task, event(task, first_ms), Outcome.STOPPED, "first", NOW_MS)
        stop(table, task, event(task, second_ms), Outcome.STOPPED, "second", LATER_MS)
        found = item(table, task)
        newer = second_ms >= first_ms
        assert found["stop_event_time"] == str(kept_ms)
        assert found["request_id"] == ("second" if newer else "first")
        assert found["expires_at"] == str(LATER_EXPIRES if newer else EXPIRES)

    def test_an_answer_without_effect_does_not_extend_a_record_s_life(self, table: SegmentTable, task: Task) -> None:
        stop(table, task, event(task), Outcome.ALREADY_STOPPED, "first", NOW_MS)
        stop(table, task, event(task, T + 1), Outcome.ALREADY_STOPPED, "second", LATER_MS)
        found = item(table, task)
        assert (found["stop_event_time"], found["expires_at"]) == (str(T + 1), str(EXPIRES))

    @pytest.mark.parametrize("restarts", [False, True])
    @pytest.mark.parametrize(
        "outcomes", [(Outcome.STOPPED, Outcome.ALREADY_STOPPED), (Outcome.ALREADY_STOPPED, Outcome.STOPPED)]
    )
    def test_of_two_copies_the_one_that_stopped_the_task_is_recorded(
        self, table: SegmentTable, task: Task, outcomes: tuple[Outcome, Outcome], restarts: bool
    ) -> None:
        for outcome in outcomes:
            stop(table, task, event(task), outcome, f"of {outcome}", NOW_MS)
            if restarts:
                table.note_start(task, T + 1)
        found = item(table, task)
        assert (found["outcome"], found["request_id"]) == ("stopped", "of stopped")
        assert (found.get("open_since"), "expires_at" in found) == ((str(T + 1), False) if restarts else (None, True))

    def test_a_stop_that_is_recorded_after_a_newer_event_is_recorded_with_it(
        self, table: SegmentTable, task: Task
    ) -> None:
        stop(table, task, event(task, T + 1), Outcome.ALREADY_STOPPED, "gone", NOW_MS)
        stop(table, task, event(task), Outcome.STOPPED, "done", LATER_MS)
        found = item(table, task)
        assert (found["stop_event_time"], found["stopped_at"]) == (str(T + 1), str(LATER_MS))
        assert (found["outcome"], found["request_id"]) == ("stopped", "done")

    @pytest.mark.parametrize(("start_ms", "request_id"), [(T, "done"), (T + 1, "gone")])
    def test_a_stop_that_is_recorded_after_a_newer_event_changes_its_record_only_in_the_same_session(
        self, table: SegmentTable, task: Task, start_ms: int, request_id: str
    ) -> None:
        table.note_start(task, start_ms)
        stop(table, task, event(task, T + 2), Outcome.ALREADY_STOPPED, "gone", NOW_MS)
        stop(table, task, event(task), Outcome.STOPPED, "done", LATER_MS)
        assert item(table, task)["request_id"] == request_id

    def test_a_newer_stop_removes_the_ids_of_the_older_one(self, table: SegmentTable, task: Task) -> None:
        stop(table, task, event(task), Outcome.STOPPED, "request-1", NOW_MS)
        stop(table, task, event(task, T + 1, event_id=None), Outcome.ALREADY_STOPPED, None, LATER_MS)
        assert not {"event_id", "request_id"} & item(table, task).keys()

    def test_a_stop_closes_its_task_and_keeps_its_start_and_business_id(self, table: SegmentTable, task: Task) -> None:
        table.note_start(task, T, "biz-1")
        assert table.open_tasks(task.room).keys() == {task}
        assert "expires_at" not in item(table, task)
        record = stop(table, task, event(task, T + 2), Outcome.STOPPED, "request-1", NOW_MS)
        assert record == table.read([task])[task]
        assert (record.stop_event_time_ms, record.started_at_ms, record.watch) == (T + 2, T, None)
        assert (record.is_open, record.business_id) == (False, "biz-1")
        assert item(table, task)["expires_at"] == str(EXPIRES)
        assert table.open_tasks(task.room) == {}

    @pytest.mark.parametrize(
        ("event_type", "sweeps", "is_watched"),
        [
            (EventType.ROOM_ENDED, True, True),
            (EventType.MODERATION_VIOLATION, True, True),
            (EventType.ROOM_GONE, True, False),
            (EventType.ROOM_ENDED, False, False),
        ],
    )
    def test_a_task_without_a_known_start_is_watched_until_the_sweeper_has_asked_about_it(
        self, table: SegmentTable, task: Task, event_type: EventType, sweeps: bool, is_watched: bool
    ) -> None:
        table = SegmentTable(table._client, table._name, RETENTION_SECONDS, sweeps=sweeps)
        table.note_sighting(task, T - 1)
        record = stop(table, task, event(task, T, event_type), Outcome.STOPPED, "request-1", NOW_MS)
        assert (record.is_open, record.watch == WATCHED) == (False, is_watched)
        assert ("expires_at" in item(table, task)) is not is_watched
        assert (task in watched(table, task.room)) is is_watched

    @pytest.mark.parametrize("opened_ms", [T - 1, T, T + 1])
    def test_a_task_that_was_opened_during_the_call_is_closed_only_if_the_event_is_not_older(
        self, table: SegmentTable, task: Task, opened_ms: int
    ) -> None:
        table.note_start(task, T - 2)
        known = table.read([task])[task]
        table.note_start(task, opened_ms)
        record = table.note_stop(task, known, event(task), Outcome.STOPPED, "request-1", NOW_MS)
        assert (record.stop_event_time_ms, record.is_open) == (T, opened_ms > T)

    def test_a_record_that_changes_during_each_write_is_retried_later(
        self, table: SegmentTable, task: Task, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        tries: list[int] = []

        def restarted(*_: object, **__: object) -> Record:
            tries.append(len(tries))
            raise _Refused(Record(started_at_ms=T - 100 + len(tries)))

        monkeypatch.setattr(SegmentTable, "_update", restarted)
        with pytest.raises(Retryable, match=r"^TableContended: "):
            table.note_stop(task, Record(), event(task), Outcome.STOPPED, None, NOW_MS)
        assert len(tries) == 10

    def test_every_id_that_the_api_allows_is_a_key(self, table: SegmentTable) -> None:
        room = Room("a" * 128, uuid4().hex + "_@-." + "r" * 92)
        tasks = [Task(room, task_id) for task_id in ("t" * 128, "0", "_", "@", "-", ".", "Z")]
        for task in tasks:
            stop(table, task, event(task), Outcome.STOPPED, None, NOW_MS)
        assert table.read(tasks).keys() == set(tasks)


class TestStartsAndSightings:
    Note = Callable[..., bool]

    @pytest.mark.parametrize("note", [SegmentTable.note_start, SegmentTable.note_sighting])
    def test_a_start_or_a_sighting_opens_the_task_and_without_a_business_id_keeps_the_known_one(
        self, table: SegmentTable, task: Task, note: Note
    ) -> None:
        assert note(table, task, T, "biz-1")
        started_at_ms = T if note is SegmentTable.note_start else None
        record = Record(started_at_ms=started_at_ms, open_since_ms=T, business_id="biz-1", watch=WATCHED)
        assert table.read([task]) == table.open_tasks(task.room) == {task: record}
        assert watched(table, task.room) == {task: Record(open_since_ms=T, watch=WATCHED)}
        note(table, task, T + 1)
        record = table.read([task])[task]
        assert (record.open_since_ms, record.business_id) == (T + 1, "biz-1")

    @pytest.mark.parametrize(
        ("note", "time_ms", "opens"),
        [
            (SegmentTable.note_start, T - 1, False),
            (SegmentTable.note_sighting, T - 1, False),
            (SegmentTable.note_start, T, True),
            (SegmentTable.note_sighting, T, False),
            (SegmentTable.note_start, T + 1, True),
            (SegmentTable.note_sighting, T + 1, True),
        ],
    )
    def test_a_start_or_a_sighting_of_a_new_session_opens_a_stopped_task(
        self, table: SegmentTable, task: Task, note: Note, time_ms: int, opens: bool
    ) -> None:
        stop(table, task, event(task), Outcome.STOPPED, "request-1", NOW_MS)
        before = item(table, task)
        assert note(table, task, time_ms) is opens
        record = table.read([task])[task]
        assert (record.open_since_ms, record.outcome) == (time_ms if opens else None, "stopped")
        if opens:
            assert "expires_at" not in item(table, task)
        else:
            assert item(table, task) == before

    def test_only_a_later_start_moves_the_task_s_start(self, table: SegmentTable, task: Task) -> None:
        for started_at_ms in (T, T + 2, T + 2, T + 1):
            assert table.note_start(task, started_at_ms)
        record = table.read([task])[task]
        assert (record.started_at_ms, record.open_since_ms) == (T + 2, T + 2)

    def test_a_slice_from_before_a_known_start_opens_nothing(self, table: SegmentTable, task: Task) -> None:
        table.note_start(task, T + 1)
        assert table.note_sighting(task, T)
        assert table.read([task])[task].open_since_ms == T + 1
        stop(table, task, event(task, T - 1), Outcome.STOPPED, None, NOW_MS)
        known = table.read([task])[task]
        table.note_over(task, known, NOW_MS)
        assert not table.note_sighting(task, T)


class TestRooms:
    def test_the_end_of_a_room_is_recorded_with_its_event(self, table: SegmentTable, room: Room) -> None:
        table.note_room_end(room_end(room, business_id="biz-1"), NOW_MS)
        assert item(table, Task(room, "#room")) == {
            "stop_event_time": str(T),
            "event_type": "RoomEnded",
            "event_id": "evt-1",
            "business_id": "biz-1",
            "expires_at": str(EXPIRES),
        }

    def test_the_end_of_a_room_returns_the_record_from_before(self, table: SegmentTable, room: Room) -> None:
        assert table.note_room_end(room_end(room), NOW_MS) == Record()
        assert table.note_room_end(room_end(room, T + 1), NOW_MS).stop_event_time_ms == T
        for time_ms in (T, T + 1):
            assert table.note_room_end(room_end(room, time_ms), NOW_MS).stop_event_time_ms == T + 1

    def test_the_open_tasks_of_a_room_are_neither_closed_nor_of_another_room(
        self, table: SegmentTable, room: Room, task: Task
    ) -> None:
        others = [Room(room.app_id + "x", room.room_id), Room(room.app_id, room.room_id + "x")]
        for other in others:
            table.note_start(Task(other, "audio"), T)
        stop(table, task, event(task), Outcome.STOPPED, None, NOW_MS)
        table.note_room_end(room_end(room), NOW_MS)
        table.note_gone(room, T)
        assert table.open_tasks(room) == {}
        table.note_start(task, T)
        assert table.open_tasks(room).keys() == {task}


class TestWatching:
    """The sparse index of watched rooms, which the sweeper reads."""

    def test_the_index_holds_the_fields_that_the_sweeper_needs(self, table: SegmentTable, task: Task) -> None:
        table.note_start(task, T, "biz-1")
        table.note_gone(task.room, T + 1)
        look = Task(task.room, "#look")
        assert watched(table, task.room) == {
            task: Record(open_since_ms=T, watch=WATCHED),
            look: Record(gone_at_ms=T + 1, watch=WATCHED),
        }
        table.forget_gone(task.room)
        assert watched(table, task.room).keys() == {task}

    def test_a_task_that_is_over_is_no_longer_watched_unless_it_was_opened_again(
        self, table: SegmentTable, task: Task
    ) -> None:
        table.note_start(task, T)
        known = table.read([task])[task]
        table.note_start(task, T + 1)
        table.note_over(task, known, NOW_MS)
        assert watched(table, task.room).keys() == {task}
        table.note_over(task, table.read([task])[task], NOW_MS)
        assert watched(table, task.room) == {}
        assert item(table, task)["expires_at"] == str(EXPIRES)

    def test_rooms_are_sorted_and_can_be_read_from_a_place_or_up_to_it(self, table: SegmentTable, room: Room) -> None:
        rooms = [Room(room.app_id, f"{room.room_id}-{number}") for number in range(4)]
        for one in reversed(rooms):
            for task_id in ("audio", "video"):
                table.note_start(Task(one, task_id), T)

        def read(**bounds: Room) -> list[Room]:
            found = [(one, items) for one, items in table.watched_rooms(**bounds) if one in rooms]
            assert all(len(items) == 2 for _, items in found)
            return [one for one, _ in found]

        assert read() == rooms
        for number, place in enumerate(rooms, 1):
            assert read(after=place) == rooms[number:]
            assert read(until=place) == rooms[:number]

    @NOT_IN_MEMORY
    def test_a_room_whose_tasks_are_on_two_pages_is_yielded_once(
        self, table: SegmentTable, client: Any, room: Room
    ) -> None:
        """The items of the index are small, so a limit cuts its answer into pages."""
        tasks = [Task(room, f"task-{number}") for number in range(5)]
        for task in tasks:
            table.note_start(task, T)

        def cut(params: dict[str, Any], **_: object) -> None:
            params["Limit"] = 2

        with hooked(client, "provide-client-params.dynamodb.Query", cut):
            found = [items for one, items in table.watched_rooms() if one == room]
        assert [items.keys() for items in found] == [set(tasks)]


class TestLeases:
    @pytest.fixture(autouse=True)
    def given_back(self, table: SegmentTable) -> Iterator[None]:
        """Give back the last lease, since all tests share the table's item `#sweep`."""
        yield
        if lease := table.take_lease(2**50, 2**50 + 1):
            table.give_back(lease)

    def test_one_sweep_has_the_lease_until_it_returns_or_expires(self, table: SegmentTable) -> None:
        first = table.take_lease(T, T + 10)
        assert first
        assert table.take_lease(T + 10, T + 20) is None
        table.give_back(first)
        second = table.take_lease(T + 1, T + 11)
        assert second
        assert table.take_lease(T + 12, T + 22)

    def test_only_the_holder_of_the_lease_records_the_place(self, table: SegmentTable, room: Room) -> None:
        late = table.take_lease(T, T + 10)
        assert late
        late = replace(late, round_began_at_ms=T + 1, last_round_began_at_ms=T - 1)
        assert table.note_place(late, room)
        another = table.take_lease(T + 11, T + 21)
        assert another == Lease(T + 21, room, T + 1, T - 1)
        assert not table.note_place(late, Room("661e", "another"))
        table.give_back(late)
        assert table.take_lease(T + 12, T + 22) is None

    def test_a_lease_ends_with_its_item(self, table: SegmentTable, client: Any, room: Room) -> None:
        lease = table.take_lease(T, T + 10)
        assert lease
        client.delete_item(TableName=table._name, Key=_key(SWEEP_ITEM))
        assert not table.note_place(lease, room)


class TestReading:
    def test_times_are_whole_numbers_and_other_fields_are_texts(self) -> None:
        item = {"at": {"N": "5"}, "until": {"N": "6"}, "name": {"S": "7"}}
        assert fields_of(item, {"at": "at_ms", "until": "until_seconds", "name": "name"}) == {
            "at_ms": 5,
            "until_seconds": 6,
            "name": "7",
        }

    @NOT_IN_MEMORY
    def test_a_call_reads_a_hundred_records(self, table: SegmentTable, client: Any, room: Room) -> None:
        tasks = [Task(room, f"task-{number}") for number in range(205)]
        for number, task in enumerate(tasks[::2]):
            table.note_start(task, T + number)
        keys: list[int] = []

        def note(params: dict[str, Any], **_: object) -> None:
            keys.extend(len(asked["Keys"]) for asked in params["RequestItems"].values())

        with hooked(client, "provide-client-params.dynamodb.BatchGetItem", note):
            found = table.read(tasks)
        assert {task: record.started_at_ms for task, record in found.items()} == {
            task: T + number for number, task in enumerate(tasks[::2])
        }
        assert keys == [100, 100, 5]

    @NOT_IN_MEMORY
    def test_unread_keys_are_retried_and_an_answer_without_the_table_has_no_record(
        self, table: SegmentTable, client: Any, task: Task
    ) -> None:
        """The embedded AWS reads every key and always names the table, so a hook changes its answer."""

        def change(parsed: dict[str, Any], **_: object) -> None:
            parsed.update(changes)

        changes: dict[str, Any] = {"UnprocessedKeys": {"table": {"Keys": []}}}
        with hooked(client, "after-call.dynamodb.BatchGetItem", change):
            with pytest.raises(Retryable) as raised:
                table.read([task])
            changes = {"Responses": {}}
            assert table.read([task]) == {}
        assert str(raised.value) == "TableThrottled: DynamoDB did not return every record: a later try may succeed"


@NOT_IN_MEMORY
def test_a_missing_table_is_retried(client: Any, task: Task) -> None:
    with pytest.raises(Retryable) as raised:
        SegmentTable(client, "no-such-table", RETENTION_SECONDS, sweeps=True).note_start(task, T)
    assert (
        str(raised.value)
        == "TableResourceNotFoundException: DynamoDB refused update_item: check the table and the role"
    )


def test_a_dynamodb_that_does_not_answer_is_retried(aws_away: EmbeddedAws, task: Task) -> None:
    table = SegmentTable(aws_away.client("dynamodb"), "segments", RETENTION_SECONDS, sweeps=True)
    with pytest.raises(Retryable) as raised:
        table.read([task])
    assert (
        str(raised.value)
        == "TableUnreachable: DynamoDB did not answer batch_get_item (EndpointConnectionError): try later"
    )
