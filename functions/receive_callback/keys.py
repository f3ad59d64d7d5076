"""The callback secret keys: the current key and, for a day, the previous key, so that a rotation loses no callback."""

from __future__ import annotations

import math
from collections.abc import Callable

from receive_callback.aws import AwsError, Service

MAX_AGE_SECONDS = 300
LEAST_SECONDS_BETWEEN_READS = 60
SECONDS_WITHOUT_A_KEY = 5  # between two reads, until a read has returned a key
PREVIOUS_SECONDS = 24 * 3600  # how long a key stays valid after the next key was created


class KeysUnavailable(Exception):
    """Secrets Manager returns no key, and no key was read before. The text is AWS's error code, or SecretIsEmpty."""


class CallbackKeys:
    """The keys in the stages AWSCURRENT and AWSPREVIOUS of the callback secret, which holds the bare key.

    A minimum time passes between two reads, however many forged callbacks arrive. `clock_seconds` is monotonic, and
    `now_ms` is the time of day. `current` and `renewed` raise `KeysUnavailable`.
    """

    def __init__(
        self, secrets_manager: Service, secret_arn: str, clock_seconds: Callable[[], float], now_ms: Callable[[], int]
    ) -> None:
        self._secrets_manager = secrets_manager
        self._secret_arn = secret_arn
        self._clock_seconds = clock_seconds
        self._now_ms = now_ms
        self._current = self._previous = self._trouble = ""
        self._previous_until_ms = self._asked_at = -math.inf

    def current(self) -> tuple[str, ...]:
        """Return the keys, read at most MAX_AGE_SECONDS ago if Secrets Manager answers."""
        return self._not_older_than(MAX_AGE_SECONDS)

    def renewed(self) -> tuple[str, ...]:
        """Return the keys, read again at most once a minute: forged callbacks must not cause more reads."""
        return self._not_older_than(LEAST_SECONDS_BETWEEN_READS)

    def _not_older_than(self, seconds: float) -> tuple[str, ...]:
        now = self._clock_seconds()
        if now - self._asked_at >= (seconds if self._current else SECONDS_WITHOUT_A_KEY):
            self._asked_at = now
            try:
                self._read()
            except AwsError as error:  # old keys are better than no keys while Secrets Manager fails
                self._trouble = str(error)
        if not self._current:
            raise KeysUnavailable(self._trouble)
        # At each request: keys may be kept for long, and the previous key may expire in that time.
        return (self._current, self._previous) if self._now_ms() < self._previous_until_ms else (self._current,)

    def _read(self) -> None:
        current, created_ms = self._read_stage("AWSCURRENT")
        until_ms = created_ms + PREVIOUS_SECONDS * 1000
        previous = ""
        if current and self._now_ms() < until_ms:
            try:
                previous, _ = self._read_stage("AWSPREVIOUS")
            except AwsError as error:
                if str(error) != "ResourceNotFoundException":  # never rotated
                    raise
        self._current, self._previous, self._trouble = current, previous, "" if current else "SecretIsEmpty"
        self._previous_until_ms = until_ms if previous else -math.inf

    def _read_stage(self, stage: str) -> tuple[str, float]:
        """Return the key in a stage of the secret, and the time in Unix ms at which this version was created."""
        answer = self._secrets_manager.call("GetSecretValue", SecretId=self._secret_arn, VersionStage=stage)
        return str(answer.get("SecretString", "")).strip(), float(answer.get("CreatedDate", 0)) * 1000
