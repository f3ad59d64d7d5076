"""Outcome events: a SegmentStopped event for every stop, on the outcome bus."""

import json
from collections.abc import Callable
from typing import Any

from sandbox.stack import ROOT, Sandbox, wait_for
from tests.e2e.observer import APP_ID, Observer, Room, now_ms, rfc3339


def test_stop_arrives_with_all_that_is_known_of_it(room: Room) -> None:
    room.start("audio")
    event_time = rfc3339(now_ms() - 2_000)
    values = {"TaskId": "audio", "BusinessId": "biz-1", "EventId": "evt-1", "EventTime": event_time}
    assert room.end_of("RoomEnded", **values) == ["stopped"]

    (event,) = room.outcome_events(1)

    assert (event["source"], event["detail-type"]) == ("rtc-segment-stopper", "SegmentStopped")
    assert event["detail"] == {
        "AppId": APP_ID,
        "RoomId": room.id,
        "TaskId": "audio",
        "BusinessId": "biz-1",
        "Outcome": "stopped",
        "RequestId": room.requests()[0].request_id,
        "EventType": "RoomEnded",
        "EventId": "evt-1",
        "EventTime": event_time,
        "StoppedAt": rfc3339(room.records["audio"]["stopped_at"]),
    }


def test_what_is_not_known_of_a_stop_is_left_out(room: Room) -> None:
    assert room.end_of("ModerationViolation", TaskId="audio") == ["already_stopped"]
    (event,) = room.outcome_events(1)
    assert event["detail"]["Outcome"] == "already_stopped"
    assert not event["detail"].keys() & {"BusinessId", "EventId"}


def test_every_task_of_a_room_has_an_event_and_starts_and_sightings_have_none(room: Room) -> None:
    room.start("audio", "screen")
    assert room.end_of("SegmentStarted", TaskId="audio", BusinessId="biz-1") == ["known"]
    assert room.end_of("SegmentRealTimeData", TaskId="screen") == ["known"]
    assert room.end_of("RoomEnded") == ["stopped", "stopped"]
    assert room.end_of("SegmentStarted", TaskId="late", EventTime=rfc3339(now_ms() - 60_000)) == ["already_stopped"]

    # The stream is in order: with the last stop's event, all that came before it has come.
    wait_for(lambda: any(e["detail"]["TaskId"] == "late" for e in room.outcome_events(3)), "the last stop's event")

    told = [(event["detail"]["TaskId"], event["detail"]["Outcome"]) for event in room.outcome_events(3)]
    assert sorted(told) == [("audio", "stopped"), ("late", "already_stopped"), ("screen", "stopped")]


def test_duplicate_has_no_event_of_its_own(room: Room) -> None:
    room.start("audio")
    event_time = rfc3339(now_ms() - 2_000)
    assert room.end_of("RoomEnded", TaskId="audio", EventTime=event_time) == ["stopped"]
    assert room.end_of("RoomEnded", TaskId="audio", EventTime=event_time) == ["duplicate"]
    assert room.end_of("RoomEnded", TaskId="screen") == ["already_stopped"]
    wait_for(lambda: any(e["detail"]["TaskId"] == "screen" for e in room.outcome_events(2)), "the last stop's event")
    assert len(room.outcome_events(2)) == 2


NEVER_SET = {
    "zero": "0001-01-01T00:00:00Z",
    "zero, in the east": "0001-01-01T00:00:00+08:00",
    "1970": "1970-01-01T00:00:00Z",
}


def test_impossible_times_a_huge_message_and_a_foreign_record_hinder_no_stop_and_no_event(
    box: Sandbox, observer: Observer, new_room: Callable[[], Room]
) -> None:
    good, bad, vast, foreign = [new_room(), new_room(), new_room()], new_room(), new_room(), new_room()
    tasks = [f"task-{number}" for number in range(100)]
    for room in (*good, bad):
        room.start("audio")
    vast.start(*tasks)
    bodies = {
        "vast": vast.event("RoomEnded", TaskIds=tasks),
        **{name: bad.event("RoomEnded", TaskId="audio", EventTime=time) for name, time in NEVER_SET.items()},
        "huge": bad.event("RoomEnded", TaskIds=["audio"] * 50_000),
        **{f"good {number}": room.event("RoomEnded", TaskId="audio") for number, room in enumerate(good)},
    }
    box.client("dynamodb").put_item(
        TableName=box.outputs["SegmentTableName"],
        Item={
            "room": {"S": f"{APP_ID}#{foreign.id}"},
            "task_id": {"S": "audio"},
            "stop_event_time": {"N": "-62135625600000"},
            "stopped_at": {"N": "5"},
            "event_type": {"S": "Nonsense"},
            "expires_at": {"N": "1"},
        },
    )
    message_ids = dict(zip(bodies, box.send(list(bodies.values())), strict=True))

    ends = observer.ends(message_ids.values())

    assert {name: {*ends[message_id]} for name, message_id in message_ids.items()} == {
        name: {"invalid_message"} if name in (*NEVER_SET, "huge") else {"stopped"} for name in bodies
    }
    assert [observer.receives(message_id) for message_id in message_ids.values()] == [1] * len(bodies)
    assert vast.stopped == sorted(tasks)
    # No small message waits for the large one: its hundred requests take more than a second.
    (first, *_, last) = sorted(request.received_at for request in vast.requests())
    assert all(request.received_at < (first + last) / 2 for room in good for request in room.requests())
    assert bad.is_running("audio")
    assert foreign.end_of("RoomEnded", TaskId="audio") == ["already_stopped"]
    assert [event["detail"]["TaskId"] for room in good for event in room.outcome_events(1)] == ["audio"] * 3
    assert len(vast.outcome_events(100)) == 100
    wait_for(lambda: "outcome events passed over" in observer.all_logs(), "the foreign record to be passed over")
    letters = [letter for letter in observer.letters().values() if letter.body in bodies.values()]
    assert sorted(letter.body for letter in letters) == sorted(bodies[name] for name in (*NEVER_SET, "huge"))
    assert {letter.attributes["ErrorKind"] for letter in letters} == {"invalid_message"}


def changes_of(box: Sandbox, room: Room) -> list[dict[str, Any]]:
    """Read the changes of a room's records from the table's stream, as the stream gives them to a function."""
    streams = box.client("dynamodbstreams")
    (stream,) = streams.list_streams(TableName=box.outputs["SegmentTableName"])["Streams"]
    description = streams.describe_stream(StreamArn=stream["StreamArn"])["StreamDescription"]
    changes: list[dict[str, Any]] = []
    for shard in description["Shards"]:
        iterator = streams.get_shard_iterator(
            StreamArn=stream["StreamArn"], ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON"
        )["ShardIterator"]
        while iterator:
            answer = streams.get_records(ShardIterator=iterator)
            changes += answer["Records"]
            iterator = answer["Records"] and answer.get("NextShardIterator")
    keys = {"room": {"S": f"{APP_ID}#{room.id}"}, "task_id": {"S": "audio"}}
    return [change for change in changes if change["dynamodb"]["Keys"] == keys]


def test_stop_that_the_bus_does_not_take_is_asked_for_again_and_arrives_in_the_end(
    box: Sandbox, observer: Observer, room: Room
) -> None:
    """The embedded AWS does not redeliver the records that a stream's function reports as failed, so the test does."""
    room.start("audio")

    def deliver(changes: list[dict[str, Any]]) -> list[str]:
        answer = box.invoke("PublishOutcomeFunction", {"Records": changes})
        return [failure["itemIdentifier"] for failure in answer["batchItemFailures"]]

    with observer.without_permission("PublishOutcomeRole", "Publish"):
        assert room.end_of("SegmentStarted", TaskId="audio") == ["known"]
        assert room.end_of("RoomEnded", TaskId="audio") == ["stopped"]
        start, stop = [
            change for change in changes_of(box, room) if change["dynamodb"]["Keys"]["task_id"]["S"] == "audio"
        ]
        wait_for(lambda: "outcome events not published" in observer.all_logs(), "the function to try it")
        assert deliver([start, stop]) == [stop["dynamodb"]["SequenceNumber"]]

    assert deliver([stop]) == []
    (event,) = room.outcome_events(1)
    assert event["detail"]["TaskId"] == "audio"


DETAIL = json.loads((ROOT / "contracts" / "samples" / "segment-stop-failed.json").read_text())["detail"]


def told_of(observer: Observer, message_id: str) -> list[dict[str, Any]]:
    """Return the SegmentStopFailed events so far of a message."""
    return [one for one in observer.outcome_events() if one["detail"].get("SourceMessageId") == message_id]


def test_dead_letter_is_told_after_it_lies_on_its_queue(box: Sandbox, observer: Observer, room: Room) -> None:
    values = {"TaskId": "audio", "EventId": "evt-1", "BusinessId": "biz-1", "EventTime": rfc3339(now_ms() - 2_000)}
    body = json.dumps({**json.loads(room.event("RoomEnded", **values)), "AppId": "nobody"})
    (message_id,) = box.send([body])
    assert observer.ends([message_id]) == {message_id: ["rejected"]}
    letter = observer.letter(message_id)
    (event,) = wait_for(lambda: told_of(observer, message_id), "the event of a dead letter")
    detail = event["detail"]
    assert event["detail-type"] == "SegmentStopFailed"
    assert {name: detail[name] for name in ("AppId", "RoomId", "TaskIds", "BusinessId", "EventType", "EventId")} == {
        "AppId": "nobody",
        "RoomId": room.id,
        "TaskIds": ["audio"],
        "BusinessId": "biz-1",
        "EventType": "RoomEnded",
        "EventId": "evt-1",
    }
    for name in ("ErrorKind", "ErrorCode", "ErrorMessage", "RequestId"):
        assert detail[name] == letter.attributes[name]
    assert detail["EventTime"] == values["EventTime"]
    assert detail["FailedAt"] == rfc3339(int(letter.attributes["FailedAt"]))


def test_message_that_cannot_be_read_is_told_without_ids(box: Sandbox, observer: Observer) -> None:
    (message_id,) = box.send(["not JSON"])
    (event,) = wait_for(lambda: told_of(observer, message_id), "the event of a dead letter")
    assert event["detail"]["ErrorCode"] == "NotJson"
    assert not event["detail"].keys() & {"AppId", "RoomId", "TaskIds", "EventType"}


def test_dead_letter_that_the_bus_does_not_take_is_told_once_it_does(box: Sandbox, observer: Observer) -> None:
    """Its message appears again after six minutes, which this test does not wait for."""
    sqs, queue = box.client("sqs"), observer.resource("FailedStopQueue")
    with observer.without_permission("PublishOutcomeRole", "Publish"):
        (message_id,) = box.send(["not JSON"])
        observer.letter(message_id)
        wait_for(lambda: hidden_on(sqs, queue), "the function to have tried")
    assert told_of(observer, message_id) == []
    record = {"messageId": "1", "body": json.dumps(DETAIL | {"SourceMessageId": message_id}), "eventSource": "aws:sqs"}
    assert box.invoke("PublishOutcomeFunction", {"Records": [record]}) == {"batchItemFailures": []}
    assert wait_for(lambda: told_of(observer, message_id), "the event of a dead letter")
    sqs.purge_queue(QueueUrl=queue)


def hidden_on(sqs: Any, queue: str) -> int:
    name = "ApproximateNumberOfMessagesNotVisible"
    return int(sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=[name])["Attributes"][name])


def test_dead_letter_is_sent_though_nobody_can_be_told(box: Sandbox, observer: Observer) -> None:
    with observer.without_permission("StopSegmentRole", "TellOfFailures"):
        (message_id,) = box.send(["not JSON"])
        assert observer.ends([message_id]) == {message_id: ["invalid_message"]}
        assert observer.letter(message_id).body == "not JSON"
        wait_for(
            lambda: [line for line in observer.lines(message_id) if line["message"] == "failed stop not published"],
            "its line",
        )
    assert told_of(observer, message_id) == []
