"""The RTC API's key, as the secret holds it."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from aws_lambda_powertools.utilities.parameters import SecretsProvider
from aws_lambda_powertools.utilities.parameters.exceptions import GetParameterError
from botocore.exceptions import ClientError

from stop_segment.errors import CredentialsRefused

MAX_AGE_SECONDS = 300
LEAST_SECONDS_BETWEEN_RENEWALS = 60
_HEADER_VALUE = re.compile("[!-~]*")  # what else would go into a header would break the request, and be quoted


@dataclass(frozen=True)
class Key:
    """A key of the RTC API. It shows itself in no log and no traceback."""

    access_key_id: str = field(repr=False)
    secret_access_key: str = field(repr=False)
    session_token: str = field(repr=False, default="")


class Credentials:
    """The current key: read when first needed, again every MAX_AGE_SECONDS, and afresh when the API refuses it.

    Parameters
    ----------
    provider
        Powertools' secrets provider, which keeps the secret.
    secret_arn
        The secret: JSON with AccessKeyId, SecretAccessKey and perhaps SessionToken.
    clock_seconds
        A clock that never goes back.
    """

    def __init__(self, provider: SecretsProvider, secret_arn: str, clock_seconds: Callable[[], float]) -> None:
        self._provider = provider
        self._secret_arn = secret_arn
        self._clock_seconds = clock_seconds
        self._lock = threading.Lock()
        self._last: Key | None = None
        self._renewed_at: float | None = None

    def current(self) -> Key:
        """Return the key.

        Raises
        ------
        CredentialsRefused
            The secret cannot be read, or it holds no key.
        """
        with self._lock:
            try:
                self._last = self._read(force_fetch=False)
            except CredentialsRefused:
                # An old key is better than none while Secrets Manager is in trouble.
                if self._last is None:
                    raise
            return self._last

    def renewed(self, refused: Key) -> bool:
        """Read the secret afresh because the API refused a key, at most once a minute.

        Returns whether there is a key to try now that is not the refused one.
        """
        with self._lock:
            now = self._clock_seconds()
            if self._last == refused and (
                self._renewed_at is None or now - self._renewed_at >= LEAST_SECONDS_BETWEEN_RENEWALS
            ):
                self._renewed_at = now
                self._last = self._read(force_fetch=True)
            return self._last != refused

    def _read(self, *, force_fetch: bool) -> Key:
        try:
            text = self._provider.get(self._secret_arn, max_age=MAX_AGE_SECONDS, force_fetch=force_fetch)
        except GetParameterError as error:
            raise CredentialsRefused("SecretUnavailable", f"the secret cannot be read: {_cause(error)}") from None
        # Errors here are raised from None: their causes would quote the secret.
        try:
            content = json.loads(str(text))
        except (ValueError, RecursionError):
            content = None
        if not isinstance(content, dict):
            raise CredentialsRefused("SecretInvalid", "the secret must be a JSON object") from None
        names = ("AccessKeyId", "SecretAccessKey", "SessionToken")
        values = [content.get(name, "") for name in names]
        if not all(isinstance(value, str) and _HEADER_VALUE.fullmatch(value) for value in values) or not all(
            values[:2]
        ):
            raise CredentialsRefused(
                "SecretInvalid", "the secret must hold AccessKeyId and SecretAccessKey, as strings without white space"
            )
        return Key(*values)


def _cause(error: GetParameterError) -> str:
    cause = error.__context__
    return cause.response["Error"]["Code"] if isinstance(cause, ClientError) else type(cause).__name__
