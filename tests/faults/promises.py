"""The promises that hold under any fault, checked with the function's log, the dead letters and the API's requests."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from sandbox.rtc_double import RtcDouble
from tests.e2e.observer import APP_ID, Letter
from tests.faults.stories import Message, Story

MOST_REQUESTS_A_SECOND = 150
FAILED = frozenset({"invalid_message", "rejected", "exhausted"})
REASON = {"ErrorKind", "ErrorCode", "ErrorMessage", "EventTime", "ReceiveCount"}

Line = Mapping[str, Any]


@dataclass(frozen=True)
class Evidence:
    """The observations of a run, once its queue is empty.

    Parameters
    ----------
    sent
        The messages by their ids on the queue.
    lines
        The function's log.
    redelivers
        Whether messages may have been delivered again, after a crash or while they were served.
    """

    stories: Sequence[Story]
    sent: Mapping[str, Message]
    lines: Sequence[Line]
    letters: Sequence[Letter]
    rtc: RtcDouble
    redelivers: bool

    @cached_property
    def ends(self) -> Mapping[str, Sequence[frozenset[str]]]:
        """The outcomes of each message, one set for each delivery that ended it.

        A delivery does not count if the message, or one of its tasks, failed and was retried.
        """
        receives: defaultdict[tuple[str, int], set[str]] = defaultdict(set)
        for line in self.lines:
            if "outcome" in line and line.get("message_id") in self.sent:
                receives[line["message_id"], line["receive_count"]].add(line["outcome"])
        ends: defaultdict[str, list[frozenset[str]]] = defaultdict(list)
        for (message_id, _), outcomes in receives.items():
            if "retried" not in outcomes:
                ends[message_id].append(frozenset(outcomes))
        return ends

    @cached_property
    def letters_of(self) -> Mapping[str, Sequence[Letter]]:
        """The dead letters by their bodies, which are unique."""
        letters: defaultdict[str, list[Letter]] = defaultdict(list)
        for letter in self.letters:
            letters[letter.body].append(letter)
        return letters

    @property
    def lost(self) -> list[str]:
        """The messages that ended neither in an outcome nor as a dead letter."""
        return [
            one.body for name, one in self.sent.items() if name not in self.ends and one.body not in self.letters_of
        ]

    @property
    def outcomes(self) -> Counter[str]:
        """The number of messages with each outcome."""
        return Counter(outcome for ends in self.ends.values() for outcome in ends[-1])


def judge(evidence: Evidence) -> list[str]:
    """Return a sentence for each promise that was not kept."""
    broken = [f"lost: {body}" for body in evidence.lost]
    broken += [*_wrong_ends(evidence), *_wrong_letters(evidence), *_wrong_tasks(evidence)]
    broken += [f"the function failed: {line}" for line in evidence.lines if line.get("message") == "unexpected error"]
    highest = evidence.rtc.busiest_second("StopSegment")
    if highest > MOST_REQUESTS_A_SECOND:
        broken.append(f"{highest} requests in a second")
    return broken


def _wrong_ends(evidence: Evidence) -> Iterator[str]:
    """Find the messages that did not end in exactly one documented way."""
    for message_id, message in evidence.sent.items():
        ends, letters = evidence.ends.get(message_id, ()), evidence.letters_of.get(message.body, ())
        for outcomes in ends:
            if not outcomes <= message.may_end | {"exhausted"}:
                yield f"ended as {sorted(outcomes)}: {message.body}"
        # A message that is served twice may end twice: the function crashed, or was too slow, before it deleted the
        # message.
        if evidence.redelivers or not ends:
            continue
        if len(ends) > 1 or len(letters) > 1:
            yield f"ended {len(ends)} times, with {len(letters)} letters: {message.body}"
        elif ends[0] & FAILED != {letter.attributes.get("ErrorKind") for letter in letters}:
            yield f"ended as {sorted(ends[0])}, with {letters}: {message.body}"


def _wrong_letters(evidence: Evidence) -> Iterator[str]:
    """Find the dead letters that differ from every sent message, or lack a reason."""
    bodies = {message.body for message in evidence.sent.values()}
    refused = any(line.get("message") == "dead letter not sent" for line in evidence.lines)
    for letter in evidence.letters:
        if letter.body not in bodies and '"RoomGone"' not in letter.body:
            yield f"no message has the body of {letter}"
        # If SQS refused the letter, the log has the reason. If the function crashed, nothing has it.
        if not (set(letter.attributes) >= REASON or refused or evidence.redelivers):
            yield f"no reason: {letter}"


def _wrong_tasks(evidence: Evidence) -> Iterator[str]:
    """Find tasks that were stopped but should run, and tasks that run but should be stopped."""
    for story in evidence.stories:
        failed = bool(story.messages) and story.messages[-1].body in evidence.letters_of
        for task_id in story.running:
            runs = evidence.rtc.is_running(APP_ID, story.room_id, task_id)
            asked = evidence.rtc.requests_for(APP_ID, story.room_id, task_id, action="StopSegment")
            if story.goes_on and (asked or not runs):
                yield f"an older event stopped {task_id} in {story.room_id}"
            if runs and not story.goes_on and not failed:
                yield f"{task_id} still runs in {story.room_id}" + ", which is gone" * story.is_gone
