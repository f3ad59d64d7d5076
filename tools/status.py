"""The facts about a stack, and the checks that judge the facts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from segments.api_answers import Whose, row_of
from tools.event_queue import Depth
from tools.event_source import EventSource
from tools.letters import Group
from tools.sweeping import Sweeping
from tools.times import readable_age

OLDEST_SECONDS = 120  # an older event is late, as in the alarm for the oldest message
HEARTBEAT_MS = 15 * 60_000  # three missing heartbeats, as in the heartbeat's alarm
OVERDUE_MS = 5 * 60_000  # in addition to the time of two rounds
MS_A_ROOM = 40  # of a round, at usually 30 requests per second
SECRET = ("SecretInvalid", "SecretUnavailable")
REFUSED = (Whose.KEY, Whose.ACCOUNT, Whose.DEPLOYMENT)  # by the API, whatever the message


class Verdict(StrEnum):
    """The result of a check. Only `WRONG` means that the stack has a problem."""

    WELL = "well"
    WRONG = "wrong"
    UNKNOWN = "unknown"
    WAITING = "waiting"  # an operator must act first, for example fill in the RTC key
    OFF = "off"


@dataclass(frozen=True)
class Finding:
    """The result of checking one part, with a short reason."""

    name: str
    verdict: Verdict
    word: str


@dataclass(frozen=True)
class Trouble:
    """The time and the cause of a failure."""

    at_ms: int
    code: str
    message: str

    def is_of(self, *parties: Whose) -> bool:
        """Return whether one of the given parties caused the failure."""
        row = row_of(self.code)
        whose = Whose.KEY if self.code in SECRET else row.whose if row else None
        return whose in parties


@dataclass(frozen=True)
class Named:
    """The state of a resource outside the stack: a secret (never its content), a bus or a topic.

    Parameters
    ----------
    trouble
        The problem of the resource. Empty if the resource has no problem.
    readable
        Whether the operator has permission to read the resource.
    """

    trouble: str = ""
    readable: bool = True


@dataclass(frozen=True)
class Facts:
    """The facts about a stack. Times are Unix ms, None is unknown.

    Parameters
    ----------
    defaults
        The parameters' default values.
    changed_at_ms
        When the stack was last deployed.
    event_source
        None if the event queue has no mapping.
    outcome_bus, alarm_topic
        None if the stack's parameter is empty.
    refusal
        The API's last refusal of the key, the account or the deployment, or the lack of a key in the secret. None if
        the API has served a later call.
    served
        Whether the API has served a call in the last day.
    oldest_seconds
        The age of the oldest event on the queue.
    letters_complete
        Whether all letters that were not hidden were read.
    ringing
        The alarms in state ALARM, by their names in template.yaml, each with its reason.
    heartbeat_ms
        When the last heartbeat succeeded.
    heartbeat_failure
        The cause of the heartbeat's last failure, if no heartbeat has succeeded since the failure.
    sweeping
        None if the sweeper is off.
    rejected_rooms, rejected_at_ms
        The number of rooms that the API rejected in the last sweep with rejections, and the time of that sweep.
    called_back_at_ms, refused_at_ms
        When the last callback was accepted, and when the last callback was refused.
    """

    now_ms: int
    parameters: Mapping[str, str]
    defaults: Mapping[str, str]
    changed_at_ms: int
    event_source: EventSource | None
    callback_key: Named | None
    queue: Depth
    oldest_seconds: float | None
    letters_hidden: int
    letters_complete: bool
    letters: Sequence[Group]
    ringing: Mapping[str, str]
    callback_url: str | None
    version: str | None
    outcome_bus: Named | None = None
    alarm_topic: Named | None = None
    refusal: Trouble | None = None
    served: bool = False
    heartbeat_ms: int | None = None
    heartbeat_failure: Trouble | None = None
    sweeping: Sweeping | None = None
    rejected_rooms: int = 0
    rejected_at_ms: int | None = None
    called_back_at_ms: int | None = None
    refused_at_ms: int | None = None

    def ago(self, time_ms: int) -> str:
        """Describe the age of a time in the past."""
        return readable_age(min(time_ms, self.now_ms), self.now_ms)  # the stack writes while it is read

    def length(self, length_ms: int) -> str:
        """Format a duration."""
        return readable_age(self.now_ms - length_ms, self.now_ms).removesuffix(" ago")


def judge(facts: Facts) -> list[Finding]:
    """Judge the facts, in the order of an event's path."""
    return [
        _version(facts),
        _mode(facts),
        _event_source(facts),
        _rtc_key(facts),
        _rtc_api(facts),
        _queue(facts),
        _letters(facts),
        _alarms(facts),
        _alarm_topic(facts),
        _heartbeat(facts),
        _sweeper(facts),
        _callbacks(facts),
        _outcome_bus(facts),
        _parameters(facts),
    ]


def is_well(findings: Sequence[Finding]) -> bool:
    """Return whether no finding is wrong."""
    return all(one.verdict is not Verdict.WRONG for one in findings)


def _version(facts: Facts) -> Finding:
    if facts.version is None:
        return Finding("version", Verdict.UNKNOWN, "the stack has no output Version")
    return Finding("version", Verdict.WELL, facts.version)


def _mode(facts: Facts) -> Finding:
    if facts.parameters.get("Mode") == "observe":
        return Finding("mode", Verdict.WELL, "observe: decisions are logged, nothing is stopped")
    return Finding("mode", Verdict.WELL, "stop")


def _event_source(facts: Facts) -> Finding:
    source = facts.event_source
    if source is None:
        return Finding(
            "mapping", Verdict.WRONG, "no mapping passes events from the queue to the stop function: deploy again"
        )
    if source.state == "Disabled":
        return Finding("mapping", Verdict.WRONG, "paused: no task is stopped until `stopper resume`")
    if source.state != "Enabled":
        return Finding("mapping", Verdict.UNKNOWN, f"{source.state}: run `stopper status` again in a minute")
    return Finding("mapping", Verdict.WELL, "enabled")


def _rtc_key(facts: Facts) -> Finding:
    """Judge the RTC key by its last use, without reading the key."""
    refusal = facts.refusal
    if refusal is not None and refusal.code in SECRET:
        word = f"{refusal.code} {facts.ago(refusal.at_ms)}: {refusal.message}"
        return Finding("RTC key", Verdict.WRONG, word)
    if refusal is not None and refusal.is_of(Whose.KEY):
        word = f"the API refused the key {facts.ago(refusal.at_ms)}: {refusal.code}, {refusal.message}"
        return Finding("RTC key", Verdict.WRONG, word)
    if facts.served:
        return Finding("RTC key", Verdict.WELL, "the API has served a call with the key in the last day")
    word = "no call has used the key in the last day: fill in the secret, and send an event or a heartbeat"
    return Finding("RTC key", Verdict.WAITING, word)


def _rtc_api(facts: Facts) -> Finding:
    refusal = facts.refusal
    if refusal is None or refusal.is_of(Whose.KEY):
        return Finding(
            "RTC API", Verdict.WELL, "the API has not refused the account or the endpoint in the last 15 minutes"
        )
    word = f"the API refused a call {facts.ago(refusal.at_ms)}: {refusal.code}, {refusal.message}"
    return Finding("RTC API", Verdict.WRONG, word)


def _named(name: str, named: Named, well: str) -> Finding:
    if not named.readable:
        return Finding(name, Verdict.UNKNOWN, f"you have no permission to read the {name}: {named.trouble}")
    return Finding(name, Verdict.WRONG, named.trouble) if named.trouble else Finding(name, Verdict.WELL, well)


def _queue(facts: Facts) -> Finding:
    held = f"{facts.queue.waiting} waiting, {facts.queue.in_work} in work"
    if not facts.queue.waiting:
        return Finding("event queue", Verdict.WELL, held)
    if facts.oldest_seconds is None:
        return Finding("event queue", Verdict.UNKNOWN, f"{held}, age unknown")
    late = facts.oldest_seconds >= OLDEST_SECONDS
    word = f"{held}, the oldest for {facts.oldest_seconds:.0f} s"
    return Finding("event queue", Verdict.WRONG if late else Verdict.WELL, word)


def _letters(facts: Facts) -> Finding:
    reasons = [f"{group.count} {group.kind} {group.code or ''}".rstrip() for group in facts.letters]
    if facts.letters_hidden:
        reasons.append(f"{facts.letters_hidden} held by another reader")
    if not facts.letters_complete:
        reasons.append("and more that could not be read")
    if not reasons:
        return Finding("dead letters", Verdict.WELL, "none")
    return Finding("dead letters", Verdict.WRONG, ", ".join(reasons))


def _alarms(facts: Facts) -> Finding:
    if not facts.ringing:
        return Finding("alarms", Verdict.WELL, "no alarm is on")
    return Finding("alarms", Verdict.WRONG, "; ".join(f"{name}: {reason}" for name, reason in facts.ringing.items()))


def _alarm_topic(facts: Facts) -> Finding:
    if facts.alarm_topic is None:
        return Finding("alarm topic", Verdict.OFF, "AlarmTopicArn is empty: no alarm notifies anyone")
    return _named("alarm topic", facts.alarm_topic, "it exists, and has a confirmed subscription")


def _heartbeat(facts: Facts) -> Finding:
    if not facts.parameters.get("HeartbeatAppId"):
        return Finding("heartbeat", Verdict.OFF, "HeartbeatAppId is empty")
    if facts.heartbeat_failure is not None:
        failure = facts.heartbeat_failure
        word = f"failed {facts.ago(failure.at_ms)}: {failure.code}, {failure.message}"
        return Finding("heartbeat", Verdict.WRONG, word)
    last_ms = facts.heartbeat_ms
    if last_ms is not None and facts.now_ms - last_ms < HEARTBEAT_MS:
        return Finding("heartbeat", Verdict.WELL, f"succeeded {facts.ago(last_ms)}")
    if last_ms is None and facts.now_ms - facts.changed_at_ms < HEARTBEAT_MS:
        return Finding("heartbeat", Verdict.UNKNOWN, "none since the deployment: one is sent every 5 minutes")
    since = "none yet" if last_ms is None else f"the last succeeded {facts.ago(last_ms)}"
    return Finding("heartbeat", Verdict.WRONG, f"{since}, and no later one arrived")


def _sweeper(facts: Facts) -> Finding:
    sweeping = facts.sweeping
    if sweeping is None:
        return Finding("sweeper", Verdict.OFF, "SweepMinutes is 0")
    more = "" if sweeping.counts_all else "more than "
    words = [f"{more}1 room watched" if sweeping.rooms == 1 else f"{more}{sweeping.rooms} rooms watched"]
    if sweeping.round_began_at_ms is None:
        verdict = Verdict.UNKNOWN if sweeping.rooms else Verdict.WELL
        return Finding("sweeper", verdict, f"{words[0]}; no room was checked yet")
    words.append(f"a round began {facts.ago(sweeping.round_began_at_ms)}")
    if sweeping.rooms and sweeping.round_ms is not None:
        words.append(f"the previous round took {facts.length(sweeping.round_ms)}")
    if (all_asked_ms := sweeping.all_asked_since_ms) is not None:
        words.append(f"no room has waited longer than {facts.length(facts.now_ms - all_asked_ms)}")
    if facts.rejected_at_ms is not None:
        words.append(f"{facts.rejected_rooms} rejected by the API {facts.ago(facts.rejected_at_ms)}")
    return Finding("sweeper", Verdict.WRONG if _is_late(facts, sweeping) else Verdict.WELL, "; ".join(words))


def _is_late(facts: Facts, sweeping: Sweeping) -> bool:
    """Return whether the next round of the sweeper is overdue."""
    if sweeping.open_since_ms is None or sweeping.round_began_at_ms is None:
        return False
    round_ms = max(
        60_000 * int(facts.parameters.get("SweepMinutes", "0")),
        sweeping.round_ms or 0,
        sweeping.rooms * MS_A_ROOM,
    )
    waits_since_ms = max(sweeping.round_began_at_ms, sweeping.open_since_ms)
    return facts.now_ms - waits_since_ms > 2 * round_ms + OVERDUE_MS


def _callbacks(facts: Facts) -> Finding:
    if facts.callback_url is None:
        return Finding("callbacks", Verdict.OFF, "CallbackSecretArn is empty")
    if facts.callback_key is not None:
        key = _named("callbacks", facts.callback_key, "")
        if key.verdict is Verdict.WRONG:
            return key
    taken_ms, refused_ms = facts.called_back_at_ms, facts.refused_at_ms
    if refused_ms is not None and (taken_ms is None or taken_ms < refused_ms):
        taken = (
            "none was accepted in the last day" if taken_ms is None else f"the last was accepted {facts.ago(taken_ms)}"
        )
        advice = f"Check that the console and the secret hold the same key: {facts.callback_url}"
        return Finding(
            "callbacks",
            Verdict.WRONG,
            f"refused {facts.ago(refused_ms)} for its signature, and {taken}. {advice}",
        )
    if taken_ms is None:
        return Finding("callbacks", Verdict.UNKNOWN, f"no callback arrived in the last day: {facts.callback_url}")
    return Finding("callbacks", Verdict.WELL, f"the last was accepted {facts.ago(taken_ms)}: {facts.callback_url}")


def _outcome_bus(facts: Facts) -> Finding:
    if facts.outcome_bus is None:
        return Finding("outcome bus", Verdict.OFF, "OutcomeEventBusName is empty")
    return _named("outcome bus", facts.outcome_bus, "it exists")


def _parameters(facts: Facts) -> Finding:
    changed = {name: value for name, value in facts.parameters.items() if value != facts.defaults.get(name)}
    shown = {
        name: f"...{value.split(':')[-1]}" if value.startswith("arn:") else value for name, value in changed.items()
    }
    word = ", ".join(f"{name}={value}" for name, value in sorted(shown.items()))
    return Finding("parameters", Verdict.WELL, word or "all have their default values")
