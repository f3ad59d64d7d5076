"""Unreported tasks: the sweeper asks whether their rooms exist, and requests stops for rooms that do not.

The schedule fires every few minutes, and a room must be gone for a minute. The tests do not wait: they move the times
of the room's records back by a minute, and then invoke the function as the schedule does.
"""

from typing import Any

from sandbox.metrics import metrics_in
from sandbox.stack import Sandbox, wait_for
from segments.ledger import LOOK_ITEM
from tests.e2e.observer import APP_ID, Room, now_ms


def sweep(box: Sandbox, room: Room) -> dict[str, Any]:
    """Sweep once, a minute later for this room, and return the sweep's counts."""
    counts: dict[str, Any] = box.sweep([room.id])
    assert "errorMessage" not in counts
    return counts


def orphans(box: Sandbox) -> float:
    """Return the sum of the metric Orphans in the stop function's log."""
    logged = [found for line in box.log_lines() for found in metrics_in(line)]
    return sum(sum(values) for metric, values in logged if metric.name == "Orphans")


def test_task_of_a_room_that_no_longer_exists_is_stopped_by_the_second_sweep(box: Sandbox, room: Room) -> None:
    room.start("audio", at_ms=now_ms() - 3_600_000)
    assert room.end_of("SegmentStarted", TaskId="audio") == ["known"]
    box.rtc.close_room(APP_ID, room.id)
    orphans_before = orphans(box)

    assert sweep(box, room)["rooms_gone"] >= 1
    assert room.is_running("audio")
    gone_at = room.records[LOOK_ITEM]["gone_at"] - 60_000
    sweep(box, room)

    assert room.outcomes(2) == ["known", "stopped"]
    assert not room.is_running("audio")
    assert len(room.requests("GetRoomOnlineUsers")) == 2
    assert room.stopped == ["audio"]
    record = room.records["audio"]
    assert (record["outcome"], record["event_type"], record["stop_event_time"]) == ("stopped", "RoomGone", gone_at)
    assert "open_since" not in record
    (event,) = room.outcome_events(1)
    assert (event["detail-type"], event["detail"]["TaskId"]) == ("SegmentStopped", "audio")
    wait_for(lambda: orphans(box) > orphans_before, "the metric")
    assert orphans(box) == orphans_before + 1

    sweep(box, room)
    assert set(room.records) == {"audio"}
    assert "watch" not in record


def test_task_of_a_room_that_exists_keeps_running(box: Sandbox, room: Room) -> None:
    room.start("audio")
    assert room.end_of("SegmentStarted", TaskId="audio") == ["known"]
    for _ in range(3):
        assert sweep(box, room)["rooms_swept"] >= 1
    assert len(room.requests("GetRoomOnlineUsers")) == 3
    assert room.stopped == []
    assert room.is_running("audio")
    assert set(room.records) == {"audio"}
