"""The RTC key in Secrets Manager, read by one thread or by many."""

import threading
import traceback
from collections.abc import Callable
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
from botocore.exceptions import ClientError

from sandbox.embedded_aws import EmbeddedAws
from segments.credentials import Credentials, Key
from segments.errors import CredentialsRefused
from tests.environments import RTC_KEY, hooked
from tests.integration.conftest import Secret

OLD, NEW = RTC_KEY, {"AccessKeyId": "AKLT-new", "SecretAccessKey": "s3cr3t-new"}
OLD_KEY = Key("AKLT-one", "s3cr3t-one")
NEW_KEY = Key("AKLT-new", "s3cr3t-new")


def at_once(call: Callable[[], object]) -> None:
    """Make a call in 16 threads, and wait for all of them."""
    threads = [threading.Thread(target=call) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def refusal(credentials: Credentials) -> CredentialsRefused:
    with pytest.raises(CredentialsRefused) as raised:
        credentials.current()
    return raised.value


def test_a_key_never_shows_in_a_text() -> None:
    key = Key("AKLT-one", "s3cr3t-one", "t0ken")
    assert repr(key) == str(key) == f"{key}" == "Key()"


@pytest.mark.parametrize(
    "content",
    [
        '{"AccessKeyId": "AKLT", "SecretAccessKey": "s3cr3t',
        ["AKLT", "s3cr3t"],
        "null",
        {"SecretAccessKey": "s3cr3t"},
        {"AccessKeyId": "AKLT", "SecretAccessKey": ""},
        {"AccessKeyId": 5, "SecretAccessKey": "s3cr3t"},
        {"AccessKeyId": "AKLT", "SecretAccessKey": "s3cr3t", "SessionToken": None},
        {"accessKeyId": "AKLT", "secretAccessKey": "s3cr3t"},
        {"AccessKeyId": "AKLT", "SecretAccessKey": "s3cr3t\r\nX-Header: x"},
        {"AccessKeyId": "AKLT", "SecretAccessKey": " s3cr3t"},
        {"AccessKeyId": "AKLT", "SecretAccessKey": "s3cr3t\u00e9"},
        {"AccessKeyId": "AKLT", "SecretAccessKey": "s3cr3t", "SessionToken": "t0ken\n"},
        pytest.param("[" * 60_000, id="deep list"),
    ],
)
def test_an_error_about_a_secret_without_a_key_does_not_show_the_secret(secret: Secret, content: object) -> None:
    secret.put(content)
    error = refusal(secret.credentials)
    assert error.code == "SecretInvalid"
    shown = repr(error) + "".join(traceback.format_exception(error))
    assert not any(part in shown for part in ("s3cr3t", "AKLT"))


def test_a_missing_secret_is_retried(secret: Secret) -> None:
    error = refusal(Credentials(secret.client, secret.arn + "gone", lambda: 0.0))
    assert str(error) == "SecretUnavailable: the RTC secret cannot be read, check it: ResourceNotFoundException"


def test_an_error_about_the_kms_key_of_the_secret_names_it() -> None:
    # The Secrets Manager User Guide, "Troubleshoot", has this error of a role without kms:Decrypt, which the embedded
    # AWS does not check.
    said = {"Code": "AccessDeniedException", "Message": "Access to KMS is not allowed"}
    refused = ClientError({"Error": said}, "GetSecretValue")  # type: ignore[typeddict-item]
    client = SimpleNamespace(get_secret_value=Mock(side_effect=refused))
    error = refusal(Credentials(client, "rtc", lambda: 0.0))  # type: ignore[arg-type]
    assert (
        error.message == "the RTC secret cannot be read, check it: AccessDeniedException for the KMS key of the secret"
    )


def test_a_secrets_manager_that_does_not_answer_is_retried(aws_away: EmbeddedAws) -> None:
    error = refusal(Credentials(aws_away.client("secretsmanager"), "rtc", lambda: 0.0))
    assert error.message == "the RTC secret cannot be read, check it: EndpointConnectionError"


def test_the_key_is_read_again_every_five_minutes(secret: Secret) -> None:
    assert secret.credentials.current() == OLD_KEY
    secret.put(NEW)
    keys = []
    for seconds in (299.9, 0.1, 299.9):
        secret.now += seconds
        keys.append(secret.credentials.current())
    assert keys == [OLD_KEY, NEW_KEY, NEW_KEY]
    assert secret.reads == 2


class TestFailedReads:
    def test_a_secret_without_a_key_is_read_again_at_most_once_a_minute(self, secret: Secret) -> None:
        secret.put({})
        for seconds in (0, 1, 58.9):
            secret.now += seconds
            assert refusal(secret.credentials).code == "SecretInvalid"
        assert secret.reads == 1
        secret.put(OLD)
        secret.now += 0.1
        assert secret.credentials.current() == OLD_KEY
        assert secret.reads == 2

    @pytest.mark.parametrize("trouble", ["deleted", "emptied"])
    def test_an_old_key_is_kept_while_the_secret_holds_none(self, secret: Secret, trouble: str) -> None:
        assert secret.credentials.current() == OLD_KEY
        if trouble == "deleted":
            secret.client.delete_secret(SecretId=secret.arn, ForceDeleteWithoutRecovery=True)
        else:
            secret.put({})
        reads = []
        for seconds in (300, 59.9, 0.1):
            secret.now += seconds
            assert secret.credentials.current() == OLD_KEY
            reads.append(secret.reads)
        assert reads == [2, 2, 3]

    def test_the_secret_is_read_again_at_once_if_secrets_manager_did_not_answer(
        self, secret: Secret, aws_away: EmbeddedAws
    ) -> None:
        credentials = Credentials(aws_away.client("secretsmanager"), secret.arn, lambda: secret.now)
        refusal(credentials)
        credentials._secrets_manager = secret.client
        assert credentials.current() == OLD_KEY

    def test_callers_that_wait_for_a_read_that_fails_share_its_error(self, secret: Secret) -> None:
        def read_slowly(**_: object) -> None:
            all_ask.wait()
            secret.now += 7

        class Clock:
            """Lets the first read go on once all threads have asked for the time."""

            asked = 0

            def __call__(self) -> float:
                self.asked += 1
                if self.asked == 16:
                    all_ask.set()
                return secret.now

        all_ask = threading.Event()
        credentials = Credentials(secret.client, secret.arn + "gone", Clock())
        with hooked(secret.client, "provide-client-params.secretsmanager.GetSecretValue", read_slowly):
            at_once(lambda: refusal(credentials))
        assert secret.now == 1_007


class TestRenewal:
    def test_the_secret_is_read_again_at_most_once_a_minute(self, secret: Secret) -> None:
        refused = secret.credentials.current()
        reads = []
        for seconds in (0, 0, 1, 58.9, 0.1, 59.9, 0.1):
            secret.now += seconds
            assert not secret.credentials.renewed(refused)
            reads.append(secret.reads)
        assert reads == [2, 2, 2, 2, 3, 3, 4]
        secret.put(NEW)
        assert not secret.credentials.renewed(refused)
        secret.now += 60
        assert secret.credentials.renewed(refused)

    def test_one_read_serves_all_threads_whose_key_was_refused(self, secret: Secret) -> None:
        refused = secret.credentials.current()
        secret.put(NEW)
        answers: list[bool] = []
        at_once(lambda: answers.append(secret.credentials.renewed(refused)))
        assert answers == [True] * 16
        assert secret.reads == 2
