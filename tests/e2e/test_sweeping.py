"""Unreported tasks: the sweeper asks whether their rooms exist, and requests stops for rooms that do not.

The schedule fires every few minutes, and a room must be gone for a minute. The tests do not wait for that: they invoke
the function as the schedule does, after they have put the room's records back by a minute. Their tasks have run for an
hour.
"""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from sandbox.callbacks import callback
from sandbox.metrics import metrics_in
from sandbox.stack import Sandbox, wait_for
from segments.ledger import LOOK_ITEM
from tests.e2e.observer import APP_ID, Observer, Room, now_ms, rfc3339

ENVIRONMENTS = 3
Sweep = Callable[[Room], dict[str, Any]]


@pytest.fixture(scope="module")
def sweep(box: Sandbox) -> Sweep:
    """Give a function that sweeps once, a minute later as far as the room is concerned."""

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


def test_the_schedule_invokes_the_sweeper_and_may_do_so(box: Sandbox, observer: Observer) -> None:
    events, client = box.client("events"), box.client("lambda")
    rule = events.describe_rule(Name=observer.resource("SweepSchedule").rpartition("/")[2])
    name = observer.resource("SweepRoomsFunction")
    (target,) = events.list_targets_by_rule(Rule=rule["Name"])["Targets"]
    assert (rule["State"], rule["ScheduleExpression"]) == ("ENABLED", "rate(5 minutes)")
    assert target["Arn"] == client.get_function_configuration(FunctionName=name)["FunctionArn"]
    (allowed,) = json.loads(client.get_policy(FunctionName=name)["Policy"])["Statement"]
    assert (allowed["Effect"], allowed["Action"]) == ("Allow", "lambda:InvokeFunction")
    assert allowed["Principal"] == {"Service": "events.amazonaws.com"}
    assert rule["Arn"] in json.dumps(allowed["Condition"])


@pytest.fixture
def rejected_rooms(box: Sandbox, request: pytest.FixtureRequest) -> Iterator[int]:
    """Let rooms of a deleted app be watched, which come first on the sweeper's way; give their number."""
    keys = [f"0-deleted#room-{number}" for number in range(request.param)]
    started = {"EventType": "SegmentStarted", "AppId": "0-deleted", "TaskId": "audio"}
    box.send([json.dumps({**started, "RoomId": key.partition("#")[2]}) for key in keys])
    wait_for(lambda: not box.undone(), "the starts in the deleted app to be served")
    yield request.param
    for key in keys:  # or every later sweep would take seconds for them
        item = {"room": {"S": key}, "task_id": {"S": "audio"}}
        box.client("dynamodb").delete_item(TableName=box.outputs["SegmentTableName"], Key=item)


@pytest.mark.parametrize(
    ("told_by", "rejected_rooms"),
    [("SegmentStarted", 0), ("SegmentRealTimeData", 150)],
    indirect=["rejected_rooms"],
    ids=["its start was told", "a slice was, and 150 rooms of a rejected app come first"],
)
def test_task_of_a_room_that_is_gone_is_stopped_within_two_sweeps_though_nobody_told(
    box: Sandbox, room: Room, sweep: Sweep, told_by: str, rejected_rooms: int
) -> None:
    room.start("audio", at_ms=an_hour_ago())
    assert room.end_of(told_by, TaskId="audio") == ["known"]
    box.rtc.close_room(APP_ID, room.id)
    orphans_before = orphans(box)

    first = sweep(room)
    assert first["rooms_gone"] >= 1
    assert first["rooms_rejected"] == rejected_rooms
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


def test_task_that_began_after_its_room_was_gone_goes_on_though_nobody_told(
    box: Sandbox, room: Room, sweep: Sweep
) -> None:
    room.start("audio", at_ms=an_hour_ago())
    assert room.end_of("SegmentStarted", TaskId="audio") == ["known"]
    box.rtc.close_room(APP_ID, room.id)
    sweep(room)
    began_ms = room.records[LOOK_ITEM]["gone_at"] + 1
    room.start("audio", at_ms=began_ms)
    box.rtc.close_room(APP_ID, room.id)
    sweep(room)

    assert end_of_sweep(box, room) == ["superseded"]
    assert room.stopped == []
    assert room.is_running("audio")
    assert room.records["audio"]["open_since"] == began_ms


def test_session_that_began_unseen_right_after_a_stop_is_stopped_within_two_sweeps(
    box: Sandbox, room: Room, sweep: Sweep
) -> None:
    first_ms = an_hour_ago()
    stopped_ms, second_ms = first_ms + 60_000, first_ms + 70_000

    def slices(time_ms: int) -> None:
        """Let several environments of the callback function hear of a slice each."""

        def call_back(user: int) -> int:
            data = {"RoomId": room.id, "TaskId": "audio", "UserId": f"user-{user}", "BusinessId": ""}
            return box.call_back(callback("SegmentRealTimeData", data, rfc3339(time_ms + user), app_id=APP_ID))

        with ThreadPoolExecutor(ENVIRONMENTS) as threads:
            assert set(threads.map(call_back, range(2 * ENVIRONMENTS))) == {200}
        wait_for(lambda: not box.undone(), "the slices to be served")

    room.start("audio", at_ms=first_ms)
    slices(first_ms + 1_000)
    assert room.end_of("ModerationViolation", TaskId="audio", EventTime=rfc3339(stopped_ms)) == ["stopped"]
    room.start("audio", at_ms=second_ms)
    slices(second_ms + 1_000)  # an environment that remembers a slice of the first session queues no other
    box.rtc.close_room(APP_ID, room.id)

    sweep(room)
    assert room.is_running("audio")
    sweep(room)
    assert end_of_sweep(box, room) == ["stopped"]
    assert not room.is_running("audio")
    assert room.stopped == ["audio", "audio"]
