"""What an environment of the sweeper makes once."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from segments.clients import make_clients
from segments.events import EventType, Room, Task
from segments.pace import Turns
from segments.telemetry import logger
from segments.times import now_ms, to_rfc3339
from sweep_rooms.settings import SweepSettings, read_settings
from sweep_rooms.sweeper import QUESTIONS_PER_SECOND, SendRoomGone, Sweeper

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

TASKS_A_MESSAGE = 100


@dataclass(frozen=True)
class SweepWiring:
    """What a sweep uses of its environment."""

    settings: SweepSettings
    sweeper: Sweeper
    turns: Turns
    loop: asyncio.Runner


def make_wiring(environment: Mapping[str, str]) -> SweepWiring:
    """Make it. `SettingsError`: a setting is missing or makes no sense."""
    settings = read_settings(environment)
    clients = make_clients(settings)
    turns = Turns(QUESTIONS_PER_SECOND, time.monotonic)
    send = _to_queue(clients.sqs, settings.event_queue_url)
    sweeper = Sweeper(settings, clients.table, clients.api, clients.calls(turns), clients.in_thread, send, now_ms)
    return SweepWiring(settings, sweeper, turns, asyncio.Runner())


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


def _to_queue(sqs: SQSClient, queue_url: str) -> SendRoomGone:
    def send(room: Room, tasks: Sequence[Task], time_ms: int) -> None:
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

    return send
