"""The platforms other than the default: each has its own signing region and version."""

import json

import pytest

from sandbox.stack import sandbox, wait_for

pytestmark = pytest.mark.long


@pytest.mark.parametrize(
    ("platform", "version"), [("volcengine-ap-singapore", "2020-12-01"), ("byteplus", "2022-06-01")]
)
def test_a_task_is_stopped_on_every_platform(platform: str, version: str) -> None:
    event = {"EventType": "RoomEnded", "AppId": "661e", "RoomId": "room-1", "TaskId": "audio"}
    with sandbox({"RtcPlatform": platform}, platform=platform) as box:
        box.rtc.start_task("661e", "room-1", "audio")
        box.send([json.dumps(event)])
        records = wait_for(box.records, "the record")
        assert records["661e#room-1", "audio"]["outcome"] == "stopped"
        assert [request.version for request in box.rtc.requests] == [version]
