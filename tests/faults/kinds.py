"""The kinds of faults. Each happens in the sandbox while messages are on their way, and counts its effects."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from random import Random
from typing import Any

from sandbox.faults import INTERNAL_ERROR, QPS_OVER_LIMIT, RAW_BODIES, SERVICE_UNAVAILABLE, Fault
from sandbox.stack import Sandbox, wait_for
from tests.e2e.observer import APP_ID, Observer
from tests.faults.aws_faults import AwsFaults
from tests.faults.stories import Task
from tests.faults.workers import Killer

Line = Mapping[str, Any]
Count = Callable[[Sequence[Line]], int]
"""Returns the number of faults that happened, given the function's log lines."""


@dataclass(frozen=True)
class Scene:
    """The sandbox in which a fault happens, and the tasks and rooms that it may affect."""

    box: Sandbox
    observer: Observer
    proxy: AwsFaults
    rng: Random
    tasks: Sequence[Task]
    gone_rooms: Sequence[str]


Happen = Callable[[Scene], AbstractContextManager[Count]]


@dataclass(frozen=True)
class Kind:
    """A kind of fault.

    Parameters
    ----------
    happen
        Begins the fault; several kinds may happen at the same time.
    happen_to_sweeps
        Begins a fault of the sweeper.
    seconds
        The maximum duration of the fault after the last message was sent.
    redelivers
        Whether a message may be served without being deleted. It is then served again, or the event queue's own redrive
        moves it to the dead-letter queue.
    """

    name: str
    happen: Happen | None = None
    happen_to_sweeps: Happen | None = None
    seconds: float = 0.0
    redelivers: bool = False


def _api(*faults: Fault, share: float = 0.3, most: int = 3, for_ever: int = 3) -> Happen:
    """Let requests about some tasks fail: always for `for_ever` tasks, at most `most` times for all other tasks."""

    @contextlib.contextmanager
    def happen(scene: Scene) -> Iterator[Count]:
        affected = scene.rng.sample(scene.tasks, max(1, round(share * len(scene.tasks))))
        planned: dict[Task, int] = {}
        for number, task in enumerate(affected):
            times = None if number < for_ever and len(affected) > 2 * for_ever else scene.rng.randint(1, most)
            scene.box.rtc.fail(scene.rng.choice(faults), next_requests=times, task=(APP_ID, *task))
            planned[task] = times or 1_000_000

        def count(_: Sequence[Line]) -> int:
            asked = [(request.task[1], request.task[2]) for request in scene.box.rtc.requests]
            return sum(min(times, asked.count(task)) for task, times in planned.items())

        yield count

    return happen


def _table(*rules: dict[str, Any]) -> Happen:
    """Let calls of DynamoDB fail."""

    @contextlib.contextmanager
    def happen(scene: Scene) -> Iterator[Count]:
        with scene.proxy.rules(*({"service": "dynamodb", **rule} for rule in rules)) as planned:
            yield lambda _: sum(rule.fired_count for rule in planned)

    return happen


def _without_permission(sid: str, is_sign: Callable[[Line], bool]) -> Happen:
    """Remove a statement from the function's role."""

    @contextlib.contextmanager
    def happen(scene: Scene) -> Iterator[Count]:
        with scene.observer.without_permission("StopSegmentRole", sid):
            yield lambda lines: sum(map(is_sign, lines))

    return happen


def _killed(function: str) -> Happen:
    """Kill the processes of a function at random times."""

    @contextlib.contextmanager
    def happen(scene: Scene) -> Iterator[Count]:
        killer = Killer(scene.box.aws, scene.observer.resource(function), scene.rng)
        with visibility(scene.box, 15), killer.at_work():
            yield lambda _: killer.kills

    return happen


@contextlib.contextmanager
def _odd_answers_about_rooms(scene: Scene) -> Iterator[Count]:
    rooms = sorted({*scene.gone_rooms, *(room_id for room_id, _ in scene.tasks[:20])})
    planned = {room_id: scene.rng.randint(1, 3) for room_id in rooms}
    for room_id, times in planned.items():
        for _ in range(times):
            fault = scene.rng.choice(_ODD)
            scene.box.rtc.fail(fault, next_requests=1, task=(APP_ID, room_id, None))  # type: ignore[arg-type]

    def count(_: Sequence[Line]) -> int:
        asked = [request.task[1] for request in scene.box.rtc.requests if request.action == "GetRoomOnlineUsers"]
        return sum(min(times, asked.count(room_id)) for room_id, times in planned.items())

    yield count


@contextlib.contextmanager
def _foreign_app(scene: Scene) -> Iterator[Count]:
    # The sweeper goes in the order of names, so these rooms come before those of the stories. They stay in the table.
    started = {"EventType": "SegmentStarted", "AppId": FOREIGN_APP_ID, "TaskId": "audio"}
    scene.box.send([json.dumps({**started, "RoomId": f"room-{number}"}) for number in range(FOREIGN_ROOMS)])
    wait_for(lambda: not scene.box.undone(), "the foreign app's starts to be served")
    yield lambda _: sum(request.task[0] == FOREIGN_APP_ID for request in scene.box.rtc.requests)


@contextlib.contextmanager
def _delivered_again(scene: Scene) -> Iterator[Count]:
    # The queue delivers some batches again while they are still being served.
    slow = Fault("delay", delay_seconds=3)
    for task in scene.rng.sample(scene.tasks, min(10, len(scene.tasks))):
        scene.box.rtc.fail(slow, next_requests=1, task=(APP_ID, *task))
    with visibility(scene.box, 2):
        yield lambda lines: sum(line.get("receive_count", 1) > 1 for line in lines)


@contextlib.contextmanager
def visibility(box: Sandbox, seconds: int) -> Iterator[None]:
    """Set the visibility time-out of the event queue."""
    sqs, url = box.client("sqs"), box.outputs["EventQueueUrl"]
    name = "VisibilityTimeout"
    usual = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=[name])["Attributes"][name]
    sqs.set_queue_attributes(QueueUrl=url, Attributes={name: str(seconds)})
    try:
        yield
    finally:
        sqs.set_queue_attributes(QueueUrl=url, Attributes={name: usual})


_ODD = [*map(Fault, (*RAW_BODIES, "drop")), INTERNAL_ERROR, SERVICE_UNAVAILABLE, QPS_OVER_LIMIT]

# AWS refuses a write to the table if an index that it changes is throttled: these are the writes of `watch`.
_INDEX_THROTTLED = _table(
    *(
        {"operation": operation, "body": touches, "error": {"code": "ThrottlingException"}, "probability": 0.6}
        for operation, touches in (
            ("UpdateItem", "contains(UpdateExpression, '#watch')"),
            ("Query", "IndexName == 'WatchedTasks'"),
        )
    )
)

FOREIGN_APP_ID, FOREIGN_ROOMS = "0-foreign", 300

KINDS = (
    Kind("worker killed", _killed("StopSegmentFunction"), seconds=20, redelivers=True),
    Kind("API: 429", _api(QPS_OVER_LIMIT, share=0.05, most=2)),
    Kind("API: failing", _api(*_ODD, Fault("drop_after"))),
    Kind("API: late", _api(Fault("delay", delay_seconds=6), share=0.03, most=1, for_ever=0)),
    Kind(
        "table: failing",
        _table(
            {"error": {"code": "ProvisionedThroughputExceededException"}, "probability": 0.3},
            {"error": {"code": "InternalServerError"}, "probability": 0.3},
            {"reset": True, "probability": 0.3},
        ),
        seconds=20,
    ),
    Kind(
        "table: slow",
        _table({"latency": 6000, "probability": 0.01}, {"latency": {"min": 50, "max": 1000}, "probability": 0.5}),
        seconds=20,
    ),
    Kind("queue: again", _delivered_again, seconds=10, redelivers=True),
    Kind(
        "dead letters refused",
        _without_permission("KeepFailures", lambda line: line.get("message") == "dead letter not sent"),
        seconds=8,
    ),
    Kind(
        "secret unavailable",
        _without_permission("ReadTheRtcKey", lambda line: line.get("error_code") == "SecretUnavailable"),
        seconds=8,
    ),
    Kind("sweeper killed", happen_to_sweeps=_killed("SweepRoomsFunction")),
    Kind("rooms: odd answers", happen_to_sweeps=_odd_answers_about_rooms),
    Kind("rooms: a foreign app", happen_to_sweeps=_foreign_app),
    Kind("index: throttled", _INDEX_THROTTLED, _INDEX_THROTTLED, seconds=20),
)
