"""The tools read rooms and the sweeper's item from a table that the functions' own module has written."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from benchmarks.table_units import WRITE_UNIT_BYTES, size_of
from segments.events import Event, EventType, Room, Task
from segments.ledger import SegmentTable
from segments.stop_rules import Outcome, Record
from tests.second_opinion import moto_client
from tests.segment_table import create_segment_table
from tools import sweeping
from tools.rooms import OpenTask, read_open_tasks, read_room
from tools.sweeping import Sweeping, read_sweeping

T = 1_795_327_920_123
ROOM = Room("661e", "room-1")
NAME = "segments"


@pytest.fixture
def client() -> Iterator[Any]:
    with moto_client("dynamodb") as client:
        create_segment_table(client, NAME)
        yield client


@pytest.fixture
def table(client: Any) -> SegmentTable:
    return SegmentTable(client, NAME, 604_800, sweeps=True)


def stop(table: SegmentTable, task: Task, time_ms: int) -> None:
    event = Event(EventType.ROOM_ENDED, task.room, time_ms, (task.task_id,))
    known = table.read([task]).get(task, Record())
    table.note_stop(task, known, event, Outcome.STOPPED, "request", time_ms)


def test_a_room_with_many_past_tasks_shows_its_open_task_even_if_its_name_comes_last(
    client: Any, table: SegmentTable
) -> None:
    for number in range(20):
        stop(table, Task(ROOM, f"audio-{number:02}"), T)
    table.note_start(Task(ROOM, "video"), T)
    items, more = read_room(client, NAME, ROOM, 5)
    assert [item.task_id for item in items] == [*(f"audio-{number:02}" for number in range(5)), "video"]
    assert more


def test_the_oldest_open_tasks_are_listed_and_the_others_counted(client: Any, table: SegmentTable) -> None:
    tasks = [Task(Room("661e", f"room-{number}"), "audio") for number in range(9)]
    for number, task in enumerate(tasks):
        table.note_start(task, T - (number * 7) % 9)
    stop(table, tasks[4], T)
    table.note_sighting(Task(ROOM, "unseen"), T)
    stop(table, Task(ROOM, "unseen"), T + 1)
    table.note_gone(ROOM, T)
    table.note_room_end(Event(EventType.ROOM_ENDED, ROOM, T), T)
    oldest, count = read_open_tasks(client, NAME, 2)
    assert oldest == [OpenTask(T - 8, tasks[5]), OpenTask(T - 7, tasks[1])]
    assert count == 8
    assert len(read_open_tasks(client, NAME, 100)[0]) == 8


def test_the_largest_items_that_ids_allow_cost_one_write_unit(client: Any, table: SegmentTable) -> None:
    room, longest = Room("a" * 128, "r" * 128), "i" * 128
    task = Task(room, "t" * 128)
    table.note_start(task, T, longest)
    event = Event(EventType.MODERATION_VIOLATION, room, T + 1, (task.task_id,), longest, longest)
    known = table.read([task])[task]
    request_id = "20261122061200" + "0" * 34
    table.note_stop(task, known, event, Outcome.ALREADY_STOPPED, request_id, T)
    table.note_start(task, T + 2)
    table.note_gone(room, T)
    table.note_room_end(event, T)
    sizes = {item["task_id"]["S"]: size_of(item) for item in client.scan(TableName=NAME)["Items"]}
    assert set(sizes) == {task.task_id, "#room", "#look"}
    assert max(sizes.values()) == sizes[task.task_id] < 900 < WRITE_UNIT_BYTES


def test_watched_rooms_are_counted_and_the_sweeper_s_item_is_read(
    client: Any, table: SegmentTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    rooms = [Room("661e", f"room-{number}") for number in range(3)]
    for task_id in ("audio", "video"):
        for number, room in enumerate(rooms):
            table.note_start(Task(room, task_id), T - number)
    found = Sweeping(3, last_room=rooms[2], open_since_ms=T - 2)
    assert read_sweeping(client, NAME) == found
    lease = table.take_lease(T, T + 1)
    assert lease
    table.note_place(replace(lease, round_began_at_ms=T - 1, last_round_began_at_ms=T - 8), rooms[1])
    found = replace(found, place=rooms[1], round_began_at_ms=T - 1, last_round_began_at_ms=T - 8)
    assert read_sweeping(client, NAME) == found
    assert found.round_ms == 7
    monkeypatch.setattr(sweeping, "MOST_ITEMS", 2)
    found = replace(found, rooms=1, counts_all=False, last_room=rooms[0], open_since_ms=T)
    assert read_sweeping(client, NAME) == found
