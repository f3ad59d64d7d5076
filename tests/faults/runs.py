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
from tests.e2e.observer import APP_ID, Observer, now_ms
from tests.faults.aws_faults import AwsFaults, aws_faults
from tests.faults.kinds import Kind, Scene
from tests.faults.promises import Evidence, Letter, Verdict, judge
from tests.faults.stories import Message, Story, Task, running_tasks, tell_stories
from tests.faults.workers import kill_workers

QUEUE_DEADLINE_SECONDS = 240
LOG_DEADLINE_SECONDS = 30
STARTS_KNOWN_SECONDS = 5


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
        How many messages were still on the queue when nobody waited any longer.
    """

    name: str
    events: int
    faults: Sequence[int]
    left: int
    seconds: float
    verdict: Verdict

    @property
    def broken(self) -> list[str]:
        """What was promised and not kept."""
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

    def run(self, kinds: Sequence[Kind], events: int, seed: int) -> Run:
        """Send messages while faults of these kinds happen, and judge what became of them."""
        name = ", ".join(kind.name for kind in kinds)
        rng = Random(f"{seed} {name}")
        random.seed(rng.random())  # the proxy's
        began = time.monotonic()
        began_ms = now_ms()
        through_proxy = any(kind.through_proxy for kind in kinds)
        self._renew_function(self._proxy.url if through_proxy else self._box.aws.endpoint)
        self._box.rtc.forget()
        copies = max(kind.most_copies for kind in kinds)
        stories = tell_stories(rng, round(events / (1 + copies) * 2), now_ms(), f"room-{seed}-{next(self._numbers)}")
        for story in stories:
            for task_id, started_ms in story.running.items():
                self._box.rtc.start_task(APP_ID, story.room_id, task_id, start_time_ms=started_ms)
        sent: dict[str, Message] = {}
        scene = Scene(self._box, self._observer, self._proxy, rng, running_tasks(stories))
        with contextlib.ExitStack() as happening:
            counts = [happening.enter_context(kind.happen(scene)) for kind in kinds]
            first, then = _waves(stories, copies, rng)
            self._send(first, sent)
            known = self._wait_for_starts(first)
            self._send(then, sent)
            self._wait_until_empty(min(kind.seconds for kind in kinds))
        left = self._wait_until_empty(QUEUE_DEADLINE_SECONDS)
        letters = self._take_letters()
        evidence = self._complete(
            lambda: Evidence(
                stories,
                sent,
                self._box.log_lines(since_ms=began_ms),
                letters,
                self._box.rtc,
                known,
                any(kind.dies for kind in kinds),
            )
        )
        if left:
            self._box.client("sqs").purge_queue(QueueUrl=self._box.outputs["EventQueueUrl"])
        faults = [count(evidence.lines) for count in counts]
        return Run(name, len(sent), faults, left, time.monotonic() - began, judge(evidence))

    def _renew_function(self, aws_endpoint: str) -> None:
        """Give the function new environments: what the last run left in the memory of the old ones must not help."""
        client, name = self._box.client("lambda"), self._box.outputs["StopSegmentFunctionName"]
        variables = client.get_function_configuration(FunctionName=name)["Environment"]["Variables"]
        if variables.get("AWS_ENDPOINT_URL", self._box.aws.endpoint) != aws_endpoint:
            environment = {"Variables": {**variables, "AWS_ENDPOINT_URL": aws_endpoint}}
            client.update_function_configuration(FunctionName=name, Environment=environment)
            client.get_waiter("function_updated_v2").wait(FunctionName=name, WaiterConfig={"Delay": 1})
            version = client.publish_version(FunctionName=name)["Version"]
            for alias in client.list_aliases(FunctionName=name)["Aliases"]:
                client.update_alias(FunctionName=name, Name=alias["Name"], FunctionVersion=version)
        kill_workers(self._box.aws, name)

    def _send(self, messages: Sequence[Message], sent: dict[str, Message]) -> None:
        ids = self._box.send([message.body for message in messages])
        sent.update(zip(ids, messages, strict=True))

    def _wait_for_starts(self, messages: Sequence[Message]) -> frozenset[Task]:
        """Give the tasks whose starts the table knows: those of all messages, unless that takes too long."""
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
    """Shuffle the messages, and what else is sent of them a second and third time."""
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
    with sandbox(app_ids={APP_ID}) as box, aws_faults(box.aws) as proxy:
        yield Stage(box, proxy)
