"""The callback secret keys: the current one and the one before it, so that a rotation loses no callback."""

from __future__ import annotations

import math
from collections.abc import Callable

from receive_callback.aws import AwsError, Service

MAX_AGE_SECONDS = 300
LEAST_SECONDS_BETWEEN_READS = 60


class KeysUnavailable(Exception):
    """Secrets Manager gives no key, and none is known from before."""


class CallbackKeys:
    """The keys, as Secrets Manager holds them in the stages AWSCURRENT and AWSPREVIOUS.

    A secret that holds none is read afresh at most once a minute: whoever fills it in need not wait longer.

    Parameters
    ----------
    secrets_manager
        Secrets Manager.
    secret_arn
        The secret: the bare key.
    clock_seconds
        A clock that never goes back.
    """

    def __init__(self, secrets_manager: Service, secret_arn: str, clock_seconds: Callable[[], float]) -> None:
        self._secrets_manager = secrets_manager
        self._secret_arn = secret_arn
        self._clock_seconds = clock_seconds
        self._keys: tuple[str, ...] = ()
        self._read_at = -math.inf

    def current(self) -> tuple[str, ...]:
        """Return the keys, read at most MAX_AGE_SECONDS ago where Secrets Manager answers.

        Raises
        ------
        KeysUnavailable
            There are none.
        """
        return self._not_older_than(MAX_AGE_SECONDS)

    def renewed(self) -> tuple[str, ...]:
        """Return the keys, read afresh unless that was done within the last minute: a forger must not make us read.

        Raises
        ------
        KeysUnavailable
            There are none.
        """
        return self._not_older_than(LEAST_SECONDS_BETWEEN_READS)

    def _not_older_than(self, seconds: float) -> tuple[str, ...]:
        now = self._clock_seconds()
        if now - self._read_at >= (seconds if self._keys else LEAST_SECONDS_BETWEEN_READS):
            try:
                self._keys = tuple(key for stage in ("AWSCURRENT", "AWSPREVIOUS") if (key := self._read(stage)))
            except AwsError:
                # Old keys are better than none while Secrets Manager is in trouble; without any, the next request asks.
                if not self._keys:
                    raise KeysUnavailable from None
            self._read_at = now
        if not self._keys:
            raise KeysUnavailable
        return self._keys

    def _read(self, stage: str) -> str | None:
        try:
            answer = self._secrets_manager.call("GetSecretValue", SecretId=self._secret_arn, VersionStage=stage)
        except AwsError as error:
            if stage == "AWSPREVIOUS" and error.code == "ResourceNotFoundException":
                return None  # never rotated
            raise
        key: str = answer.get("SecretString", "")
        return key.strip()
