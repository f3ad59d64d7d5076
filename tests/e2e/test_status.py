"""`python -m tools status`: green where it works, and red with the right word where a piece is broken."""

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.callbacks import local
from sandbox.stack import Sandbox, sandbox
from tests.e2e.deployed_alarm import Alarm
from tests.e2e.observer import APP_ID, Observer
from tests.e2e.operator import run_tool


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    """Deploy a stack whose pieces are broken, one after the other."""
    with sandbox(app_ids={APP_ID}) as running:
        yield running


def status(box: Sandbox) -> dict[str, tuple[str, str]]:
    """Give verdict and word of every check; see that exit code and last word are what they come to."""
    done = run_tool(box, "status", "--output", "json")
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
    assert checks["RTC key"] == ("well", "the secret is filled in")
    assert checks["dead letters"] == ("well", "none")
    assert checks["callbacks"][0] == "unknown"
    assert "MaxReceiveCount=3" in checks["parameters"][1]
    assert "RtcQpsLimit" not in checks["parameters"][1]
    told = run_tool(box, "status").stdout
    assert re.search(r"^mapping +well +enabled *$", told, re.MULTILINE)
    assert "Nothing is wrong. Not known: " in told


def test_pause_turns_it_red(box: Sandbox) -> None:
    assert run_tool(box, "pause").returncode == 0
    assert status(box)["mapping"] == ("wrong", "paused: nothing is stopped until `resume`")
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


def test_empty_secrets_turn_it_red(box: Sandbox) -> None:
    with secret_of(box, box.outputs["RtcCredentialsSecretArn"], '{"AccessKeyId": "", "SecretAccessKey": ""}'):
        checks = status(box)
    assert wrong(checks) == ["RTC key"]
    assert checks["RTC key"][1].startswith("SecretInvalid: ")
    with secret_of(box, "sandbox-callback", " "):
        assert status(box)["callbacks"] == ("wrong", "the callback secret is empty")


def test_dead_letters_turn_it_red_by_their_reasons_and_stay_where_they_are(box: Sandbox, observer: Observer) -> None:
    for body in ("not JSON", "not JSON", "[]"):
        assert observer.end_of(body) == ["invalid_message"]
    told = ("wrong", "2 invalid_message NotJson, 1 invalid_message NotAnObject")
    assert status(box)["dead letters"] == told
    assert status(box)["dead letters"] == told
    assert len(box.dead_letters()) == 3


def test_an_alarm_that_rings_turns_it_red(box: Sandbox, observer: Observer) -> None:
    alarm = Alarm(box, observer.resource("NoTasksAlarm"))
    alarm.set_state("ALARM")
    checks = status(box)
    alarm.set_state("OK")
    assert checks["alarms"] == ("wrong", "NoTasksAlarm: a test wants it so")
    assert wrong(checks) == ["alarms"]


class TestCallbacks:
    @staticmethod
    def run(box: Sandbox, *arguments: str) -> tuple[int, str]:
        url = local(box.aws, box.outputs["CallbackUrl"])
        done = run_tool(box, "callback", "test", *arguments, CALLBACK_URL=url)
        return done.returncode, done.stdout + done.stderr

    def test_a_signed_one_comes_out_of_the_queue_and_a_forged_one_is_refused(self, box: Sandbox) -> None:
        code, told = self.run(box)
        assert code == 0
        assert re.search(
            r"^signed +taken and queued after [\d.]+ s\n"
            r"forged +refused with 401, as it must be\n"
            r"queue +the signed one came out of it and was served; the forged one never reached it\n",
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
        assert answer["queue"]["word"] == "neither reached it"

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
