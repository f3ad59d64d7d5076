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
    """Make a call in 16 threads, and wait for their ends."""
    threads = [threading.Thread(target=call) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def told(error: BaseException) -> str:
    """Return all that a log may hold of an error."""
    return repr(error) + "".join(traceback.format_exception(error))


def test_a_temporary_key_has_its_session_token(secret: Secret) -> None:
    secret.put(OLD | {"SessionToken": "t0ken", "Note": "keys that nobody knows are ignored"})
    assert secret.credentials.current() == Key("AKLT-one", "s3cr3t-one", "t0ken")


def test_a_key_shows_itself_in_no_text() -> None:
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
def test_a_secret_without_a_key_is_named_and_not_shown(secret: Secret, content: object) -> None:
    secret.put(content)
    with pytest.raises(CredentialsRefused) as raised:
        secret.credentials.current()
    assert raised.value.code == "SecretInvalid"
    assert not any(part in told(raised.value) for part in ("s3cr3t", "AKLT"))


def test_a_missing_secret_is_trouble_that_may_pass(secret: Secret) -> None:
    credentials = Credentials(secret.client, secret.arn + "gone", lambda: 0.0)
    with pytest.raises(CredentialsRefused) as raised:
        credentials.current()
    assert raised.value.code == "SecretUnavailable"
    assert raised.value.message == "the secret cannot be read: ResourceNotFoundException"


def test_a_kms_key_that_refuses_is_named() -> None:
    # Secrets Manager User Guide, "Troubleshoot": so it says for a role without kms:Decrypt. Embedded AWS asks no key.
    said = {"Code": "AccessDeniedException", "Message": "Access to KMS is not allowed"}
    refused = ClientError({"Error": said}, "GetSecretValue")  # type: ignore[typeddict-item]
    client = SimpleNamespace(get_secret_value=Mock(side_effect=refused))
    with pytest.raises(CredentialsRefused) as raised:
        Credentials(client, "rtc", lambda: 0.0).current()  # type: ignore[arg-type]
    assert raised.value.message == ("the secret cannot be read: AccessDeniedException, of the KMS key that encrypts it")


def test_a_secrets_manager_that_does_not_answer_is_trouble_that_may_pass(aws_away: EmbeddedAws) -> None:
    with pytest.raises(CredentialsRefused) as raised:
        Credentials(aws_away.client("secretsmanager"), "rtc", lambda: 0.0).current()
    assert raised.value.message == "the secret cannot be read: EndpointConnectionError"


def test_the_key_is_read_again_every_five_minutes(secret: Secret) -> None:
    assert secret.credentials.current() == OLD_KEY
    secret.put(NEW)
    keys = []
    for seconds in (299.9, 0.1, 299.9):
        secret.now += seconds
        keys.append(secret.credentials.current())
    assert keys == [OLD_KEY, NEW_KEY, NEW_KEY]
    assert secret.reads == 2


class TestTrouble:
    def test_a_secret_without_a_key_is_read_afresh_at_most_once_a_minute(self, secret: Secret) -> None:
        secret.put({})
        for seconds in (0, 1, 58.9):
            secret.now += seconds
            with pytest.raises(CredentialsRefused) as raised:
                secret.credentials.current()
            assert raised.value.code == "SecretInvalid"
        assert secret.reads == 1
        secret.put(OLD)
        secret.now += 0.1
        assert secret.credentials.current() == OLD_KEY
        assert secret.reads == 2

    @pytest.mark.parametrize("trouble", ["deleted", "emptied"])
    def test_an_old_key_is_better_than_none(self, secret: Secret, trouble: str) -> None:
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

    def test_secrets_manager_is_asked_again_at_once_where_it_gave_no_key(
        self, secret: Secret, aws_away: EmbeddedAws
    ) -> None:
        credentials = Credentials(aws_away.client("secretsmanager"), secret.arn, lambda: secret.now)
        with pytest.raises(CredentialsRefused):
            credentials.current()
        credentials._secrets_manager = secret.client
        assert credentials.current() == OLD_KEY

    def test_those_who_wait_for_a_reading_in_vain_share_its_end(self, secret: Secret) -> None:
        def read_slowly(**_: object) -> None:
            all_ask.wait()
            secret.now += 7

        def ask() -> None:
            with pytest.raises(CredentialsRefused):
                credentials.current()

        class Clock:
            """Returns when all have asked."""

            asked = 0

            def __call__(self) -> float:
                self.asked += 1
                if self.asked == 16:
                    all_ask.set()
                return secret.now

        all_ask = threading.Event()
        credentials = Credentials(secret.client, secret.arn + "gone", Clock())
        with hooked(secret.client, "provide-client-params.secretsmanager.GetSecretValue", read_slowly):
            at_once(ask)
        assert secret.now == 1_007


class TestRenewal:
    def test_a_refused_key_is_replaced_by_the_secrets_new_one(self, secret: Secret) -> None:
        refused = secret.credentials.current()
        secret.put(NEW)
        assert secret.credentials.current() == OLD_KEY  # it has not been refused yet
        assert secret.credentials.renewed(refused)
        assert secret.credentials.current() == NEW_KEY

    def test_the_secret_is_read_afresh_at_most_once_a_minute(self, secret: Secret) -> None:
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

    def test_one_reading_serves_all_whose_key_was_refused(self, secret: Secret) -> None:
        refused = secret.credentials.current()
        secret.put(NEW)
        answers: list[bool] = []
        at_once(lambda: answers.append(secret.credentials.renewed(refused)))
        assert answers == [True] * 16
        assert secret.reads == 2
