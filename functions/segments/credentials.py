"""The RTC API's key, as the functions read it from the secret."""

from __future__ import annotations

import json
import math
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

from segments.errors import CredentialsRefused

if TYPE_CHECKING:
    from mypy_boto3_secretsmanager import SecretsManagerClient

MAX_AGE_SECONDS = 300
LEAST_SECONDS_BETWEEN_READS = 60  # of a secret without a key, or with a key that the API refuses
_HEADER_VALUE = re.compile("[!-~]*")  # other characters would break the header, and the error would quote the key


@dataclass(frozen=True)
class Key:
    """A key of the RTC API. No log and no traceback shows the key."""

    access_key_id: str = field(repr=False)
    secret_access_key: str = field(repr=False)
    session_token: str = field(repr=False, default="")


class Credentials:
    """Reads the key when it is first needed, every MAX_AGE_SECONDS, and at once if the key is missing or refused.

    The secret is JSON with AccessKeyId, SecretAccessKey and an optional SessionToken. `current` and `renewed` raise
    `CredentialsRefused` if the secret cannot be read, or holds no key.
    """

    def __init__(
        self, secrets_manager: SecretsManagerClient, secret_arn: str, clock_seconds: Callable[[], float]
    ) -> None:
        self._secrets_manager = secrets_manager
        self._secret_arn = secret_arn
        self._clock_seconds = clock_seconds
        self._lock = threading.Lock()
        self._key: Key | None = None
        self._trouble = ("SecretUnavailable", "the secret has not been read")
        self._read_again_at = self._renew_at = -math.inf

    def current(self) -> Key:
        """Return the key. While the secret cannot be read, an old key is better than no key."""
        # Before the lock, so that callers that wait for a failing read share the read's error instead of trying again.
        asked_at = self._clock_seconds()
        with self._lock:
            if asked_at >= self._read_again_at:
                self._read()
            if self._key is None:
                raise CredentialsRefused(*self._trouble)
            return self._key

    def renewed(self, refused: Key) -> bool:
        """Read the secret again, at most once a minute, because the API refused a key.

        Returns whether the current key differs from the refused key.
        """
        with self._lock:
            now = self._clock_seconds()
            if self._key == refused and now >= self._renew_at:
                self._renew_at = now + LEAST_SECONDS_BETWEEN_READS
                if not self._read():
                    raise CredentialsRefused(*self._trouble)
            return self._key != refused

    def _read(self) -> bool:
        """Read the secret, and schedule the next read. Returns whether the secret holds a key."""
        try:
            self._key = self._key_in_secret()
            seconds = MAX_AGE_SECONDS
        except CredentialsRefused as trouble:
            self._trouble = (trouble.code, trouble.message)
            # Without a key every call fails, and Secrets Manager may answer the next caller.
            may_pass = self._key is None and trouble.code == "SecretUnavailable"
            seconds = 0 if may_pass else LEAST_SECONDS_BETWEEN_READS
            return False
        else:
            return True
        finally:
            self._read_again_at = self._clock_seconds() + seconds

    def _key_in_secret(self) -> Key:
        try:
            text = self._secrets_manager.get_secret_value(SecretId=self._secret_arn).get("SecretString")
        except (BotoCoreError, ClientError) as error:
            cause = error.response["Error"]["Code"] if isinstance(error, ClientError) else type(error).__name__
            # AWS has the same code for the secret and for its KMS key. Only AWS's message distinguishes them.
            cause += " for the KMS key of the secret" if "KMS" in str(error) else ""
            raise CredentialsRefused("SecretUnavailable", f"the RTC secret cannot be read, check it: {cause}") from None
        # Errors here are raised from None: their causes would quote the secret.
        try:
            content = json.loads(text or "")
        except (ValueError, RecursionError):
            content = None
        if not isinstance(content, dict):
            raise CredentialsRefused("SecretInvalid", "the RTC secret must be a JSON object") from None
        values = [content.get(name, "") for name in ("AccessKeyId", "SecretAccessKey", "SessionToken")]
        are_whole = all(isinstance(value, str) and _HEADER_VALUE.fullmatch(value) for value in values)
        if not are_whole or not all(values[:2]):
            raise CredentialsRefused(
                "SecretInvalid", "the RTC secret must hold AccessKeyId and SecretAccessKey, each without white space"
            )
        return Key(*values)
