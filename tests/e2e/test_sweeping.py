"""Unreported tasks: the sweeper asks whether their rooms exist, and requests stops for rooms that do not.

The schedule fires every few minutes, and a room must be gone for a minute. The tests do not wait for that: they invoke
the function as the schedule does, after they have put the room's records back by a minute. Their tasks have run for an
hour.
"""

from collections.abc import Callable
from typing import Any

import pytest

from sandbox.metrics import metrics_in
from sandbox.stack import Sandbox, wait_for
from segments.ledger import LOOK_ITEM
from tests.e2e.observer import APP_ID, Room, now_ms

Sweep = Callable[[Room], dict[str, Any]]


@pytest.fixture(scope="module")
def sweep(box: Sandbox) -> Sweep:
    """Return a function that sweeps once, a minute later as far as the room is concerned."""

    def sweep_once(room: Room) -> dict[str, Any]:
        counts: dict[str, Any] = box.sweep([room.id])
        assert "errorMessage" not in counts
        return counts

    return sweep_once


def an_hour_ago() -> int:
    return now_ms() - 3_600_000


def orphans(box: Sandbox) -> float:
    """Add up the stop function's values of the metric so far."""
    logged = [found for line in box.log_lines() for found in metrics_in(line)]
    return sum(sum(values) for metric, values in logged if metric.name == "Orphans")


def end_of_sweep(box: Sandbox, room: Room) -> list[str]:
    """Wait until the event of the sweeper is served, and return its outcomes."""

    def outcomes() -> list[str]:
        lines = [line for line in box.log_lines() if line.get("room_id") == room.id and "outcome" in line]
        return [line["outcome"] for line in lines if line["event_type"] == "RoomGone"]

    return wait_for(outcomes, "the end of a RoomGone")


def test_task_of_a_room_that_is_gone_is_stopped_within_two_sweeps_though_nobody_told(
    box: Sandbox, room: Room, sweep: Sweep
) -> None:
    room.start("audio", at_ms=an_hour_ago())
    assert room.end_of("SegmentStarted", TaskId="audio") == ["known"]
    box.rtc.close_room(APP_ID, room.id)
    orphans_before = orphans(box)

    assert sweep(room)["rooms_gone"] >= 1
    assert room.is_running("audio")
    gone_at = room.records[LOOK_ITEM]["gone_at"] - 60_000
    sweep(room)

    assert end_of_sweep(box, room) == ["stopped"]
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

    sweep(room)
    assert set(room.records) == {"audio"}
    assert "watch" not in record


def test_task_of_a_living_room_goes_on(room: Room, sweep: Sweep) -> None:
    room.start("audio")
    assert room.end_of("SegmentStarted", TaskId="audio") == ["known"]
    for _ in range(3):
        assert sweep(room)["rooms_swept"] >= 1
    assert len(room.requests("GetRoomOnlineUsers")) == 3
    assert room.stopped == []
    assert room.is_running("audio")
    assert set(room.records) == {"audio"}
