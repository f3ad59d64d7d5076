"""Rooms with tasks that are known by their starts and sightings, and late events."""

import pytest

from sandbox.stack import wait_for
from tests.e2e.observer import ROOM_ITEM, Observer, Room, now_ms, rfc3339

DAY_MS = 86_400_000


@pytest.mark.parametrize("end", ["RoomEnded", "RoomDestroy", "ModerationViolation"])
def test_event_that_names_no_task_stops_every_task_known_in_the_room(room: Room, end: str) -> None:
    room.start("started", "sighted", "unknown")
    assert room.end_of("SegmentStarted", TaskId="started", BusinessId="biz-1") == ["known"]
    assert room.end_of("SegmentRealTimeData", TaskId="sighted") == ["known"]

    assert room.end_of(end) == ["stopped", "stopped"]

    assert room.stopped == ["sighted", "started"]
    assert room.is_running("unknown")
    business_ids = {request.task[2]: (request.body or {}).get("BusinessId") for request in room.requests()}
    assert business_ids == {"started": "biz-1", "sighted": None}


def test_task_whose_start_is_heard_of_after_the_room_s_end_is_stopped(room: Room) -> None:
    room.start("audio")
    start_ms = now_ms() - 2_000
    assert room.end_of("RoomDestroy", EventTime=rfc3339(start_ms + 1_000)) == ["no_open_tasks"]
    assert room.is_running("audio")

    assert room.end_of("SegmentStarted", TaskId="audio", EventTime=rfc3339(start_ms)) == ["stopped"]

    assert not room.is_running("audio")
    assert room.records["audio"]["stop_event_time"] == room.records[ROOM_ITEM]["stop_event_time"] == start_ms + 1_000


def test_task_that_starts_after_the_room_s_end_goes_on(room: Room) -> None:
    room.start("audio")
    end_ms = now_ms() - 2_000
    assert room.end_of("RoomDestroy", EventTime=rfc3339(end_ms)) == ["no_open_tasks"]
    assert room.end_of("SegmentStarted", TaskId="audio", EventTime=rfc3339(end_ms + 1)) == ["known"]
    assert room.is_running("audio")
    assert room.stopped == []


def test_room_with_150_tasks_is_stopped_by_one_message(observer: Observer, room: Room) -> None:
    task_ids = [f"task-{number}" for number in range(150)]
    room.start(*task_ids)
    observer.box.send([room.event("SegmentStarted", TaskId=task_id) for task_id in task_ids])
    wait_for(lambda: len(room.records.keys() - {ROOM_ITEM}) == 150, "the tasks to be known")

    # After 100 lines about the tasks of a message, one line is about the others.
    assert room.end_of("RoomEnded") == ["stopped"] * 101

    assert room.stopped == sorted(task_ids)
    assert not any(room.is_running(task_id) for task_id in task_ids)


def test_late_event_never_stops_a_restarted_task(room: Room) -> None:
    end_ms = now_ms() - 10_000
    room.start("audio")
    assert room.end_of("SegmentStarted", TaskId="audio", EventTime=rfc3339(end_ms + 1)) == ["known"]
    assert room.end_of("RoomEnded", TaskId="audio", EventTime=rfc3339(end_ms)) == ["superseded"]
    assert room.end_of("RoomEnded", EventTime=rfc3339(end_ms)) == ["superseded"]
    assert room.is_running("audio")
    assert room.stopped == []


def test_stopped_task_that_has_restarted_is_stopped_again(room: Room) -> None:
    first_ms = now_ms() - 3_000
    room.start("audio")
    assert room.end_of("RoomEnded", TaskId="audio", EventTime=rfc3339(first_ms)) == ["stopped"]
    room.start("audio")
    assert room.end_of("SegmentStarted", TaskId="audio", EventTime=rfc3339(first_ms + 1_000)) == ["known"]
    assert room.end_of("RoomEnded", TaskId="audio", EventTime=rfc3339(first_ms + 2_000)) == ["stopped"]
    assert room.stopped == ["audio", "audio"]
    assert not room.is_running("audio")


def test_day_old_event_leaves_today_s_session_alone_and_asks_the_api_once(room: Room) -> None:
    room.start("audio")
    yesterday = rfc3339(now_ms() - DAY_MS)

    assert room.end_of("RoomEnded", TaskId="audio", EventTime=yesterday) == ["superseded"]
    assert room.end_of("RoomEnded", TaskId="audio", EventTime=yesterday) == ["superseded"]

    (question,) = room.requests("GetSegmentTask")
    assert question.query["TaskId"] == "audio"
    assert room.stopped == []
    assert room.is_running("audio")


def test_day_old_event_still_stops_the_session_that_it_is_about(room: Room) -> None:
    room.start("audio", at_ms=now_ms() - 2 * DAY_MS)
    assert room.end_of("RoomEnded", TaskId="audio", EventTime=rfc3339(now_ms() - DAY_MS)) == ["stopped"]
    assert len(room.requests("GetSegmentTask")) == 1
    assert not room.is_running("audio")


def test_last_slice_of_a_stopped_task_starts_nothing_and_stops_nothing(room: Room) -> None:
    room.start("audio")
    assert room.end_of("SegmentStarted", TaskId="audio") == ["known"]
    assert room.end_of("RoomEnded") == ["stopped"]
    assert room.end_of("SegmentRealTimeData", TaskId="audio") == ["known"]
    assert room.stopped == ["audio"]


def test_room_without_known_tasks_has_none_to_stop(room: Room) -> None:
    room.start("audio")
    assert room.end_of("RoomEnded") == ["no_open_tasks"]
    assert room.requests() == []
    assert set(room.records) == {ROOM_ITEM}


def test_event_from_a_clock_that_runs_ahead_does_not_silence_later_ones(room: Room) -> None:
    room.start("audio")
    assert room.end_of("RoomEnded", TaskId="audio", EventTime=rfc3339(now_ms() + DAY_MS)) == ["stopped"]
    assert room.records["audio"]["stop_event_time"] <= now_ms()
    room.start("audio")
    assert room.end_of("SegmentStarted", TaskId="audio") == ["known"]
    assert room.end_of("RoomEnded", TaskId="audio") == ["stopped"]
    assert not room.is_running("audio")
