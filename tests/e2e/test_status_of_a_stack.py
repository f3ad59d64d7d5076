"""`stopper status`: well for a working stack, and wrong with the right word for each broken part."""

import contextlib
import json
import re
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from sandbox.callbacks import local
from sandbox.faults import FOREIGN_APP, LACK_POLICY, SERVICE_UNAVAILABLE
from sandbox.metrics import metrics_in
from sandbox.stack import Sandbox, sandbox, wait_for
from tests.e2e.deployed_alarm import Alarm
from tests.e2e.observer import APP_ID, Observer, Room, now_ms, rfc3339
from tests.e2e.operator import run_tool

HEARTBEAT_ROOM = f"{APP_ID}#rtc-segment-stopper"


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    """Deploy a stack to break its parts, one after the other."""
    with sandbox({"HeartbeatAppId": APP_ID}, app_ids={APP_ID}) as running:
        yield running


def status(box: Sandbox) -> dict[str, tuple[str, str]]:
    """Give verdict and word of every check; see that exit code and last word are what they come to."""
    done = run_tool(box, "status", "--output", "json")
    assert done.stdout, done.stderr
    told = json.loads(done.stdout)
    checks = {name: (one["verdict"], one["word"]) for name, one in told["checks"].items()}
    assert told["well"] == (not wrong(checks))
    assert done.returncode == (1 if wrong(checks) else 0)
    return checks


def wrong(checks: dict[str, tuple[str, str]]) -> list[str]:
    return [name for name, (verdict, _) in checks.items() if verdict == "wrong"]


def test_a_stack_that_works_is_well_and_what_is_not_published_is_unknown(box: Sandbox) -> None:
    checks = status(box)
    assert wrong(checks) == []
    assert checks["mapping"] == ("well", "enabled")
    assert checks["RTC key"][0] == "waiting"  # nothing has used it yet
    assert checks["dead letters"] == ("well", "none")
    assert checks["callbacks"][0] == "unknown"
    assert "MaxReceiveCount=3" in checks["parameters"][1]
    assert "RtcQpsLimit" not in checks["parameters"][1]
    told = run_tool(box, "status").stdout
    assert re.search(r"^mapping +well +enabled *$", told, re.MULTILINE)
    assert "Nothing is wrong. Not known: " in told


def test_pause_turns_it_red(box: Sandbox) -> None:
    assert run_tool(box, "pause").returncode == 0
    assert status(box)["mapping"] == ("wrong", "paused: no task is stopped until `stopper resume`")
    assert "Not well: mapping." in run_tool(box, "status").stdout
    assert run_tool(box, "resume").returncode == 0
    assert wrong(status(box)) == []


@contextlib.contextmanager
def secret_of(box: Sandbox, secret_id: str, content: str) -> Iterator[None]:
    client = box.client("secretsmanager")
    before = client.get_secret_value(SecretId=secret_id)["SecretString"]
    client.put_secret_value(SecretId=secret_id, SecretString=content)
    try:
        yield
    finally:
        client.put_secret_value(SecretId=secret_id, SecretString=before)


def wait_until_stopped(box: Sandbox, rooms: Collection[Room]) -> None:
    """Wait until a task of each room is stopped, by the message or by a later copy: chance says how soon it comes."""

    def going_on() -> set[str]:
        stopped = {line.get("room_id") for line in box.log_lines() if line.get("outcome") == "stopped"}
        return {room.id for room in rooms} - stopped

    wait_for(lambda: not going_on(), "the stops")


def test_empty_secrets_turn_it_red(box: Sandbox, observer: Observer, room: Room) -> None:
    room.start("audio")
    with secret_of(box, box.outputs["RtcCredentialsSecretArn"], '{"AccessKeyId": "", "SecretAccessKey": ""}'):
        observer.renew_function("StopSegmentFunction")
        (message_id,) = box.send([room.event("RoomEnded", TaskId="audio")])
        assert observer.retried(message_id)["error_code"] == "SecretInvalid"
        checks = status(box)
    assert wrong(checks) == ["RTC key"]
    assert checks["RTC key"][1].startswith("SecretInvalid ")
    observer.renew_function("StopSegmentFunction")  # its environments read a secret without a key once a minute
    wait_until_stopped(box, [room])
    assert status(box)["RTC key"][0] == "well"
    with secret_of(box, "sandbox-callback", " "):
        assert status(box)["callbacks"] == ("wrong", "the callback secret is empty")


def test_a_key_without_its_policy_loses_nothing_and_turns_it_red_until_the_policy_is_back(
    box: Sandbox, observer: Observer, new_room: Callable[[], Room]
) -> None:
    rooms = [new_room() for _ in range(5)]
    for room in rooms:
        room.start("audio")
    box.rtc.fail(LACK_POLICY)
    try:
        message_ids = box.send([room.event("RoomEnded", TaskId="audio") for room in rooms])
        for message_id in message_ids:
            assert observer.retried(message_id)["error_code"] == "LackPolicy"
        checks = status(box)
    finally:
        box.rtc.heal()
    assert wrong(checks) == ["RTC key"]
    assert re.match(r"the API refused it .* ago: LackPolicy, the user of the key in the secret", checks["RTC key"][1])
    wait_until_stopped(box, rooms)
    assert [room.id for room in rooms if room.is_running("audio")] == []
    assert box.dead_letters() == []
    assert wrong(status(box)) == []


def test_a_foreign_app_is_one_request_and_one_letter_and_nothing_is_said_of_the_key(
    box: Sandbox, observer: Observer, room: Room
) -> None:
    began_ms = now_ms()
    box.rtc.fail(FOREIGN_APP, task=(APP_ID, room.id, "audio"))
    try:
        (message_id,) = box.send([room.event("RoomEnded", TaskId="audio")])
        assert observer.ends([message_id]) == {message_id: ["rejected"]}
    finally:
        box.rtc.heal()
    assert len(room.requests()) == 1
    assert observer.letter(message_id).attributes["ErrorCode"] == "AccessDenied.NoPermissionForApp"
    checks = status(box)
    assert checks["RTC key"][0] != "wrong"
    assert checks["RTC API"][0] == "well"
    counted = {metric.name for line in box.log_lines(since_ms=began_ms) for metric, _ in metrics_in(line)}
    assert "Rejected" in counted
    assert "CredentialsRefused" not in counted


def test_dead_letters_turn_it_red_by_their_reasons_and_stay_where_they_are(box: Sandbox, observer: Observer) -> None:
    for body in ("not JSON", "not JSON", "[]"):
        assert observer.end_of(body) == ["invalid_message"]
    told = ("wrong", "2 invalid_message NotJson, 1 invalid_message NotAnObject")
    assert status(box)["dead letters"] == told
    assert status(box)["dead letters"] == told
    assert len(box.dead_letters()) == 3


def test_an_alarm_that_rings_turns_it_red(box: Sandbox, observer: Observer) -> None:
    alarm = Alarm(box, observer.resource("OrphansAlarm"))
    alarm.set_state("ALARM")
    checks = status(box)
    alarm.set_state("OK")
    assert checks["alarms"] == ("wrong", "OrphansAlarm: a test wants it so")
    assert wrong(checks) == ["alarms"]


class TestCallbacks:
    @staticmethod
    def run(box: Sandbox, *arguments: str) -> tuple[int, str]:
        url = local(box.aws, box.outputs["CallbackUrl"])
        done = run_tool(box, "callback", "test", *arguments, CALLBACK_URL=url)
        return done.returncode, done.stdout + done.stderr

    def test_a_signed_one_comes_out_of_the_queue_and_a_forged_one_is_refused(self, box: Sandbox) -> None:
        began_ms = now_ms()
        code, told = self.run(box)
        assert code == 0

        # `status` believes the last callback, which must not be the test's own forgery.
        def counted() -> list[str]:
            lines = box.log_lines("ReceiveCallbackLogGroup", since_ms=began_ms)
            names = [metric.name for line in lines for metric, _ in metrics_in(line)]
            return [name for name in names if name in ("CallbackRefused", "CallbackQueued")]

        assert wait_for(lambda: counted()[1:] and counted(), "both") == ["CallbackRefused", "CallbackQueued"]
        assert re.search(
            r"^GET +answered with 200, so the RTC console accepts the URL\n"
            r"signed +accepted and queued after [\d.]+ s\n"
            r"forged +refused with 401, as required\n"
            r"queue +the signed one was served; the forged one never reached it\n",
            told,
            re.MULTILINE,
        )
        letters = box.dead_letters()
        assert [letter for letter in letters if "callback-test" in letter["Body"]] == []

    def test_a_key_that_was_changed_on_one_side_is_told(self, box: Sandbox, tmp_path: Path) -> None:
        (tmp_path / "key.txt").write_text("the key of the console\n")
        code, told = self.run(box, "--key-file", str(tmp_path / "key.txt"), "--output", "json")
        answer = json.loads(told)
        assert (code, answer["well"], answer["signed"]["status"]) == (1, False, 401)
        assert "this key is not the one in the secret" in answer["signed"]["word"]
        assert answer["queue"]["word"] == "neither callback reached it"

    def test_an_empty_secret_is_told(self, box: Sandbox) -> None:
        with secret_of(box, "sandbox-callback", " "):
            assert self.run(box) == (1, "Error: there is no callback key: the file or the secret is empty\n")

    def test_throttling_is_told(self, box: Sandbox, observer: Observer) -> None:
        client, name = box.client("lambda"), observer.resource("ReceiveCallbackFunction")
        client.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=0)
        try:
            code, told = self.run(box)
        finally:
            client.delete_function_concurrency(FunctionName=name)
        assert code == 1
        assert "signed   429: throttled" in told
        assert "forged   429, not 401" in told


class TestHeartbeat:
    @pytest.fixture
    def beat(self, box: Sandbox, observer: Observer) -> Callable[[], str]:
        """Send the deployed schedule's message; return its id."""
        events = box.client("events")
        (target,) = events.list_targets_by_rule(Rule=observer.resource("HeartbeatSchedule"))["Targets"]
        assert target["Arn"] == box.outputs["EventQueueArn"]
        return lambda: box.send([target["Input"]])[0]

    def test_it_goes_all_the_way_and_leaves_one_record_and_no_other_trace(
        self, box: Sandbox, observer: Observer, beat: Callable[[], str]
    ) -> None:
        first = beat()
        assert observer.ends([first]) == {first: ["heartbeat"]}
        last = beat()
        assert observer.ends([last]) == {last: ["heartbeat"]}
        assert [key for key in box.records() if key[0] == HEARTBEAT_ROOM] == [(HEARTBEAT_ROOM, "heartbeat")]
        assert len(box.rtc.requests_for(APP_ID, "rtc-segment-stopper", "heartbeat")) == 2
        assert status(box)["heartbeat"][0] == "well"
        # A stop is published after it, so a heartbeat would have been published by then.
        assert observer.end_of(Room(observer, "room-after").event("RoomEnded", TaskId="audio")) == ["already_stopped"]
        told = wait_for(lambda: [one["detail"].get("RoomId") for one in observer.outcome_events()], "the stop's event")
        assert "rtc-segment-stopper" not in told

    def test_where_none_arrives_any_more_it_is_told_since_when(
        self, box: Sandbox, observer: Observer, beat: Callable[[], str]
    ) -> None:
        observer.ends([beat()])
        with denied(box):
            with pytest.raises(ClientError, match="AccessDenied"):
                beat()
            put_back_the_last_heartbeat(box, minutes=16)
            checks = status(box)
        word = "the last succeeded 16 min ago, and no later one arrived"
        assert checks["heartbeat"] == ("wrong", word)
        observer.ends([beat()])
        assert status(box)["heartbeat"][0] == "well"

    @pytest.mark.parametrize("trouble", ["wrong key", "no table", "API down"])
    def test_what_breaks_it_is_told_by_its_name(
        self, box: Sandbox, observer: Observer, beat: Callable[[], str], trouble: str
    ) -> None:
        with TROUBLES[trouble](box, observer):
            message_id = beat()
            observer.retried(message_id)
            checks = status(box)
        assert checks["heartbeat"][0] == "wrong"
        assert WORDS[trouble] in checks["heartbeat"][1]
        wait_for(lambda: observer.ends([beat()]) and status(box)["heartbeat"][0] == "well", "a heartbeat that is well")


@contextlib.contextmanager
def wrong_key(box: Sandbox, _: Observer) -> Iterator[None]:
    known, box.rtc.secrets = box.rtc.secrets, {}
    try:
        yield
    finally:
        box.rtc.secrets = known


@contextlib.contextmanager
def api_down(box: Sandbox, _: Observer) -> Iterator[None]:
    box.rtc.fail(SERVICE_UNAVAILABLE)
    try:
        yield
    finally:
        box.rtc.heal()


def no_table(_: Sandbox, observer: Observer) -> contextlib.AbstractContextManager[None]:
    return observer.without_permission("StopSegmentRole", "RememberTasks")


TROUBLES: dict[str, Callable[[Sandbox, Observer], contextlib.AbstractContextManager[None]]] = {
    "wrong key": wrong_key,
    "no table": no_table,
    "API down": api_down,
}
WORDS = {"wrong key": "InvalidAccessKey", "no table": "TableAccessDenied", "API down": "ServiceUnavailable"}


@contextlib.contextmanager
def denied(box: Sandbox) -> Iterator[None]:
    """Forbid everybody to send to the event queue."""
    sqs, queue = box.client("sqs"), box.outputs["EventQueueUrl"]
    before = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["Policy"])["Attributes"]["Policy"]
    policy = json.loads(before)
    policy["Statement"].append(
        {"Effect": "Deny", "Principal": "*", "Action": "sqs:SendMessage", "Resource": box.outputs["EventQueueArn"]}
    )
    sqs.set_queue_attributes(QueueUrl=queue, Attributes={"Policy": json.dumps(policy)})
    try:
        yield
    finally:
        sqs.set_queue_attributes(QueueUrl=queue, Attributes={"Policy": before})


def put_back_the_last_heartbeat(box: Sandbox, *, minutes: int) -> None:
    """Let the last heartbeat have been so long ago, instead of waiting."""
    box.client("dynamodb").update_item(
        TableName=box.outputs["SegmentTableName"],
        Key={"room": {"S": HEARTBEAT_ROOM}, "task_id": {"S": "heartbeat"}},
        UpdateExpression="SET stopped_at = :then",
        ExpressionAttributeValues={":then": {"N": str(now_ms() - minutes * 60_000)}},
    )


class TestObserving:
    def test_of_1000_events_none_stops_anything_until_the_mode_is_stop(self, box: Sandbox, observer: Observer) -> None:
        rooms = [Room(observer, f"observed-{number}") for number in range(400)]
        starts = [room.event("SegmentStarted", TaskId="audio") for room in rooms]
        sightings = [room.event("SegmentRealTimeData", TaskId="screen") for room in rooms]
        for room in rooms:
            room.start("audio", "screen")
        observer.renew_function("StopSegmentFunction", MODE="observe")
        try:
            box.send(starts + sightings)
            wait_for(lambda: box.undone() == 0, "the tasks to be known")
            ended = rooms[:100]
            stops = [room.event("ModerationViolation", TaskId="audio", EventTime=rfc3339(now_ms())) for room in ended]
            ends = [room.event("RoomEnded", EventTime=rfc3339(now_ms())) for room in ended]
            message_ids = box.send(stops + ends)
            outcomes = observer.ends(message_ids)
        finally:
            observer.renew_function("StopSegmentFunction", MODE="stop")
        assert [outcomes[message_id] for message_id in message_ids] == [
            *[["would_stop"]] * 100,
            *[["would_stop", "would_stop"]] * 100,
        ]
        assert box.rtc.requests_for(APP_ID, action="StopSegment") == [
            request for request in box.rtc.requests_for(APP_ID) if not request.task[1].startswith("observed-")
        ]
        (mode,) = {line["mode"] for line in box.log_lines() if line.get("message_id") in message_ids}
        assert mode == "observe"
        observed = {key: item for key, item in box.records().items() if key[0].startswith(f"{APP_ID}#observed-")}
        assert not [key for key, item in observed.items() if "outcome" in item or "stopped_at" in item]

        box.send(stops + ends)
        wait_for(lambda: box.undone() == 0, "the same events to be served in earnest", seconds=120)
        assert [room.id for room in ended if room.is_running("audio") or room.is_running("screen")] == []
        assert all(room.is_running("audio") and room.is_running("screen") for room in rooms[100:])
