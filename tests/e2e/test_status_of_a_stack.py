"""`stopper status` and `stopper callback test`: a working stack is well, and a broken part is wrong with its reason."""

import json
import re
from collections.abc import Callable, Iterator

import pytest

from sandbox.callbacks import SECRET_KEY, local
from sandbox.faults import LACK_POLICY, SERVICE_UNAVAILABLE
from sandbox.metrics import metrics_in
from sandbox.stack import Sandbox, sandbox, wait_for
from tests.e2e.deployed_alarm import Alarm
from tests.e2e.observer import APP_ID, Observer, Room, failing, now_ms
from tests.e2e.operator import run_tool

HEARTBEAT_ROOM = f"{APP_ID}#rtc-segment-stopper"


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    """Deploy a stack whose parts the tests break one after the other."""
    with sandbox({"HeartbeatAppId": APP_ID}, app_ids={APP_ID}) as running:
        yield running


def status(box: Sandbox) -> dict[str, tuple[str, str]]:
    """Return the verdict and the word of every check. The exit code and the overall verdict must agree with them."""
    done = run_tool(box, "status", "--output", "json")
    assert done.stdout, done.stderr
    report = json.loads(done.stdout)
    checks = {name: (one["verdict"], one["word"]) for name, one in report["checks"].items()}
    assert report["well"] == (not wrong(checks))
    assert done.returncode == (1 if wrong(checks) else 0)
    return checks


def wrong(checks: dict[str, tuple[str, str]]) -> list[str]:
    return [name for name, (verdict, _) in checks.items() if verdict == "wrong"]


def test_working_stack_is_well_and_unpublished_metrics_are_unknown(box: Sandbox) -> None:
    checks = status(box)
    assert wrong(checks) == []
    assert checks["mapping"] == ("well", "enabled")
    assert checks["RTC key"][0] == "waiting"  # nothing has used it yet
    assert checks["dead letters"] == ("well", "none")
    assert checks["callbacks"][0] == "unknown"
    assert "MaxReceiveCount=3" in checks["parameters"][1]
    assert "RtcQpsLimit" not in checks["parameters"][1]
    printed = run_tool(box, "status").stdout
    assert re.search(r"^mapping +well +enabled *$", printed, re.MULTILINE)
    assert "Nothing is wrong. Not known: " in printed


def test_key_without_its_policy_is_wrong_until_it_has_the_policy_and_loses_no_stop(
    box: Sandbox, observer: Observer, new_room: Callable[[], Room]
) -> None:
    rooms = [new_room() for _ in range(5)]
    for room in rooms:
        room.start("audio")
    with failing(box, LACK_POLICY):
        message_ids = box.send([room.event("RoomEnded", TaskId="audio") for room in rooms])
        for message_id in message_ids:
            assert observer.retried(message_id)["error_code"] == "LackPolicy"
        checks = status(box)
    assert wrong(checks) == ["RTC key"]
    assert re.match(
        r"the API refused the key .* ago: LackPolicy, the user of the key in the secret", checks["RTC key"][1]
    )

    def stopped() -> set[object]:
        return {line.get("room_id") for line in box.log_lines() if line.get("outcome") == "stopped"}

    wait_for(lambda: {room.id for room in rooms} <= stopped(), "the stops")  # of the messages or of their copies
    assert [room.id for room in rooms if room.is_running("audio")] == []
    assert box.dead_letters() == []
    assert wrong(status(box)) == []


def test_ringing_alarm_is_wrong(box: Sandbox, observer: Observer) -> None:
    alarm = Alarm(box, observer.resource("OrphansAlarm"))
    alarm.set_state("ALARM")
    checks = status(box)
    alarm.set_state("OK")
    assert checks["alarms"] == ("wrong", "OrphansAlarm: set by a test")
    assert wrong(checks) == ["alarms"]


class TestCallbacks:
    @staticmethod
    def run(box: Sandbox, *arguments: str) -> tuple[int, str]:
        url = local(box.aws, box.outputs["CallbackUrl"])
        done = run_tool(box, "callback", "test", *arguments, CALLBACK_URL=url)
        return done.returncode, done.stdout + done.stderr

    def test_signed_callback_is_served_and_a_forged_one_is_refused(self, box: Sandbox) -> None:
        began_ms = now_ms()
        code, printed = self.run(box)
        assert code == 0

        # `status` judges by the last callback, which must not be the forged one.
        def counted() -> list[str]:
            lines = box.log_lines("ReceiveCallbackLogGroup", since_ms=began_ms)
            names = [metric.name for line in lines for metric, _ in metrics_in(line)]
            return [name for name in names if name in ("CallbackRefused", "CallbackQueued")]

        assert wait_for(lambda: counted()[1:] and counted(), "both") == ["CallbackRefused", "CallbackQueued"]
        assert re.search(
            r"^GET +answered with 200, so the RTC console accepts the URL\n"
            r"signed +accepted and queued after [\d.]+ s\n"
            r"forged +refused with 401, as required\n"
            r"queue +the signed callback was processed, and the forged callback never arrived\n",
            printed,
            re.MULTILINE,
        )
        letters = box.dead_letters()
        assert [letter for letter in letters if "callback-test" in letter["Body"]] == []

    def test_empty_callback_secret_is_reported(self, box: Sandbox) -> None:
        secrets = box.client("secretsmanager")
        secrets.put_secret_value(SecretId="sandbox-callback", SecretString=" ")
        assert status(box)["callbacks"] == ("wrong", "the callback secret is empty")
        assert self.run(box) == (
            1,
            "Error: the callback secret is empty: write the callback key of the RTC console into it\n",
        )
        secrets.put_secret_value(SecretId="sandbox-callback", SecretString=SECRET_KEY)


class TestHeartbeat:
    @pytest.fixture
    def beat(self, box: Sandbox, observer: Observer) -> Callable[[], str]:
        """Return a function that sends the message of the deployed schedule and returns its id."""
        events = box.client("events")
        (target,) = events.list_targets_by_rule(Rule=observer.resource("HeartbeatSchedule"))["Targets"]
        assert target["Arn"] == box.outputs["EventQueueArn"]
        return lambda: box.send([target["Input"]])[0]

    def test_heartbeat_reaches_the_api_and_leaves_one_record_and_nothing_else(
        self, box: Sandbox, observer: Observer, beat: Callable[[], str]
    ) -> None:
        first = beat()
        assert observer.ends([first]) == {first: ["heartbeat"]}
        last = beat()
        assert observer.ends([last]) == {last: ["heartbeat"]}
        assert [key for key in box.records() if key[0] == HEARTBEAT_ROOM] == [(HEARTBEAT_ROOM, "heartbeat")]
        assert len(box.rtc.requests_for(APP_ID, "rtc-segment-stopper", "heartbeat")) == 2
        assert status(box)["heartbeat"][0] == "well"
        # An event of the heartbeat would arrive before that of a later stop.
        assert observer.end_of(Room(observer, "room-after").event("RoomEnded", TaskId="audio")) == ["already_stopped"]
        rooms = wait_for(lambda: [one["detail"].get("RoomId") for one in observer.outcome_events()], "the stop's event")
        assert "rtc-segment-stopper" not in rooms

    def test_failed_heartbeat_is_wrong_with_its_error_code(
        self, box: Sandbox, observer: Observer, beat: Callable[[], str]
    ) -> None:
        with failing(box, SERVICE_UNAVAILABLE):
            message_id = beat()
            observer.retried(message_id)
            checks = status(box)
        assert checks["heartbeat"][0] == "wrong"
        assert "ServiceUnavailable" in checks["heartbeat"][1]
        wait_for(lambda: observer.ends([beat()]) and status(box)["heartbeat"][0] == "well", "a heartbeat that is well")
