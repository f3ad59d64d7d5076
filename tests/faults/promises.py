"""The promises under any fault, checked against the function's log, the dead letters and the API's requests."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from sandbox.rtc_double import RtcDouble
from sandbox.rtc_gateway import ApiRequest
from tests.e2e.observer import APP_ID
from tests.faults.stories import STALE_MS, Message, Story, Task

MOST_REQUESTS_A_SECOND = 150
FAILED = ("invalid_message", "rejected", "exhausted")
REDRIVEN = "redriven"
"""The end of a letter without a reason of its own: the event queue's own redrive sent it."""


@dataclass(frozen=True)
class Letter:
    """A dead letter, and the id of its original message."""

    message_id: str
    body: str
    attributes: Mapping[str, str]

    @property
    def kind(self) -> str:
        return self.attributes.get("ErrorKind", REDRIVEN)

    @property
    def is_from_sweeper(self) -> bool:
        return '"RoomGone"' in self.body


@dataclass(frozen=True)
class Evidence:
    """The observations of a run, once its queue is empty.

    Parameters
    ----------
    sent
        The messages by the ids that the queue gave them: each as often as it was sent.
    lines
        The function's log.
    known_starts
        The tasks with a running session that the table knew before an event of an earlier one was sent.
    dies
        Whether the function may have crashed on a message, or the queue delivered it twice.
    is_requeued
        Whether messages were given up for nothing that passes, but ended as later copies of themselves.
    """

    stories: Sequence[Story]
    sent: Mapping[str, Message]
    lines: Sequence[Mapping[str, Any]]
    letters: Sequence[Letter]
    rtc: RtcDouble
    known_starts: Collection[Task]
    dies: bool
    is_requeued: bool = False

    @cached_property
    def lines_of(self) -> dict[str, list[Mapping[str, Any]]]:
        """The lines about each message."""
        lines: defaultdict[str, list[Mapping[str, Any]]] = defaultdict(list)
        for line in self.lines:
            if line.get("message_id") in self.sent:
                lines[line["message_id"]].append(line)
        return lines

    @cached_property
    def letters_of(self) -> dict[str, list[Letter]]:
        letters: defaultdict[str, list[Letter]] = defaultdict(list)
        for letter in self.letters:
            letters[letter.message_id].append(letter)
        return letters

    def ends(self, message_id: str) -> list[list[Mapping[str, Any]]]:
        """Return the lines with outcomes of each time that a message was served to its end.

        A delivery does not count if the message, or one of its tasks, failed and was to be tried again.
        """
        receives: defaultdict[int, list[Mapping[str, Any]]] = defaultdict(list)
        for line in self.lines_of.get(message_id, []):
            if "outcome" in line:
                receives[line["receive_count"]].append(line)
        return [lines for lines in receives.values() if all(line["outcome"] != "retried" for line in lines)]

    @cached_property
    def requeued(self) -> dict[str, Message]:
        """The messages of which later copies were sent, by their bodies: a copy has another id."""
        return {
            self.sent[message_id].body: self.sent[message_id]
            for message_id, lines in self.lines_of.items()
            if any(line.get("outcome") == "requeued" for line in lines)
        }

    @property
    def unaccounted(self) -> list[str]:
        """The messages that ended neither in an outcome nor as a dead letter."""
        return [
            message_id for message_id in self.sent if message_id not in self.letters_of and not self.ends(message_id)
        ]

    def start_was_known(self, message: Message, task: Task) -> bool:
        """Whether nothing excuses an event of an earlier session that stops this one."""
        session = self._sessions[task]
        stale = message.time_ms is not None and message.time_ms < session.now_ms - STALE_MS
        return stale or task in self.known_starts

    def may_be_closed(self, task: Task) -> bool:
        """Whether a room's end that names no task may not find this one: it is not known yet, or stopped already."""
        return task not in self.known_starts or any(task[1] in one.stops for one in self._sessions[task].messages)

    @cached_property
    def _sessions(self) -> dict[Task, Story]:
        return {(story.room_id, task_id): story for story in self.stories for task_id in story.running}


@dataclass(frozen=True)
class Verdict:
    """Whether a run kept the promises.

    Parameters
    ----------
    outcomes
        How often each outcome was the end of a task, a room or a message.
    highest_window
        The most StopSegment requests within a second.
    broken
        A sentence for each promise that was not kept.
    """

    outcomes: Counter[str]
    dead_letters: int
    lost: list[str]
    wrong_stops: list[str]
    orphans: list[str]
    highest_window: int
    broken: list[str] = field(default_factory=list)


def judge(evidence: Evidence) -> Verdict:
    """Hold a run against the promises."""
    outcomes = Counter(
        line["outcome"]
        for message_id in evidence.sent
        for lines in evidence.ends(message_id)[-1:]
        for line in lines
        if line["outcome"] not in FAILED
    )
    lost = [f"{_name(evidence, message_id)} is lost" for message_id in evidence.unaccounted]
    wrong_stops = _wrong_stops(evidence)
    highest = evidence.rtc.busiest_second("StopSegment")
    orphans = _orphans(evidence)
    broken = [
        *lost,
        *wrong_stops,
        *orphans,
        *_wrong_ends(evidence),
        *_wrong_letters(evidence),
        *_never_stopped(evidence),
    ]
    broken += [f"the function failed: {line}" for line in evidence.lines if line.get("message") == "unexpected error"]
    if highest > MOST_REQUESTS_A_SECOND:
        broken.append(f"{highest} requests in a second")
    return Verdict(outcomes, len(evidence.letters), lost, wrong_stops, orphans, highest, broken)


def _name(evidence: Evidence, message_id: str) -> str:
    return f"message {message_id} ({evidence.sent[message_id].body})"


def _wrong_ends(evidence: Evidence) -> list[str]:
    """Find the messages that did not end in exactly one documented way."""
    wrong = []
    for message_id, message in evidence.sent.items():
        ends, letters = evidence.ends(message_id), evidence.letters_of.get(message_id, [])
        # A message that is served twice may end twice: the function crashed, or was overtaken, before its answer
        # reached the queue.
        if not evidence.dies and (len(ends) > 1 or len(letters) > 1):
            wrong.append(f"{_name(evidence, message_id)} ended {len(ends)} times, with {len(letters)} letters")
        for lines in ends:
            outcomes = {line["outcome"] for line in lines}
            tasks = Counter(line.get("task_id") for line in lines)
            if failed := outcomes & set(FAILED):
                if not evidence.dies and failed != {letter.kind for letter in letters}:
                    wrong.append(f"{_name(evidence, message_id)}: no letter says that it ended as {outcomes}")
            elif letters and not evidence.dies:
                wrong.append(f"{_name(evidence, message_id)} ended as {outcomes}, and as a letter too")
            goes_on = failed or "requeued" in outcomes
            if max(tasks.values()) > 1 or (
                message.named and message.stops and not goes_on and set(tasks) != set(message.stops)
            ):
                wrong.append(f"{_name(evidence, message_id)}: not one outcome for each task, but {dict(tasks)}")
            if not outcomes <= _may_end(evidence, message):
                wrong.append(f"{_name(evidence, message_id)} ended as {outcomes}")
    return wrong


def _may_end(evidence: Evidence, message: Message) -> frozenset[str]:
    may_end = message.may_end | {"requeued" if evidence.is_requeued else "exhausted"}
    if message.late_for and not evidence.start_was_known(message, (message.room_id, message.late_for)):
        may_end |= {"stopped", "already_stopped"}
    if message.late_for and not message.named and evidence.may_be_closed((message.room_id, message.late_for)):
        may_end |= {"no_open_tasks"}
    return may_end


def _wrong_letters(evidence: Evidence) -> list[str]:
    """Find the letters that differ from the message that was sent, or lack the reason."""
    wrong = []
    for letter in evidence.letters:
        message = evidence.sent.get(letter.message_id) or evidence.requeued.get(letter.body)
        if message is None and letter.is_from_sweeper:
            continue
        if message is None:
            wrong.append(f"no message has become the dead letter {letter}")
            continue
        if letter.body != message.body:
            wrong.append(f"the dead letter {letter} has another body than {message}")
        if letter.kind != REDRIVEN and not {"ErrorCode", "ErrorMessage", "EventTime", "ReceiveCount"} <= set(
            letter.attributes
        ):
            wrong.append(f"the dead letter {letter} does not say why")
        # If the letter was refused, the log says why; if the function crashed, nothing could.
        refused = any(line.get("message") == "dead letter not sent" for line in evidence.lines_of[letter.message_id])
        if letter.kind == REDRIVEN and not refused and not evidence.dies:
            wrong.append(f"no reason is given why {letter} is a dead letter")
        if letter.kind not in {REDRIVEN, *_may_end(evidence, message)}:
            wrong.append(f"the message of {letter} should have ended as one of {sorted(message.may_end)}")
        if message.time_ms is not None and letter.attributes.get("EventTime", str(message.time_ms)) != str(
            message.time_ms
        ):
            wrong.append(f"the dead letter {letter} has another event time than {message}")
    return wrong


def _wrong_stops(evidence: Evidence) -> list[str]:
    """Find the sessions that an older event asked to stop, and those that ended without a request."""
    messages = {message.name: message for message in evidence.sent.values()}
    wrong = []
    for request in evidence.rtc.requests:
        message = messages.get(_business_id(request))
        task = (request.task[1], request.task[2])
        if message is None or request.action != "StopSegment" or message.late_for != task[1]:
            continue
        if evidence.start_was_known(message, task):
            wrong.append(f"an older event stopped {task}: {message.body}")
    for story in evidence.stories:
        owed = {task_id for message in story.messages for task_id in message.stops}
        late = {message.late_for: message for message in story.messages if message.late_for}
        for task_id in set() if story.is_gone else set(story.running) - owed:
            excused = task_id in late and not evidence.start_was_known(late[task_id], (story.room_id, task_id))
            if not excused and not evidence.rtc.is_running(APP_ID, story.room_id, task_id):
                wrong.append(f"{story.room_id} {task_id} was stopped, but no event asks for that")
    return wrong


def _business_id(request: ApiRequest) -> str:
    return str((request.body or {}).get("BusinessId"))


def _never_stopped(evidence: Evidence) -> list[str]:
    """Find the tasks that still run though an event that asks to stop them is not on the dead-letter queue."""
    served: defaultdict[str, list[Message]] = defaultdict(list)
    for message_id, message in evidence.sent.items():
        if message_id not in evidence.letters_of:
            served[message.room_id].append(message)
    never = []
    for story in evidence.stories:
        told = {message.tells for message in served[story.room_id]}
        owed = {
            task_id: message
            for message in served[story.room_id]
            for task_id in message.stops
            if message.named or task_id in told
        }
        never += [
            f"{story.room_id} {task_id} still runs in spite of {message.body}"
            for task_id, message in owed.items()
            if evidence.rtc.is_running(APP_ID, story.room_id, task_id)
        ]
    return never


def _orphans(evidence: Evidence) -> list[str]:
    """Find the tasks that were heard of, and still run though their room is gone."""
    served = [message for message_id, message in evidence.sent.items() if message_id not in evidence.letters_of]
    heard_of = {(message.room_id, message.tells) for message in served}
    return [
        f"{story.room_id} {task_id} still runs, though its room is gone"
        for story in evidence.stories
        for task_id in story.running
        if story.is_gone
        and (story.room_id, task_id) in heard_of
        and evidence.rtc.is_running(APP_ID, story.room_id, task_id)
    ]
