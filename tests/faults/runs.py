"""A run: messages about many rooms are sent, something fails meanwhile, and the promises are held against the end."""

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
# The function's time-out, and a little: the embedded AWS loses a batch now and then, which comes back after that.
VISIBILITY_SECONDS = 70


@dataclass(frozen=True)
class Run:
    """A run that is over.

    Parameters
    ----------
    faults
        How often each kind of fault happened.
    broken
        The promises that were not kept.
    """

    name: str
    evidence: Evidence
    faults: Sequence[int]
    seconds: float
    broken: Sequence[str]


class Stage:
    """A sandbox in which things fail."""

    def __init__(self, box: Sandbox, proxy: AwsFaults) -> None:
        self._box = box
        self._proxy = proxy
        self._observer = Observer(box)
        self._numbers = itertools.count(1)
        for function in ("StopSegmentFunction", "SweepRoomsFunction"):
            self._observer.renew_function(function, AWS_ENDPOINT_URL=proxy.url)

    def run(self, kinds: Sequence[Kind], events: int, seed: int) -> Run:
        """Send messages while faults of these kinds happen, and judge the outcomes."""
        name = ", ".join(kind.name for kind in kinds)
        rng = Random(f"{seed} {name}")
        random.seed(rng.random())  # the proxy's
        began, began_ms = time.monotonic(), now_ms()
        # The memory of the last run's environments must not help.
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
        dies = any(kind.dies for kind in kinds)
        evidence = self._complete(
            lambda: Evidence(stories, sent, self._box.log_lines(since_ms=began_ms), letters, self._box.rtc, dies)
        )
        broken = judge(evidence)
        if left:
            broken.append(f"{left} messages are still on the event queue")
            self._box.client("sqs").purge_queue(QueueUrl=self._box.outputs["EventQueueUrl"])
        faults = [count(evidence.lines) for count in counts]
        return Run(name, evidence, faults, time.monotonic() - began, broken)

    def _sweep(self, faults: Sequence[Happen], scene: Scene) -> list[Count]:
        """Sweep as often as a room needs after its end, and before that as often as faults are to happen to it."""
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
        """Let so much time pass that rooms are to be looked at again, and look."""
        self._box.sweep(rooms)  # one that is killed is followed by another, which finds its lease
        self._wait_until_empty(QUEUE_DEADLINE_SECONDS)

    def _send(self, messages: Sequence[Message]) -> dict[str, Message]:
        ids = self._box.send([message.body for message in messages])
        return dict(zip(ids, messages, strict=True))

    def _wait_until_empty(self, seconds: float) -> int:
        """Wait until the event queue is empty, and return how many messages are on it if that takes longer."""
        deadline = time.monotonic() + seconds
        while (left := self._box.undone()) and time.monotonic() < deadline:
            time.sleep(0.2)
        return left

    def _complete(self, gather: Callable[[], Evidence]) -> Evidence:
        """Gather the evidence again until every message is accounted for, or the deadline has come."""
        deadline = time.monotonic() + LOG_DEADLINE_SECONDS
        while (evidence := gather()).lost and time.monotonic() < deadline:
            time.sleep(0.5)
        return evidence


@contextlib.contextmanager
def stage() -> Iterator[Stage]:
    """Deploy a stack that gives messages up at once, with a proxy in which its AWS calls may fail."""
    with (
        sandbox({"GiveUpAfterMinutes": "0"}, app_ids={APP_ID}) as box,
        aws_faults(box.aws) as proxy,
        visibility(box, VISIBILITY_SECONDS),
    ):
        yield Stage(box, proxy)
