"""The RoomGone events that the sweeper puts on the event queue."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from segments.events import EventType, Room, Task
from segments.telemetry import logger
from segments.times import to_rfc3339

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

TASKS_A_MESSAGE = 100


def room_gone(room: Room, tasks: Sequence[Task], time_ms: int) -> str:
    """Write the body of a RoomGone event."""
    return json.dumps(
        {
            "EventType": EventType.ROOM_GONE.value,
            "EventTime": to_rfc3339(time_ms),
            "AppId": room.app_id,
            "RoomId": room.room_id,
            "TaskIds": [task.task_id for task in tasks],
        }
    )


def send_room_gone(sqs: SQSClient, queue_url: str, room: Room, tasks: Sequence[Task], time_ms: int) -> None:
    """Send RoomGone events for tasks of a room. If a call fails, a later sweep finds the tasks again."""
    for start in range(0, len(tasks), TASKS_A_MESSAGE):
        part = tasks[start : start + TASKS_A_MESSAGE]
        task_ids = [task.task_id for task in part]
        fields: dict[str, Any] = {"app_id": room.app_id, "room_id": room.room_id, "task_ids": task_ids}
        try:
            sent = sqs.send_message(
                QueueUrl=queue_url, MessageBody=room_gone(room, part, time_ms), MessageGroupId=room.app_id
            )
        except (ClientError, BotoCoreError) as error:
            logger.warning("the event queue did not accept a RoomGone", error=type(error).__name__, **fields)
            return
        logger.info("room gone", message_id=sent["MessageId"], event_time=time_ms, **fields)
