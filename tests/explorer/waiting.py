"""Worlds of one message with a task token: the real handler, and an SQS on which any call may fail."""

from __future__ import annotations

import json
import os
import warnings
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, Self
from unittest.mock import patch

from botocore.exceptions import EndpointConnectionError

from segments.errors import NoAnswer, Rejected
from segments.stop_rules import Outcome
from stop_segment.queues import Queues
from stop_segment.stopper import Done, Served
from tests.environments import STOP_SETTINGS, Context, import_handler
from tests.explorer.scheduler import FAULT, Choice

T = 1_795_327_920_123
TOKEN = "AQCIAAAAKgAAAAMAAAAA/+=\u2028"
BODY = json.dumps(
    {"EventType": "RoomEnded", "AppId": "661e", "RoomId": "room-1", "TaskId": "audio", "TaskToken": TOKEN}
)
UNREADABLE = json.dumps({"EventType": "RoomEnd", "AppId": "661e", "RoomId": "room-1", "TaskToken": TOKEN})
ENDS = {"stops": None, "is down": NoAnswer("Timeout", "no answer"), "rejects": Rejected("NoApp", "no such app")}
MAX_RECEIVE_COUNT = 3
GIVE_UP_AFTER_MINUTES = 5
MINUTE_MS = 60_000
MOST_CALLS = 3
"""The maximum number of SQS calls for one message: its dead letter, its answer, and the copy for a lost answer."""
# The exception, in the words of docs/workflows.md.
UNSURE = "the function crashes after it sent the dead letter, or if SQS's response to a successful answer is lost"


@dataclass(frozen=True)
class Waiting:
    """A message with a task token, and the API's answer to each attempt. The last answer repeats."""

    name: str
    ends: Sequence[str]
    body: str = BODY


WAITING = (
    Waiting("a workflow waits: the task is stopped", ["stops"]),
    Waiting("a workflow waits: the API rejects", ["rejects"]),
    Waiting("a workflow waits: an unreadable message", [], UNREADABLE),
    Waiting("a workflow waits: the API rejects only once", ["rejects", "stops"]),
    Waiting("a workflow waits: the API is down until the last attempt", [*["is down"] * 5, "stops"]),
    Waiting("a workflow waits: the API is down until its message is given up", [*["is down"] * 6, "stops"]),
)


class How(Enum):
    """The ways in which a call of SQS fails."""

    REFUSED = "is refused"
    ANSWER_LOST = "succeeds, but its answer is lost"
    LAST = "is the last one before the function crashes"


class Crashed(BaseException):
    """The crash of an environment, which no `except` of the function catches."""


@dataclass(frozen=True)
class Copy:
    """A message on the event queue."""

    body: str
    sent_ms: int
    attributes: tuple[tuple[str, str], ...] = ()
    received: int = 0

    @property
    def record(self) -> dict[str, Any]:
        return {
            "messageId": f"m-{self.sent_ms}-{len(self.attributes)}",
            "receiptHandle": "handle",
            "body": self.body,
            "attributes": {"ApproximateReceiveCount": str(self.received), "SentTimestamp": str(self.sent_ms)},
            "messageAttributes": {name: {"stringValue": value} for name, value in self.attributes},
        }


@dataclass
class Waited:
    """A `Waiting` world in play, with the parts of the SQS client and the stopper that the handler uses."""

    world: Waiting
    module: ModuleType
    settings: dict[str, Any] = field(default_factory=dict)
    waiting: list[Copy] = field(init=False)
    letters: list[dict[str, str]] = field(default_factory=list)
    answers: list[dict[str, Any]] = field(default_factory=list)
    calls: int = 0
    moved_by_sqs: int = 0
    story: list[str] = field(default_factory=list)
    allowed: Counter[str] = field(default_factory=Counter)
    _now_ms: int = T
    _served: int = 0
    _is_unsure: bool = False
    _failing: tuple[int, How] | None = None

    def __post_init__(self) -> None:
        self.waiting = [Copy(self.world.body, T)]

    def batch(self, _: object) -> Self:
        """Return this object, which also serves a batch."""
        return self

    async def serve(self, _: object) -> Served:
        end = self.world.ends[min(self._served, len(self.world.ends) - 1)]
        self._served += 1
        self.story.append(f"the API {end}")
        error = ENDS[end]
        return Served([], [("audio", error)]) if error else Served([Done("audio", Outcome.STOPPED)])

    def send_message_batch(self, *, QueueUrl: str, Entries: list[dict[str, Any]]) -> dict[str, Any]:  # noqa: N803
        self.calls += 1
        at, how = self._failing or (0, None)
        fails = how if at == self.calls else None
        self.story.append(f"a message to {QueueUrl}" + (f" {fails.value}" if fails else ""))
        if fails is How.REFUSED:
            return {"Successful": []}
        for entry in Entries:
            self._take(QueueUrl, entry)
        if fails is How.ANSWER_LOST:
            self._is_unsure |= QueueUrl == "answers"
            raise EndpointConnectionError(endpoint_url=QueueUrl)
        if fails is How.LAST:
            raise Crashed
        return {"Successful": [{"Id": entry["Id"]} for entry in Entries]}

    def change_message_visibility_batch(self, **_: object) -> None:
        """Accept a back-off without effect: no history depends on it."""

    def _take(self, queue: str, entry: dict[str, Any]) -> None:
        attributes = {name: value["StringValue"] for name, value in entry["MessageAttributes"].items()}
        if queue == "letters":
            self.letters.append(attributes)
        elif queue == "answers":
            self.answers.append(json.loads(entry["MessageBody"]))
        else:
            self.waiting.append(Copy(entry["MessageBody"], self._now_ms, tuple(sorted(attributes.items()))))

    def choices(self) -> list[Choice]:
        ways = [(call, how) for call in range(1, MOST_CALLS + 1) for how in How]
        found = [Choice(partial(self.deliver, copy)) for copy in self.waiting]
        found += [Choice(partial(self.deliver, copy, way), FAULT) for copy in self.waiting for way in ways]
        return found + [Choice(partial(self.deliver, copy, is_kept=True), FAULT) for copy in self.waiting]

    def deliver(self, copy: Copy, failing: tuple[int, How] | None = None, *, is_kept: bool = False) -> None:
        """Deliver a message, or move it as SQS would. The message stays if the function fails or crashes, or if
        `is_kept` is set."""
        self.waiting.remove(copy)
        self._now_ms += MINUTE_MS
        copy = replace(copy, received=copy.received + 1)
        if copy.received > MAX_RECEIVE_COUNT:
            self.story.append("SQS moves the message")
            self.moved_by_sqs += 1
            return
        self.story.append(f"receive {copy.received}")
        self.calls, self._failing = 0, failing
        self._is_unsure |= bool(self.letters) and "GivenUp" not in dict(copy.attributes)
        if self._invoke(copy.record) or is_kept:
            self.waiting.append(copy)

    def _invoke(self, record: dict[str, Any]) -> bool:
        settings = self.module.settings
        given = {"answer_queue_url": "answers", "max_receive_count": MAX_RECEIVE_COUNT} | self.settings
        queues = Queues(self, "events", "letters", "", given["answer_queue_url"])  # type: ignore[arg-type]
        doubles = {"settings": replace(settings, **given), "queues": queues, "stopper": self, "now_ms": self._clock}
        with patch.multiple(self.module, **doubles):
            try:
                return bool(self.module.handler({"Records": [record]}, Context())["batchItemFailures"])
            except Crashed:
                return True

    def _clock(self) -> int:
        return self._now_ms

    def state(self) -> Hashable:
        facts = [self._now_ms, self._served, self.moved_by_sqs, self._is_unsure]
        return str([*facts, sorted(map(repr, self.waiting)), self.letters, self.answers])

    def broken(self) -> list[str]:
        """Return a sentence for each promise of docs/workflows.md that this history breaks."""
        broken = []
        errors = [answer["Error"] for answer in self.answers if "Error" in answer]
        succeeded = len(errors) < len(self.answers)
        if any(answer["TaskToken"] != TOKEN for answer in self.answers):
            broken.append("another token is answered")
        if set(errors) - {letter["ErrorCode"] for letter in self.letters}:
            broken.append(
                "the workflow receives another error than the dead letter's, or an error without a dead letter"
            )
        if self.letters and succeeded and self._is_unsure:
            self.allowed[UNSURE] += 1
        elif self.letters and succeeded:
            broken.append("the workflow receives a success beside a dead letter")
        if not self.waiting and not self.answers and not self.moved_by_sqs:
            broken.append("the workflow receives no answer")
        return broken

    def end(self) -> None:
        """Release nothing, since this play holds no resources."""


@contextmanager
def function_environment() -> Iterator[ModuleType]:
    """Create an environment of the stop function without any AWS."""
    aws = {"AWS_DEFAULT_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x"}
    powertools = {"POWERTOOLS_METRICS_NAMESPACE": "TaskTokens", "POWERTOOLS_SERVICE_NAME": "task-tokens"}
    module = import_handler(
        "stop_segment",
        ("segments.telemetry", "segments.clients", "stop_segment.logs"),
        STOP_SETTINGS | aws | powertools | {"GIVE_UP_AFTER_MINUTES": str(GIVE_UP_AFTER_MINUTES)},
    )
    module.logger.setLevel("CRITICAL")
    # An invocation prints its metrics.
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere), warnings.catch_warnings(action="ignore"):
        try:
            yield module
        finally:
            module.loop.close()
