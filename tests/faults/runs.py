"""A run sends messages about many rooms while faults happen, and then checks the promises."""

from __future__ import annotations

import contextlib
import itertools
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from random import Random

from sandbox.stack import Sandbox, sandbox
from tests.e2e.observer import APP_ID, Letter, Observer, now_ms
from tests.faults.aws_faults import AwsFaults, aws_faults
from tests.faults.kinds import Count, Happen, Kind, Scene, visibility
from tests.faults.promises import Evidence, judge
from tests.faults.stories import Message, running_tasks, write_stories
from tests.faults.workers import kill_workers

QUEUE_DEADLINE_SECONDS = 240
LOG_DEADLINE_SECONDS = 30
SWEEPS, SWEEPS_WITH_FAULTS = 2, 4
LIVING_ROOMS = 20
# A little more than the function's time-out: the embedded AWS sometimes loses a batch, which then returns.
VISIBILITY_SECONDS = 70


@dataclass(frozen=True)
class Run:
    """A finished run.

    Parameters
    ----------
    faults
        How often each kind of fault happened.
    broken
        A sentence for each broken promise.
    """

    name: str
    evidence: Evidence
    faults: Sequence[int]
    seconds: float
    broken: Sequence[str]


class Stage:
    """A sandbox for runs, whose functions call AWS through the proxy."""

    def __init__(self, box: Sandbox, proxy: AwsFaults) -> None:
        self._box = box
        self._proxy = proxy
        self._observer = Observer(box)
        self._numbers = itertools.count(1)
        for function in ("StopSegmentFunction", "SweepRoomsFunction"):
            self._observer.renew_function(function, AWS_ENDPOINT_URL=proxy.url)

    def run(self, kinds: Sequence[Kind], events: int, seed: int) -> Run:
        """Send messages while faults of these kinds happen, and check the promises."""
        name = ", ".join(kind.name for kind in kinds)
        rng = Random(f"{seed} {name}")
        random.seed(rng.random())  # the proxy's
        began, began_ms = time.monotonic(), now_ms()
        # Begin with environments without memory of the last run.
        kill_workers(self._box.aws, self._box.outputs["StopSegmentFunctionName"])
        self._box.rtc.forget()
        stories = write_stories(rng, events, now_ms(), f"room-{seed}-{next(self._numbers)}")
        for story in stories:
            for task_id, started_ms in story.running.items():
                self._box.rtc.start_task(APP_ID, story.room_id, task_id, start_time_ms=started_ms)
            if story.is_gone:
                self._box.rtc.close_room(APP_ID, story.room_id)
        gone = [story.room_id for story in stories if story.is_gone]
        scene = Scene(self._box, self._observer, self._proxy, rng, running_tasks(stories), gone)
        messages = [message for story in stories for message in story.messages]
        rng.shuffle(messages)
        sent = self._send([message for message in messages if message.is_early])
        left = self._wait_until_empty(QUEUE_DEADLINE_SECONDS)
        with contextlib.ExitStack() as happening:
            counts = [happening.enter_context(kind.happen(scene)) for kind in kinds if kind.happen]
            sent |= self._send([message for message in messages if not message.is_early])
            self._wait_until_empty(min(kind.seconds for kind in kinds))
        left += self._wait_until_empty(QUEUE_DEADLINE_SECONDS)
        counts += self._sweep([kind.happen_to_sweeps for kind in kinds if kind.happen_to_sweeps], scene)
        letters = [Letter(taken["Body"], taken["Attributes"]) for taken in self._box.dead_letters()]
        redelivers = any(kind.redelivers for kind in kinds)
        evidence = self._complete(
            lambda: Evidence(stories, sent, self._box.log_lines(since_ms=began_ms), letters, self._box.rtc, redelivers)
        )
        broken = judge(evidence)
        if left:
            broken.append(f"{left} messages are still on the event queue")
            self._box.client("sqs").purge_queue(QueueUrl=self._box.outputs["EventQueueUrl"])
        faults = [count(evidence.lines) for count in counts]
        return Run(name, evidence, faults, time.monotonic() - began, broken)

    def _sweep(self, faults: Sequence[Happen], scene: Scene) -> list[Count]:
        """Sweep with the faults, and then twice without faults, since two sweeps must find that a room is gone."""
        self._box.rtc.heal()
        rooms = [*scene.gone_rooms, *(room_id for room_id, _ in scene.tasks[:LIVING_ROOMS])]
        with contextlib.ExitStack() as happening:
            counts = [happening.enter_context(happen(scene)) for happen in faults]
            for _ in range(SWEEPS_WITH_FAULTS if faults else 0):
                self._sweep_once(rooms)
        self._box.rtc.heal()
        for _ in range(SWEEPS):
            self._sweep_once(rooms)
        return counts

    def _sweep_once(self, rooms: Sequence[str]) -> None:
        """Run a sweep that asks about the rooms, and wait until its messages are served."""
        self._box.sweep(rooms)  # if it is killed, another one follows and finds its lease
        self._wait_until_empty(QUEUE_DEADLINE_SECONDS)

    def _send(self, messages: Sequence[Message]) -> dict[str, Message]:
        ids = self._box.send([message.body for message in messages])
        return dict(zip(ids, messages, strict=True))

    def _wait_until_empty(self, seconds: float) -> int:
        """Wait until the event queue is empty or the time is up. Return the number of messages left."""
        deadline = time.monotonic() + seconds
        while (left := self._box.undone()) and time.monotonic() < deadline:
            time.sleep(0.2)
        return left

    def _complete(self, gather: Callable[[], Evidence]) -> Evidence:
        """Gather the evidence again until the end of every message is in it, or until the deadline."""
        deadline = time.monotonic() + LOG_DEADLINE_SECONDS
        while (evidence := gather()).lost and time.monotonic() < deadline:
            time.sleep(0.5)
        return evidence


@contextlib.contextmanager
def stage() -> Iterator[Stage]:
    """Deploy a stack that never requeues a message, with a proxy that can make its AWS calls fail."""
    with (
        sandbox({"GiveUpAfterMinutes": "0"}, app_ids={APP_ID}) as box,
        aws_faults(box.aws) as proxy,
        visibility(box, VISIBILITY_SECONDS),
    ):
        yield Stage(box, proxy)
