"""A run: messages about many rooms are sent, something fails meanwhile, and the promises are held against the end."""

from __future__ import annotations

import contextlib
import itertools
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random

from sandbox.stack import Sandbox, sandbox
from tests.e2e.observer import APP_ID, Observer, now_ms
from tests.faults.aws_faults import AwsFaults, aws_faults
from tests.faults.kinds import Count, Kind, Scene, visibility
from tests.faults.promises import Evidence, Letter, Verdict, judge
from tests.faults.stories import Message, Story, Task, running_tasks, tell_stories
from tests.faults.workers import kill_workers

QUEUE_DEADLINE_SECONDS = 240
LOG_DEADLINE_SECONDS = 30
FUNCTION_DEADLINE_SECONDS = 60
STARTS_KNOWN_SECONDS = 5
SWEEPS, SWEEPS_WITH_FAULTS = 2, 4
LIVING_ROOMS = 20
# The event queue's own; no kind of fault may let the function have more.
MOST_RECEIVES = "4"
# Permanent failures are given up at once, without an hour's wait.
USUAL_SETTINGS = {"MAX_RECEIVE_COUNT": "3", "GIVE_UP_AFTER_MINUTES": "0"}
# The function's time-out, and a little: the embedded AWS loses a batch now and then, which comes back after that.
VISIBILITY_SECONDS = 70


@dataclass(frozen=True)
class Run:
    """A run that is over.

    Parameters
    ----------
    events
        How many messages were sent.
    faults
        How often each kind of fault happened.
    left
        How many messages were still on the queue at the end of the wait.
    """

    name: str
    events: int
    faults: Sequence[int]
    left: int
    seconds: float
    verdict: Verdict

    @property
    def broken(self) -> list[str]:
        """The promises that were not kept."""
        broken = list(self.verdict.broken)
        if not all(self.faults):
            broken.append("a fault never happened, so nothing is shown")
        if self.left:
            broken.append(f"{self.left} messages are still on the event queue")
        return broken


class Stage:
    """A sandbox in which things fail."""

    def __init__(self, box: Sandbox, proxy: AwsFaults) -> None:
        self._box = box
        self._proxy = proxy
        self._observer = Observer(box)
        self._numbers = itertools.count(1)
        self._variables: Mapping[str, str] = {}

    def run(self, kinds: Sequence[Kind], events: int, seed: int) -> Run:
        """Send messages while faults of these kinds happen, and judge the outcomes."""
        name = ", ".join(kind.name for kind in kinds)
        rng = Random(f"{seed} {name}")
        random.seed(rng.random())  # the proxy's
        began = time.monotonic()
        began_ms = now_ms()
        through_proxy = any(kind.through_proxy for kind in kinds)
        endpoint = self._proxy.url if through_proxy else self._box.aws.endpoint
        self._renew_function({name: text for kind in kinds for name, text in kind.settings.items()}, endpoint)
        self._box.rtc.forget()
        copies = max(kind.most_copies for kind in kinds)
        stories = tell_stories(
            rng,
            round(events / (1 + copies) * 2),
            now_ms(),
            f"room-{seed}-{next(self._numbers)}",
            ends_are_lost=any(kind.ends_are_lost for kind in kinds),
        )
        for story in stories:
            for task_id, started_ms in story.running.items():
                self._box.rtc.start_task(APP_ID, story.room_id, task_id, start_time_ms=started_ms)
            if story.is_gone:
                self._box.rtc.close_room(APP_ID, story.room_id)
        sent: dict[str, Message] = {}
        gone = [story.room_id for story in stories if story.is_gone]
        scene = Scene(self._box, self._observer, self._proxy, rng, running_tasks(stories), gone)
        with contextlib.ExitStack() as happening:
            counts = [happening.enter_context(kind.happen(scene)) for kind in kinds if kind.happen]
            first, then = _waves(stories, copies, rng)
            self._send(first, sent)
            self._wait_for_the_function(began_ms)
            known = self._wait_for_starts(first)
            self._send(then, sent)
            self._wait_until_empty(min(kind.seconds for kind in kinds))
        left = self._wait_until_empty(QUEUE_DEADLINE_SECONDS)
        counts += self._sweep([kind.happen_to_sweeps for kind in kinds if kind.happen_to_sweeps], scene)
        letters = self._take_letters()
        evidence = self._complete(
            lambda: Evidence(
                stories,
                sent,
                self._box.log_lines(since_ms=began_ms),
                letters,
                self._box.rtc,
                known,
                dies=any(kind.dies for kind in kinds),
                is_requeued=any(kind.is_requeued for kind in kinds),
            )
        )
        if left:
            self._box.client("sqs").purge_queue(QueueUrl=self._box.outputs["EventQueueUrl"])
        faults = [count(evidence.lines) for count in counts]
        return Run(name, len(sent), faults, left, time.monotonic() - began, judge(evidence))

    def _renew_function(self, settings: Mapping[str, str], aws_endpoint: str) -> None:
        """Give the function new environments: the memory of the last run's must not help."""
        variables = {**USUAL_SETTINGS, **settings, "AWS_ENDPOINT_URL": aws_endpoint}
        if variables != self._variables:
            self._observer.renew_function("StopSegmentFunction", **variables)
            self._variables = variables
        kill_workers(self._box.aws, self._box.outputs["StopSegmentFunctionName"])

    def _sweep(
        self, faults: Sequence[Callable[[Scene], contextlib.AbstractContextManager[Count]]], scene: Scene
    ) -> list[Count]:
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

    def _send(self, messages: Sequence[Message], sent: dict[str, Message]) -> None:
        ids = self._box.send([message.body for message in messages])
        sent.update(zip(ids, messages, strict=True))

    def _wait_for_the_function(self, since_ms: int) -> None:
        """Wait until it is at work: a fault that is over before shows nothing."""
        deadline = time.monotonic() + FUNCTION_DEADLINE_SECONDS
        while not self._box.log_lines(since_ms=since_ms) and time.monotonic() < deadline:
            time.sleep(0.2)

    def _wait_for_starts(self, messages: Sequence[Message]) -> frozenset[Task]:
        """Return the tasks with starts that the table knows: those of all messages, unless that takes too long."""
        tasks = {(message.room_id, message.tells) for message in messages if message.tells}
        deadline = time.monotonic() + STARTS_KNOWN_SECONDS
        while (known := self._known_starts(sorted(tasks))) != tasks and time.monotonic() < deadline:
            time.sleep(0.2)
        return frozenset(known)

    def _known_starts(self, tasks: Sequence[Task]) -> set[Task]:
        known = set()
        table = self._box.outputs["SegmentTableName"]
        for start in range(0, len(tasks), 100):
            keys = [
                {"room": {"S": f"{APP_ID}#{room_id}"}, "task_id": {"S": task_id}}
                for room_id, task_id in tasks[start : start + 100]
            ]
            request = {table: {"Keys": keys, "ConsistentRead": True}}
            items = self._box.client("dynamodb").batch_get_item(RequestItems=request)["Responses"][table]
            known |= {
                (item["room"]["S"].partition("#")[2], item["task_id"]["S"]) for item in items if "started_at" in item
            }
        return known

    def _wait_until_empty(self, seconds: float) -> int:
        """Wait until the event queue is empty, and return how many messages are on it if that takes longer."""
        deadline = time.monotonic() + seconds
        while (left := self._box.undone()) and time.monotonic() < deadline:
            time.sleep(0.2)
        return left

    def _take_letters(self) -> list[Letter]:
        # The queue's own redrive keeps the message's id.
        return [
            Letter(taken["Attributes"].get("SourceMessageId", taken["MessageId"]), taken["Body"], taken["Attributes"])
            for taken in self._box.dead_letters()
        ]

    def _complete(self, gather: Callable[[], Evidence]) -> Evidence:
        """Gather the evidence again until every message is accounted for, or the deadline has come."""
        deadline = time.monotonic() + LOG_DEADLINE_SECONDS
        while (evidence := gather()).unaccounted and time.monotonic() < deadline:
            time.sleep(0.5)
        return evidence


def _waves(stories: Sequence[Story], most_copies: int, rng: Random) -> tuple[list[Message], list[Message]]:
    """Shuffle the messages, with those that are sent a second and third time."""
    first: list[Message] = []
    then: list[Message] = []
    for message in (message for story in stories for message in story.messages):
        (first if message.first else then).append(message)
        then += [message] * (rng.randint(1, most_copies) - 1)
    rng.shuffle(first)
    rng.shuffle(then)
    return first, then


@contextlib.contextmanager
def stage() -> Iterator[Stage]:
    """Deploy the stack, with a proxy in which AWS calls may fail."""
    with (
        sandbox({"MaxReceiveCount": MOST_RECEIVES}, app_ids={APP_ID}) as box,
        aws_faults(box.aws) as proxy,
        visibility(box, VISIBILITY_SECONDS),
    ):
        yield Stage(box, proxy)
