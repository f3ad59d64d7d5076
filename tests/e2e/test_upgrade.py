"""An upgrade in place from 0.1.0: nothing is lost, stopped wrongly or forgotten.

`earlier/0.1.0/` keeps that version's template as `sam build` wrote it, and what a run of it left in the table, on the
dead-letter queue and on the event queue. That is all that an upgrade meets: its functions are not kept. Under the old
template lie today's, and the stop function is paused there. SAM CLI then updates the stack to today's template, as an
operator would.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest

from sandbox.callbacks import callback
from sandbox.stack import BUILT_TEMPLATE, EVENT_BUS, STACK_NAME, Sandbox, deploy, sandbox, wait_for
from tests.e2e.observer import APP_ID, ROOM_ITEM, Observer, Room, now_ms, rfc3339
from tests.e2e.operator import run_tool

EARLIER = Path(__file__).parent / "earlier" / "0.1.0"
MINUTE_MS = 60_000
# What runs at the RTC API, with the minutes since when: as in the run of 0.1.0, but for what began unseen after it.
RUNNING = {
    ("restarted", "audio"): 10,
    ("open", "audio"): 20,
    ("open", "screen"): 20,
    ("joined", "audio"): 20,
    ("left-alone", "audio"): 20,
    ("seen", "audio"): 40,
    ("seen-again", "audio"): 40,
    ("seen-and-stopped", "audio"): 5,
    ("ended-first", "audio"): 5,
    ("given-up", "audio"): 40,
    ("called-back", "audio"): 40,
    ("brought", "audio"): 40,
    ("sent", "audio"): 40,
    ("sent-start", "audio"): 1,
}
STATEFUL = ("SegmentTable", "EventQueue", "DeadLetterQueue", "RtcCredentialsSecret", "UndeliveredEventQueue")


@dataclass(frozen=True)
class Upgrade:
    """A stack that was upgraded, and what it was before.

    Parameters
    ----------
    observer
        Of the stack as it is now.
    left
        What 0.1.0 left behind: items of the table, letters, messages.
    message_ids
        Of the messages that waited on the event queue meanwhile, in the same order.
    """

    observer: Observer
    left: dict[str, Any]
    message_ids: list[str]
    resources_before: dict[str, str]
    parameters_before: dict[str, str]
    outputs_before: dict[str, str]

    def room(self, room_id: str) -> Room:
        return Room(self.observer, room_id)


def left_behind() -> dict[str, Any]:
    """Read what 0.1.0 left, with all its times as if that were now."""
    text = (EARLIER / "left_behind.json").read_text()
    later_ms = now_ms() - json.loads(text)["now_ms"]
    text = re.sub(r"\b\d{13}\b", lambda found: str(int(found[0]) + later_ms), text)
    text = re.sub(r"\b\d{10}\b", lambda found: str(int(found[0]) + later_ms // 1000), text)
    text = re.sub(r"\b\d{4}-\d\d-\d\dT[\d:.]+Z", lambda found: rfc3339(unix_ms(found[0]) + later_ms), text)
    left: dict[str, Any] = json.loads(text)
    return left


def unix_ms(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)


def describe(box: Sandbox) -> tuple[dict[str, str], dict[str, str]]:
    """Return the stack's physical ids and its parameters."""
    client = box.client("cloudformation")
    resources = client.describe_stack_resources(StackName=STACK_NAME)["StackResources"]
    parameters = client.describe_stacks(StackName=STACK_NAME)["Stacks"][0]["Parameters"]
    return (
        {one["LogicalResourceId"]: one["PhysicalResourceId"] for one in resources},
        {one["ParameterKey"]: one["ParameterValue"] for one in parameters},
    )


def leave(box: Sandbox, left: dict[str, Any]) -> list[str]:
    """Let the stack hold what 0.1.0 left, and return the ids of the messages that wait."""
    for item in left["records"]:
        box.client("dynamodb").put_item(TableName=box.outputs["SegmentTableName"], Item=item)
    stops, told = [item for item in left["records"] if "stopped_at" in item], list[dict[str, Any]]()

    def are_told() -> bool:
        told.extend(box.outcome_events())
        return len(told) >= len(stops)

    wait_for(are_told, "the old stops to be told of, as they were before the upgrade")
    assert run_tool(box, "pause").returncode == 0
    sqs, message_ids = box.client("sqs"), []
    for output, kind in (("DeadLetterQueueUrl", "letters"), ("EventQueueUrl", "messages")):
        message_ids = [sqs.send_message(QueueUrl=box.outputs[output], **one)["MessageId"] for one in left[kind]]
    return message_ids


def policy_of(upgrade: Upgrade, logical_id: str) -> dict[str, Any]:
    answer = upgrade.observer.box.client("sqs").get_queue_attributes(
        QueueUrl=upgrade.observer.resource(logical_id), AttributeNames=["Policy"]
    )
    policy: dict[str, Any] = json.loads(answer.get("Attributes", {}).get("Policy", '{"Statement": []}'))
    return policy


@pytest.fixture(scope="module")
def upgrade(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upgrade]:
    """Deploy 0.1.0, let it hold what it left, and upgrade it."""
    template = tmp_path_factory.mktemp("0.1.0") / "template.yaml"
    built = re.sub(
        r"(?<=CodeUri: )\w+$", rf"{BUILT_TEMPLATE.parent}/\g<0>", (EARLIER / "template.yaml").read_text(), flags=re.M
    )
    template.write_text(built)
    with sandbox(app_ids={APP_ID}, template=template) as box:
        left = left_behind()
        for (room_id, task_id), minutes in RUNNING.items():
            box.rtc.start_task(APP_ID, room_id, task_id, start_time_ms=now_ms() - minutes * MINUTE_MS)
        message_ids = leave(box, left)
        resources, parameters = describe(box)
        outputs = deploy(box.aws, {"StaleAfterSeconds": "30"})
        observer = Observer(replace(box, outputs=outputs))
        assert box.undone() == len(message_ids)  # still paused
        assert run_tool(box, "resume").returncode == 0
        yield Upgrade(observer, left, message_ids, resources, parameters, dict(box.outputs))


def test_what_holds_something_is_not_replaced_and_parameters_are_kept(upgrade: Upgrade) -> None:
    resources, parameters = describe(upgrade.observer.box)
    for logical_id in STATEFUL:
        assert resources[logical_id] == upgrade.resources_before[logical_id], logical_id
    changed = {name for name, value in upgrade.parameters_before.items() if parameters[name] != value}
    assert changed == {"StaleAfterSeconds"}
    outputs = dict(upgrade.observer.box.outputs)
    assert outputs.pop("Version") not in ("", "0.1.0")
    assert {name for name in outputs if outputs[name] != upgrade.outputs_before[name]} == {"CallbackUrl"}


def test_the_old_rule_of_the_bus_is_let_in_until_it_is_replaced(upgrade: Upgrade) -> None:
    old_name = upgrade.resources_before["EventRule"].rpartition("|")[2]
    assert old_name != upgrade.observer.resource("EventRule").rpartition("|")[2]
    (admits,) = [one for one in policy_of(upgrade, "EventQueue")["Statement"] if one["Sid"] == "TakeBusEvents"]
    sources = admits["Condition"]["ArnEquals"]["aws:SourceArn"]
    assert any(fnmatchcase(f"{EVENT_BUS}/{old_name}", source.partition(":rule/")[2]) for source in sources)


@pytest.mark.parametrize("logical_id", ["EventQueue", "DeadLetterQueue", "UndeliveredEventQueue"])
def test_each_queue_has_its_policy(upgrade: Upgrade, logical_id: str) -> None:
    statements = policy_of(upgrade, logical_id)["Statement"]
    queue_name = upgrade.observer.resource(logical_id).rpartition("/")[2]
    assert {statement["Resource"].rpartition(":")[2] for statement in statements} == {queue_name}
    assert "RefuseUnencryptedTransport" in {statement["Sid"] for statement in statements}


def test_messages_that_waited_meanwhile_stop_their_tasks(upgrade: Upgrade) -> None:
    upgrade.observer.ends(upgrade.message_ids)
    for room_id in ("called-back", "brought", "sent"):
        assert not upgrade.room(room_id).is_running("audio"), room_id
        assert set(upgrade.room(room_id).stopped) == {"audio"}, room_id
    started = upgrade.room("sent-start")
    assert started.is_running("audio")
    assert started.records[ROOM_ITEM]["open_tasks"] == ["audio"]


def test_a_callback_and_a_bus_event_arrive_after_the_upgrade(upgrade: Upgrade) -> None:
    box, rooms = upgrade.observer.box, {way: upgrade.room(f"by-{way}") for way in ("callback", "bus")}
    for room in rooms.values():
        room.start("audio")
        assert room.end_of("SegmentStarted", TaskId="audio") == ["known"]
    assert box.call_back(callback("RoomDestroy", {"RoomId": "by-callback"}, rfc3339(now_ms()))) == 200
    detail = {"AppId": APP_ID, "RoomId": "by-bus", "EventTime": rfc3339(now_ms())}
    entry = {
        "EventBusName": EVENT_BUS,
        "Source": "com.example",
        "DetailType": "RoomEnded",
        "Detail": json.dumps(detail),
    }
    assert box.client("events").put_events(Entries=[entry])["FailedEntryCount"] == 0
    for room in rooms.values():
        assert room.outcomes(2) == ["known", "stopped"]


def test_a_stop_that_was_answered_is_not_made_again(upgrade: Upgrade) -> None:
    room = upgrade.room("answered")
    answered = room.records["audio"]["stop_event_time"]
    end = {"TaskId": "audio", "EventId": "evt-1", "BusinessId": "biz-1", "EventTime": rfc3339(answered)}
    assert room.end_of("RoomEnded", **end) == ["duplicate"]
    assert room.requests(action=None) == []


def test_a_late_stop_does_not_end_a_session_that_had_started_again(upgrade: Upgrade) -> None:
    room = upgrade.room("restarted")
    assert room.end_of("RoomEnded", TaskId="audio", EventTime=rfc3339(now_ms() - 30 * MINUTE_MS)) == ["superseded"]
    assert room.requests(action=None) == []
    assert room.end_of("RoomEnded") == ["stopped"]


def test_a_task_that_was_stopped_is_not_called_for_by_its_room_s_end(upgrade: Upgrade) -> None:
    room = upgrade.room("over")
    assert room.end_of("RoomEnded") == ["no_open_tasks"]
    assert room.requests(action=None) == []


@pytest.mark.parametrize(
    ("room_id", "tasks"),
    [
        ("open", ["audio", "screen"]),  # SegmentStarted told of them
        ("seen", ["audio"]),  # a slice did
        ("seen-and-stopped", ["audio"]),  # a slice did, and 0.1.0 wrote nothing of the slices after the stop
    ],
)
def test_a_room_s_end_stops_what_was_known_to_run(upgrade: Upgrade, room_id: str, tasks: list[str]) -> None:
    room = upgrade.room(room_id)
    assert room.end_of("RoomEnded") == ["stopped"] * len(tasks)
    assert room.stopped == tasks
    told = [event for event in room.outcome_events(len(tasks)) if event["detail-type"] == "SegmentStopped"]
    assert sorted(event["detail"]["TaskId"] for event in told) == tasks


def test_a_start_that_comes_late_meets_the_room_s_end(upgrade: Upgrade) -> None:
    room = upgrade.room("ended-first")
    began = rfc3339(room.records[ROOM_ITEM]["stop_event_time"] - 1_000)
    assert room.end_of("SegmentStarted", TaskId="audio", EventTime=began) == ["stopped"]


def test_a_room_s_end_stops_old_and_new_tasks_together(upgrade: Upgrade) -> None:
    room = upgrade.room("joined")
    room.start("screen")
    assert room.end_of("SegmentStarted", TaskId="screen") == ["known"]
    assert room.end_of("RoomEnded") == ["stopped", "stopped"]
    assert room.stopped == ["audio", "screen"]


def test_a_task_that_is_heard_of_again_is_looked_after_by_the_sweeper(upgrade: Upgrade) -> None:
    room = upgrade.room("seen-again")
    assert room.end_of("SegmentRealTimeData", TaskId="audio") == ["known"]
    assert room.records[ROOM_ITEM]["watch"] == "1"
    listed = json.loads(run_tool(upgrade.observer.box, "open", "--output", "json").stdout)
    assert "seen-again" in {task["room_id"] for task in listed["tasks"]}
    assert "expires_at" not in room.records["audio"]


def test_letters_are_listed_and_do_what_they_say_when_they_are_redriven(upgrade: Upgrade) -> None:
    box, room, later = upgrade.observer.box, upgrade.room("given-up"), upgrade.room("given-up-and-restarted")
    later.start("audio")
    listed = json.loads(run_tool(box, "letters", "list", "--output", "json").stdout)
    counts = {(one["ErrorKind"], one["ErrorCode"]): one["count"] for one in listed["groups"]}
    assert counts == {
        ("exhausted", "InternalError"): 2,
        ("rejected", "InvalidParameter.NotExistAppId"): 1,
        ("invalid_message", "NotJson"): 1,
    }
    assert run_tool(box, "letters", "redrive", "--kind", "exhausted", "--yes").returncode == 0
    assert (room.outcomes(1), later.outcomes(1)) == (["stopped"], ["superseded"])
    assert later.is_running("audio")


def test_what_nobody_spoke_of_is_as_it_was(upgrade: Upgrade) -> None:
    kept = {(item["room"]["S"], item["task_id"]["S"]) for item in upgrade.left["records"]}
    assert kept <= upgrade.observer.box.records().keys()
    room = upgrade.room("left-alone")
    assert room.is_running("audio")
    assert room.requests(action=None) == []
    (item,) = (item for item in upgrade.left["records"] if item["room"]["S"] == f"{APP_ID}#left-alone")
    assert room.records["audio"] == {
        name: int(value) if kind == "N" else value for name, typed in item.items() for kind, value in typed.items()
    }
