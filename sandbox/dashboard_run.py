"""A minute and a half of everything that the dashboard tells of: what the functions measured in it, for the picture.

Rooms end all the time, some of them twice, late or unknown. Then the API is down, many rooms end at once, the API
refuses requests and the key, it is slow, and rooms end of which nobody tells.
"""

from __future__ import annotations

import json
import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

from sandbox.faults import INTERNAL_ERROR, QPS_OVER_LIMIT
from sandbox.metrics import metrics_in, statistic
from sandbox.stack import APP_ID, Sandbox, wait_for

SECONDS, STEP_SECONDS = 90, 3
SEED = 1
STORY = "the API is down from 20 to 30 s, many rooms end at 45 s, the key is refused at 60 s, the API is slow at 70 s"
LOG_GROUPS = ("StopSegmentLogGroup", "SweepRoomsLogGroup")
ROOMS_A_SECOND = 10
ROOMS_AT_ONCE, MANY_AT_SECOND = 250, 45
ORPHANS = 12
SWEEPS_AT = (36, 54, 72)

_Later = tuple[int, str]  # how many seconds later which message comes


def record(box: Sandbox, wanted: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Play it, and give the statistics that are wanted of the metrics, as (name, statistic)."""
    warm = box.send([_event("RoomEnded", "warm", TaskId="audio")])
    wait_for(lambda: any(line.get("message_id") in warm for line in box.log_lines()), "the first invocation")
    began_ms = time.time_ns() // 1_000_000
    _play(box)
    lines = [line for group in LOG_GROUPS for line in box.log_lines(group)]
    return {"seconds": SECONDS, "step_seconds": STEP_SECONDS, "series": series(lines, began_ms, wanted)}


def series(
    lines: Iterable[Mapping[str, Any]], began_ms: int, wanted: Iterable[tuple[str, str]]
) -> dict[str, dict[str, list[float | None]]]:
    """Give statistics of metrics by name and statistic: one value a step, none at all where the metric never came."""
    values: defaultdict[str, defaultdict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for line in lines:
        for metric, measured in metrics_in(line):
            values[metric.name][(line["_aws"]["Timestamp"] - began_ms) // (STEP_SECONDS * 1000)] += measured
    steps = range(SECONDS // STEP_SECONDS)
    found: defaultdict[str, dict[str, list[float | None]]] = defaultdict(dict)
    for name, stat in wanted:
        known = values[name]
        nothing = 0 if stat in ("Sum", "SampleCount") else None
        points = [round(statistic(known[step], stat), 1) if step in known else nothing for step in steps]
        found[name][stat] = points if any(step in known for step in steps) else []
    return {name: found[name] for name in sorted(found)}


def _play(box: Sandbox) -> None:
    orphans = [f"orphan-{number}" for number in range(ORPHANS)]
    bodies, happenings = _bodies(box, orphans), _happenings(box)
    began = time.monotonic()
    for second in range(SECONDS):
        time.sleep(max(0.0, began + second - time.monotonic()))
        if second in happenings:
            happenings[second]()
        box.send(bodies[second])
        if second in SWEEPS_AT:
            box.sweep(orphans)


def _bodies(box: Sandbox, orphans: Iterable[str]) -> dict[int, list[str]]:
    """Start the tasks, and write the messages by the second in which they are sent."""
    rng = random.Random(SEED)  # noqa: S311 # nosec B311 # the same are sent each time
    bodies: defaultdict[int, list[str]] = defaultdict(list)
    bodies[2] += [_orphan(box, room_id) for room_id in orphans]
    kinds, weights = zip(*_KINDS, strict=True)
    numbers = count(1)
    for second in range(SECONDS):
        stories = rng.choices(kinds, weights, k=rng.randint(1, 2 * ROOMS_A_SECOND))
        stories += [_ends] * (ROOMS_AT_ONCE if second == MANY_AT_SECOND else 0)
        for story in stories:
            for later, body in story(box, f"room-{next(numbers)}"):
                bodies[second + later].append(body)
    return bodies


def _happenings(box: Sandbox) -> dict[int, Callable[[], object]]:
    secrets = box.rtc.secrets

    def forget_key() -> None:
        box.rtc.secrets = {}

    def remember_key() -> None:
        box.rtc.secrets = secrets

    def answer_after(seconds: float) -> None:
        box.rtc.answer_after_seconds = seconds

    asks_for_a_room: Any = (APP_ID, "orphan-0", None)
    return {
        0: lambda: answer_after(0.05),
        20: lambda: box.rtc.fail(INTERNAL_ERROR),
        30: box.rtc.heal,
        SWEEPS_AT[0]: lambda: box.rtc.fail(INTERNAL_ERROR, next_requests=2, task=asks_for_a_room),
        MANY_AT_SECOND + 1: lambda: box.rtc.fail(QPS_OVER_LIMIT, next_requests=40),
        60: forget_key,
        63: remember_key,
        70: lambda: answer_after(0.6),
        80: lambda: answer_after(0.05),
    }


def _ends(box: Sandbox, room_id: str) -> Iterator[_Later]:
    box.rtc.start_task(APP_ID, room_id, "audio")
    yield 0, _event("RoomEnded", room_id, TaskId="audio")


def _is_told_of(box: Sandbox, room_id: str) -> Iterator[_Later]:
    box.rtc.start_task(APP_ID, room_id, "audio")
    yield 0, _event("SegmentStarted", room_id, TaskId="audio")
    yield 4, _event("RoomEnded", room_id)
    yield 12, _event("RoomEnded", room_id)  # nothing is open any more


def _ends_twice(box: Sandbox, room_id: str) -> Iterator[_Later]:
    for later, body in _ends(box, room_id):
        yield later, body
        yield later + 2, body


def _has_ended_by_itself(_: Sandbox, room_id: str) -> Iterator[_Later]:
    yield 0, _event("RoomEnded", room_id, TaskId="audio")


def _ended_an_hour_ago(box: Sandbox, room_id: str) -> Iterator[_Later]:
    box.rtc.start_task(APP_ID, room_id, "audio")
    ended = (datetime.now(UTC) - timedelta(hours=1)).isoformat(timespec="milliseconds")
    yield 0, _event("RoomEnded", room_id, TaskId="audio", EventTime=ended)


def _is_unknown(_: Sandbox, room_id: str) -> Iterator[_Later]:
    yield 0, _event("RoomEnded", room_id)


def _is_joined(_: Sandbox, room_id: str) -> Iterator[_Later]:
    data = json.dumps({"RoomId": room_id, "UserId": "user-1"})
    yield 0, json.dumps({"EventType": "UserJoinRoom", "EventData": data, "AppId": APP_ID})


def _is_misspelt(_: Sandbox, room_id: str) -> Iterator[_Later]:
    yield 0, _event("RoomEnd", room_id)


def _is_another_s(_: Sandbox, room_id: str) -> Iterator[_Later]:
    yield 0, _event("RoomEnded", room_id, TaskId="audio", AppId="no-such-app")


def _orphan(box: Sandbox, room_id: str) -> str:
    box.rtc.start_task(APP_ID, room_id, "audio")
    box.rtc.close_room(APP_ID, room_id)
    return _event("SegmentStarted", room_id, TaskId="audio")


_KINDS: tuple[tuple[Callable[[Sandbox, str], Iterator[_Later]], int], ...] = (
    (_ends, 60),
    (_is_told_of, 14),
    (_ends_twice, 8),
    (_has_ended_by_itself, 8),
    (_ended_an_hour_ago, 5),
    (_is_unknown, 3),
    (_is_joined, 4),
    (_is_misspelt, 2),
    (_is_another_s, 1),
)


def _event(event_type: str, room_id: str, **values: str) -> str:
    return json.dumps({"EventType": event_type, "AppId": APP_ID, "RoomId": room_id} | values)
