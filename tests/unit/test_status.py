"""`stopper status`: the verdicts on the facts about a stack."""

from dataclasses import replace
from typing import Any

import pytest

from segments.events import Room
from tools.event_queue import Depth
from tools.event_source import EventSource
from tools.letters import Group
from tools.status import Facts, Named, Trouble, Verdict, is_well, judge
from tools.sweeping import Sweeping

NOW_MS = 1_795_327_920_123
MINUTE_MS = 60_000
URL = "https://api.example/"
ROOMS = [Room("661e", f"room-{number}") for number in range(3)]
# A round that began 2 minutes ago has asked about all rooms.
SWEEPING = Sweeping(
    rooms=3,
    last_room=ROOMS[2],
    open_since_ms=NOW_MS - 600 * MINUTE_MS,
    place=ROOMS[2],
    round_began_at_ms=NOW_MS - 2 * MINUTE_MS,
    last_round_began_at_ms=NOW_MS - 7 * MINUTE_MS,
)
WELL = Facts(
    now_ms=NOW_MS,
    parameters={
        "Mode": "stop",
        "HeartbeatAppId": "661e",
        "SweepMinutes": "5",
        "MaxConcurrency": "7",
        "AlarmTopicArn": "arn:aws:sns:us-east-1:123456789012:alarms",
    },
    defaults={"Mode": "stop", "HeartbeatAppId": "", "SweepMinutes": "5", "MaxConcurrency": "5"},
    changed_at_ms=NOW_MS - 1_000 * MINUTE_MS,
    event_source=EventSource("1", "Enabled"),
    callback_key=Named(),
    queue=Depth(0, 1, 345_600),
    oldest_seconds=None,
    letters_hidden=0,
    letters_complete=True,
    letters=(),
    ringing={},
    callback_url=URL,
    version="0.3.0",
    outcome_bus=Named(),
    alarm_topic=Named(),
    served=True,
    heartbeat_ms=NOW_MS - 4 * MINUTE_MS,
    sweeping=SWEEPING,
    called_back_at_ms=NOW_MS - 2 * MINUTE_MS,
)
PARAMETERS = WELL.parameters


def failed(code: str, message: str) -> Trouble:
    return Trouble(NOW_MS - MINUTE_MS, code, message)


def round_began(minutes: int, **known: Any) -> Facts:
    """Return the facts with a round of that age, which began 5 minutes after the round before it."""
    began_ms = NOW_MS - minutes * MINUTE_MS
    times = {"round_began_at_ms": began_ms, "last_round_began_at_ms": began_ms - 5 * MINUTE_MS}
    return replace(WELL, sweeping=replace(SWEEPING, **times | known))


def test_a_stack_without_troubles_is_well() -> None:
    findings = judge(WELL)
    assert {one.verdict for one in findings} == {Verdict.WELL}
    assert is_well(findings)
    words = {one.name: one.word for one in findings}
    assert words["heartbeat"] == "succeeded 4 min ago"
    assert words["sweeper"] == (
        "3 rooms watched; a round began 2 min ago; the previous round took 5 min; no room has waited longer than 2 min"
    )
    assert words["parameters"] == "AlarmTopicArn=...alarms, HeartbeatAppId=661e, MaxConcurrency=7"


@pytest.mark.parametrize(
    ("name", "facts", "verdict", "word"),
    [
        ("version", replace(WELL, version=None), "unknown", "no output Version"),
        ("mode", replace(WELL, parameters={**PARAMETERS, "Mode": "observe"}), "well", "nothing is stopped"),
        ("mapping", replace(WELL, event_source=None), "wrong", "no mapping passes events"),
        ("mapping", replace(WELL, event_source=EventSource("1", "Disabled")), "wrong", "paused"),
        ("mapping", replace(WELL, event_source=EventSource("1", "Enabling")), "unknown", "Enabling"),
        ("RTC key", replace(WELL, served=False), "waiting", "fill in the secret"),
        (
            "RTC key",
            replace(WELL, served=False, refusal=failed("SecretInvalid", "it is empty")),
            "wrong",
            "SecretInvalid 60 s ago: it is empty",
        ),
        ("outcome bus", replace(WELL, outcome_bus=None), "off", "OutcomeEventBusName is empty"),
        ("outcome bus", replace(WELL, outcome_bus=Named("gone cannot be found")), "wrong", "gone cannot be found"),
        ("outcome bus", replace(WELL, outcome_bus=Named("AccessDenied", readable=False)), "unknown", "AccessDenied"),
        ("alarm topic", replace(WELL, alarm_topic=None), "off", "no alarm notifies anyone"),
        ("alarm topic", replace(WELL, alarm_topic=Named("it has none")), "wrong", "it has none"),
        (
            "RTC key",
            replace(WELL, refusal=failed("AccessDenied", "no policy")),
            "wrong",
            "the API refused the key 60 s ago: AccessDenied, no policy",
        ),
        (
            "RTC API",
            replace(WELL, refusal=failed("AccessDenied.RecordNotEnabled", "not enabled")),
            "wrong",
            "the API refused a call 60 s ago: AccessDenied.RecordNotEnabled, not enabled",
        ),
        ("event queue", replace(WELL, queue=Depth(5, 0, 60), oldest_seconds=119), "well", "the oldest for 119 s"),
        ("event queue", replace(WELL, queue=Depth(5, 0, 60), oldest_seconds=120), "wrong", "the oldest for 120 s"),
        ("event queue", replace(WELL, queue=Depth(5, 0, 60)), "unknown", "5 waiting, 0 in work, age unknown"),
        (
            "dead letters",
            replace(
                WELL, letters=[Group("exhausted", "Timeout", 2, NOW_MS, None), Group("died", None, 1, NOW_MS, None)]
            ),
            "wrong",
            "2 exhausted Timeout, 1 died",
        ),
        ("dead letters", replace(WELL, letters_hidden=4), "wrong", "4 held by another reader"),
        ("dead letters", replace(WELL, letters_complete=False), "wrong", "and more that could not be read"),
        ("alarms", replace(WELL, ringing={"DeadLettersAlarm": "1 of 1"}), "wrong", "DeadLettersAlarm: 1 of 1"),
        ("heartbeat", replace(WELL, parameters={}), "off", "HeartbeatAppId"),
        (
            "heartbeat",
            replace(WELL, heartbeat_failure=failed("Timeout", "no answer")),
            "wrong",
            "failed 60 s ago: Timeout, no answer",
        ),
        (
            "heartbeat",
            replace(WELL, heartbeat_ms=NOW_MS - 15 * MINUTE_MS),
            "wrong",
            "succeeded 15 min ago, and no later one",
        ),
        ("heartbeat", replace(WELL, heartbeat_ms=None), "wrong", "none yet"),
        (
            "heartbeat",
            replace(WELL, heartbeat_ms=None, changed_at_ms=NOW_MS - 14 * MINUTE_MS),
            "unknown",
            "none since the deployment",
        ),
        ("sweeper", replace(WELL, sweeping=None), "off", "SweepMinutes is 0"),
        ("sweeper", round_began(2, place=ROOMS[1]), "well", "no room has waited longer than 7 min"),
        ("sweeper", round_began(2, counts_all=False), "well", "more than 3 rooms watched"),
        (
            "sweeper",
            replace(WELL, rejected_rooms=2_000, rejected_at_ms=NOW_MS - 3 * MINUTE_MS),
            "well",
            "2000 rejected by the API 3 min ago",
        ),
        ("sweeper", round_began(15), "well", "a round began 15 min ago"),
        ("sweeper", round_began(16), "wrong", "a round began 16 min ago"),
        # For a day, no room was watched.
        ("sweeper", round_began(1_440, open_since_ms=NOW_MS - MINUTE_MS), "well", "a round began 24 h ago"),
        # The API's limit does not allow questions about so many rooms in 5 minutes.
        ("sweeper", round_began(130, rooms=100_000), "well", "100000 rooms watched"),
        ("sweeper", round_began(140, rooms=100_000), "wrong", "100000 rooms watched"),
        (
            "sweeper",
            replace(WELL, sweeping=Sweeping(1, last_room=ROOMS[0], open_since_ms=NOW_MS)),
            "unknown",
            "1 room watched; no room was checked yet",
        ),
        ("sweeper", replace(WELL, sweeping=Sweeping(0)), "well", "0 rooms watched"),
        ("callbacks", replace(WELL, callback_url=None), "off", "CallbackSecretArn"),
        ("callbacks", replace(WELL, callback_key=Named("the secret is empty")), "wrong", "the secret is empty"),
        ("callbacks", replace(WELL, called_back_at_ms=None), "unknown", "no callback arrived in the last day: " + URL),
        (
            "callbacks",
            replace(WELL, refused_at_ms=NOW_MS - MINUTE_MS),
            "wrong",
            "refused 60 s ago for its signature, and the last was accepted 2 min ago",
        ),
        ("callbacks", replace(WELL, refused_at_ms=NOW_MS - 3 * MINUTE_MS), "well", "the last was accepted 2 min ago"),
        ("parameters", replace(WELL, parameters=WELL.defaults), "well", "all have their default values"),
    ],
)
def test_a_check_has_its_verdict_and_no_other_check_is_wrong(name: str, facts: Facts, verdict: str, word: str) -> None:
    findings = judge(facts)
    (one,) = [one for one in findings if one.name == name]
    assert one.verdict == verdict
    assert word in one.word
    wrong = [one.name for one in findings if one.verdict is Verdict.WRONG]
    assert wrong == ([name] if verdict == "wrong" else [])
    assert is_well(findings) == (not wrong)
