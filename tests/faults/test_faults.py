"""Under any fault: each event has one end, nothing is lost, no new session is stopped, the limit holds.

`python -m tests.faults` does it with thousands of events, one kind of fault at a time; here several happen at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from random import Random

import pytest

from sandbox.rtc_double import RtcDouble
from tests.e2e.observer import APP_ID, now_ms
from tests.faults.kinds import KINDS
from tests.faults.promises import Evidence, Letter, judge
from tests.faults.runs import Stage, stage
from tests.faults.stories import Message, Story

# Left out: the late API, each of whose answers takes longer than the function waits, and the one that is down for long.
API = [kind.name for kind in KINDS if kind.name.startswith("API") and kind.name not in ("API: late", "API: down")]
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
        pytest.param(["worker killed", "queue: again, out of order"], id="deliveries"),
        pytest.param(["sweeper killed", "rooms: odd answers"], id="sweeps"),
        pytest.param([*API, "table: throttled", "dead letters refused", "secret unavailable"], id="API and AWS"),
    ],
)
def test_promises_hold_while_things_fail(running: Stage, names: list[str]) -> None:
    kinds = [replace(kind, seconds=min(kind.seconds, SECONDS)) for kind in KINDS if kind.name in names]
    run = running.run(kinds, events=EVENTS, seed=SEED)
    # `python -m tests.faults` asks that each kind happens: here few events may miss one.
    assert sum(map(bool, run.faults)) > len(kinds) / 2
    assert run.verdict.broken == []
    assert run.left == 0


@pytest.fixture
def restart() -> Story:
    """Report a task that was started again, and its first session's end."""
    story = Story("room", now_ms(), Random(SEED))
    story.start("audio", seconds_ago=20)
    story.tell_start("audio")
    story.tell_late("audio", seconds_ago=60)
    return story


def evidence_of(story: Story, *ends: str, stopped: bool = False, letters: Sequence[Letter] = ()) -> Evidence:
    rtc = RtcDouble(secrets={})
    rtc.start_task(APP_ID, story.room_id, "audio", start_time_ms=story.running["audio"])
    if stopped:
        rtc.end_task(APP_ID, story.room_id, "audio")
    sent = {str(number): message for number, message in enumerate(story.messages, 1)}
    lines = [
        {"message_id": message_id, "receive_count": 1, "task_id": "audio", "outcome": end}
        for message_id, end in zip(sent, ends, strict=False)
    ]
    return Evidence([story], sent, lines, letters, rtc, {("room", "audio")}, dies=False)


def letter_of(message: Message, message_id: str, kind: str) -> Letter:
    reason = dict.fromkeys(("ErrorCode", "ErrorMessage", "ReceiveCount"), "1")
    return Letter(message_id, message.body, {"ErrorKind": kind, "EventTime": str(message.time_ms), **reason})


def test_run_that_keeps_the_promises_is_found_to(restart: Story) -> None:
    assert judge(evidence_of(restart, "known", "superseded")).broken == []


@pytest.mark.parametrize(
    ("ends", "found"),
    [
        (["known"], "is lost"),
        (["known", "retried"], "is lost"),
        (["known", "stopped"], "ended as {'stopped'}"),
        (["known", "exhausted"], "no letter says"),
    ],
)
def test_wrong_end_is_found(restart: Story, ends: list[str], found: str) -> None:
    (sentence,) = judge(evidence_of(restart, *ends)).broken
    assert found in sentence


def test_late_end_of_a_room_finds_no_task_only_where_a_stop_by_name_closed_it(restart: Story) -> None:
    restart.messages.pop()
    restart.tell_late("audio", seconds_ago=60, named=False)
    (sentence,) = judge(evidence_of(restart, "known", "no_open_tasks")).broken
    assert "ended as {'no_open_tasks'}" in sentence
    restart.tell_stop("audio")
    assert judge(evidence_of(restart, "known", "no_open_tasks", "stopped", stopped=True)).broken == []


def test_stop_of_a_restarted_session_is_found(restart: Story) -> None:
    (sentence,) = judge(evidence_of(restart, "known", "superseded", stopped=True)).wrong_stops
    assert "no event asks for that" in sentence


def test_letter_without_a_reason_is_found(restart: Story) -> None:
    letter = Letter("2", restart.messages[1].body, {})
    (sentence,) = judge(evidence_of(restart, "known", letters=[letter])).broken
    assert "no reason is given why" in sentence


def test_message_that_an_outage_makes_a_letter_is_found(restart: Story) -> None:
    letter = letter_of(restart.messages[1], "2", "exhausted")
    given_up = evidence_of(restart, "known", "exhausted", letters=[letter])
    assert judge(given_up).broken == []
    found = judge(replace(given_up, is_requeued=True)).broken
    assert len(found) == 2
    assert "ended as {'exhausted'}" in found[0]
    assert "should have ended as" in found[1]


def test_letter_of_a_later_copy_is_one_of_its_message(restart: Story) -> None:
    restart.messages.pop()
    restart.tell_nonsense("{}", "rejected")
    letters = [letter_of(restart.messages[1], "the copy", "rejected")]
    requeued = replace(evidence_of(restart, "known", "requeued", letters=letters), is_requeued=True)
    assert judge(requeued).broken == []
    (sentence,) = judge(evidence_of(restart, "known", "rejected", letters=letters)).broken[1:]
    assert "no message has become" in sentence


def test_task_that_is_never_stopped_is_found(restart: Story) -> None:
    restart.messages.pop()
    restart.tell_stop("audio")
    (sentence,) = judge(evidence_of(restart, "known", "stopped")).broken
    assert "still runs" in sentence


def test_task_that_outlives_its_room_is_found(restart: Story) -> None:
    restart.messages.pop()
    restart.is_gone = True
    (sentence,) = judge(evidence_of(restart, "known")).orphans
    assert "its room is gone" in sentence
    assert judge(evidence_of(restart, "known", stopped=True)).broken == []
