"""The events that are published for stops and for failed stops."""

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from publish_outcome.outcomes import Unpublishable, bytes_of, segment_stop_failed, segment_stopped
from tests.contracts import breaks, schema

TASK: dict[str, Any] = {"room": "661e#room-1", "task_id": "audio", "expires_at": Decimal(1_795_932_730)}
SEEN = TASK | {"seen_at": Decimal(1_795_327_910_000)}
STARTED = TASK | {"started_at": Decimal(1_795_327_900_000)}
STOPPED = TASK | {
    "stop_event_time": Decimal(1_795_327_920_123),
    "stopped_at": Decimal(1_795_327_921_456),
    "outcome": "stopped",
    "request_id": "20261122REQUEST",
    "event_type": "RoomEnded",
    "event_id": "evt-1",
    "business_id": "biz-1",
}
ROOM_ENDED = TASK | {
    "task_id": "#room",
    "stop_event_time": Decimal(1_795_327_920_123),
    "event_type": "RoomEnded",
    "event_id": "evt-1",
}
LATER: dict[str, Any] = {
    "stop_event_time": Decimal(1_795_327_990_000),
    "stopped_at": Decimal(1_795_327_991_000),
    "request_id": "20261122ANOTHER",
}


def image(item: dict[str, Any]) -> dict[str, Any]:
    """Return an item as a stream does: texts and numbers by type. A value that has a type already stays as it is."""
    types = {str: "S", Decimal: "N"}
    return {name: {types[type(value)]: str(value)} if type(value) in types else value for name, value in item.items()}


def entry_of(old: dict[str, Any], new: dict[str, Any]) -> Any:
    return segment_stopped(image(old), image(new), "outcomes")


def test_a_stop_is_published_with_all_its_fields() -> None:
    entry = entry_of({}, STOPPED)
    assert entry is not None
    published = json.loads(entry.pop("Detail"))
    assert entry == {
        "Source": "rtc-segment-stopper",
        "DetailType": "SegmentStopped",
        "Time": datetime(2026, 11, 22, 6, 12, 1, 456_000, tzinfo=UTC),
        "EventBusName": "outcomes",
    }
    assert published == {
        "AppId": "661e",
        "RoomId": "room-1",
        "TaskId": "audio",
        "BusinessId": "biz-1",
        "Outcome": "stopped",
        "RequestId": "20261122REQUEST",
        "EventType": "RoomEnded",
        "EventId": "evt-1",
        "EventTime": "2026-11-22T06:12:00.123Z",
        "StoppedAt": "2026-11-22T06:12:01.456Z",
    }


@pytest.mark.parametrize(
    ("attribute", "name"), [("request_id", "RequestId"), ("event_id", "EventId"), ("business_id", "BusinessId")]
)
def test_a_field_without_a_value_is_left_out(attribute: str, name: str) -> None:
    entry = entry_of({}, {key: value for key, value in STOPPED.items() if key != attribute})
    assert name not in json.loads(entry["Detail"])


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param({}, STOPPED, id="an unknown task"),
        pytest.param(STARTED, STARTED | STOPPED, id="a task that had started"),
        pytest.param(STOPPED, STOPPED | LATER, id="a task that was stopped before"),
        pytest.param(STOPPED, STOPPED | LATER | {"request_id": STOPPED["request_id"]}, id="the same request"),
        pytest.param(STOPPED, STOPPED | {"stopped_at": LATER["stopped_at"]}, id="the same event again"),
    ],
)
def test_every_stop_is_published(old: dict[str, Any], new: dict[str, Any]) -> None:
    assert entry_of(old, new) is not None


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param({}, STARTED, id="a start"),
        pytest.param({}, STOPPED | {"event_type": "Heartbeat"}, id="a heartbeat"),
        pytest.param({}, SEEN, id="a sighting"),
        pytest.param(STOPPED, STOPPED | STARTED, id="a start after a stop"),
        pytest.param(STOPPED, STOPPED | {"expires_at": Decimal(1_799_999_999)}, id="a later expiry"),
        pytest.param({}, ROOM_ENDED, id="a room's end"),
        pytest.param(STOPPED, {}, id="an expiry"),
        pytest.param({}, {}, id="nothing"),
    ],
)
def test_no_other_change_is_published(old: dict[str, Any], new: dict[str, Any]) -> None:
    assert entry_of(old, new) is None


def test_a_failed_stop_is_published_with_its_notice_unchanged() -> None:
    written = json.dumps({"AppId": "661e", "FailedAt": "2026-11-22T06:12:01.456Z"})
    assert segment_stop_failed(written, "outcomes") == {
        "Source": "rtc-segment-stopper",
        "DetailType": "SegmentStopFailed",
        "Time": datetime(2026, 11, 22, 6, 12, 1, 456_000, tzinfo=UTC),
        "EventBusName": "outcomes",
        "Detail": written,
    }


TYPES: list[dict[str, Any]] = [
    {"S": ""},
    {"S": "x"},
    {"N": "1795327920"},
    {"N": "-62135625600000"},
    {"N": "1.5"},
    {"N": "9.9999999999999999999999999999999999999E+125"},
    {"B": "AAE="},
    {"BOOL": True},
    {"M": {"k": {"N": "1"}}},
    {},
]


@pytest.mark.parametrize("value", TYPES, ids=str)
@pytest.mark.parametrize("attribute", [*STOPPED, "foreign"])
def test_the_event_of_any_item_keeps_the_contract_or_is_refused(attribute: str, value: dict[str, Any]) -> None:
    try:
        entry = entry_of(TASK, STOPPED | {attribute: value})
    except Unpublishable as error:
        problem = str(error)
    else:
        event = {"detail": json.loads(entry["Detail"])}
        event["detail"]["Outcome"] = "stopped"  # the only enumeration
        problem = str(breaks(event, schema("segment-stopped") | {"required": ["detail"]}))
    assert problem == "[]" or problem.startswith(f"the attribute {attribute} must be ")


def test_a_missing_attribute_is_named() -> None:
    for attribute in ("room", "task_id", "stop_event_time", "outcome", "event_type"):
        with pytest.raises(Unpublishable, match=f"^the attribute {attribute} must be "):
            entry_of({}, {name: value for name, value in STOPPED.items() if name != attribute})


@pytest.mark.parametrize(
    "text",
    ["", "nonsense", "[]", "5", "null", "{}", '{"FailedAt": 5}', '{"FailedAt": "0001-01-01T00:00:00Z"}', "[" * 100_000],
)
def test_a_text_that_is_no_notice_is_refused(text: str) -> None:
    with pytest.raises(Unpublishable, match="the notice of a dead letter must be a JSON object with a time FailedAt"):
        segment_stop_failed(text, "outcomes")


def test_an_event_may_have_as_many_bytes_as_eventbridge_accepts() -> None:
    """EventBridge counts UTF-8: each of these characters has 3 bytes."""
    text = json.dumps({"FailedAt": "2026-11-22T06:12:01.456Z", "x": "\u4e2d" * 87_000}, ensure_ascii=False)
    filled = text + " " * (262_144 - 14 - len("rtc-segment-stopper" + "SegmentStopFailed") - len(text.encode()))
    assert bytes_of(segment_stop_failed(filled, "outcomes")) == 262_144
    with pytest.raises(Unpublishable, match="the outcome event must have at most 262144 bytes"):
        segment_stop_failed(filled + " ", "outcomes")
