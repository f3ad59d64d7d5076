"""The promises hold while faults happen, and the check finds broken promises."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from random import Random

import pytest

from sandbox.rtc_double import RtcDouble
from tests.e2e.observer import APP_ID, Letter, now_ms
from tests.faults.kinds import KINDS
from tests.faults.promises import REASON, Evidence, judge
from tests.faults.runs import Stage, stage
from tests.faults.stories import LATE, STOPPED, Story

SEED = 1
EVENTS = 100
SECONDS = 6


@pytest.fixture(scope="module")
def running() -> Iterator[Stage]:
    with stage() as deployed:
        yield deployed


@pytest.mark.long
@pytest.mark.parametrize(
    "names",
    [
        pytest.param(["worker killed", "queue: again"], id="deliveries"),
        pytest.param(["sweeper killed", "rooms: odd answers", "rooms: a foreign app"], id="sweeps"),
        pytest.param(
            ["API: 429", "API: failing", "table: failing", "dead letters refused", "secret unavailable"],
            id="API and AWS",
        ),
    ],
)
def test_promises_hold_during_faults(running: Stage, names: list[str]) -> None:
    kinds = [replace(kind, seconds=min(kind.seconds, SECONDS)) for kind in KINDS if kind.name in names]
    run = running.run(kinds, events=EVENTS, seed=SEED)
    # `python -m tests.faults` requires every kind to happen. With so few events some may not.
    assert sum(map(bool, run.faults)) > len(kinds) / 2
    assert run.broken == []


def evidence_of(*ends: str, goes_on: bool = True, is_stopped: bool = False, letters: Sequence[Letter] = ()) -> Evidence:
    """Return the evidence of a task with a reported start and one stop event, older than the start if it `goes_on`."""
    story = Story("room", now_ms(), Random(SEED), goes_on=goes_on)
    story.start("audio")
    story.report_start("audio")
    story.report("RoomEnded", LATE if goes_on else STOPPED, TaskId="audio")
    rtc = RtcDouble(secrets={})
    rtc.start_task(APP_ID, "room", "audio")
    if is_stopped:
        rtc.end_task(APP_ID, "room", "audio")
    sent = {str(number): message for number, message in enumerate(story.messages)}
    lines = [{"message_id": name, "receive_count": 1, "outcome": end} for name, end in zip(sent, ends, strict=False)]
    bodies = [message.body for message in story.messages]
    addressed = [replace(letter, body=letter.body or bodies[-1]) for letter in letters]
    return Evidence([story], sent, lines, addressed, rtc, redelivers=False)


REASONED = Letter("", dict.fromkeys(REASON, "exhausted"))


@pytest.mark.parametrize(
    "kept",
    [
        evidence_of("known", "superseded"),
        evidence_of("known", "stopped", goes_on=False, is_stopped=True),
        evidence_of("known", "exhausted", goes_on=False, letters=[REASONED]),
    ],
)
def test_the_judge_reports_no_violation_of_kept_promises(kept: Evidence) -> None:
    assert judge(kept) == []


@pytest.mark.parametrize(
    ("broken", "found"),
    [
        (evidence_of("known"), "lost: "),
        (evidence_of("known", "retried"), "lost: "),
        (evidence_of("known", "ignored"), "ended as ['ignored']"),
        (evidence_of("known", "exhausted"), "ended as ['exhausted'], with ()"),
        (evidence_of("known", letters=[Letter("", {})]), "no reason: "),
        (evidence_of("known", "superseded", letters=[replace(REASONED, body="other")]), "no message has the body of"),
        (evidence_of("known", "superseded", is_stopped=True), "an older event stopped audio"),
        (evidence_of("known", "stopped", goes_on=False), "audio still runs in room"),
    ],
)
def test_a_broken_promise_yields_one_sentence(broken: Evidence, found: str) -> None:
    (sentence,) = judge(broken)
    assert sentence.startswith(found)
