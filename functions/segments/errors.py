"""The errors of a stop, and the end of its message after each.

* StopError
  - InvalidMessage, Rejected: to the dead-letter queue at once, as ``invalid_message`` or ``rejected``.
  - Retryable: back-off, and on the last receive a later copy, until the message is too old; then to the dead-letter
    queue, as ``exhausted``.
    + FunctionFailed, Unanswered, CredentialsRefused, SetupRefused, NoTimeLeft, CircuitOpen, TooManyRequests, NoAnswer
    + TryAtOnce: ConnectionLost, KeyRenewed
"""

from __future__ import annotations

_MOST_MESSAGE_BYTES = 1_500
_MOST_NAME_BYTES = 256


class StopError(Exception):
    """A message that could not be served. Its texts are cut to so many bytes: logs, letters and events repeat them.

    `code` is a stable name for the cause, the API's error code if it gave one. `message` is one sentence for a person,
    and never holds a secret or a payload. `request_id` is the API's, if an answer carried one.
    """

    def __init__(self, code: str, message: str, request_id: str | None = None) -> None:
        super().__init__(code, message, request_id)
        self.code = _cut(code, _MOST_NAME_BYTES)
        self.message = _cut(message, _MOST_MESSAGE_BYTES)
        self.request_id = request_id and _cut(request_id, _MOST_NAME_BYTES)

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


class InvalidMessage(StopError):
    """The message breaks the contract of docs/events.md."""


class Rejected(StopError):
    """The API says that the request can never work."""


class Retryable(StopError):
    """It may work later."""


class FunctionFailed(Retryable):
    """A fault of ours: it will not pass by itself, but a later version may serve the message."""


class Unanswered(Retryable):
    """The message has ended, but its workflow could not be notified.

    The `answer` holds the task token, so it is no part of the error's message. `has_letter`: the end was a dead letter,
    so there must be no other end.
    """

    def __init__(self, answer: str, *, has_letter: bool = False) -> None:
        super().__init__("WorkflowNotAnswered", "the message was processed, but its workflow could not be notified")
        self.answer = answer
        self.has_letter = has_letter


class CredentialsRefused(Retryable):
    """The API refuses the key, or the secret holds none."""


class SetupRefused(Retryable):
    """The API refuses every call: the account is barred, or the endpoint does not know the call."""


class NoTimeLeft(Retryable):
    """The invocation would end before the call does, so the call was not made."""


class CircuitOpen(Retryable):
    """The API has been silent for a while, so the call was not made."""


class TooManyRequests(Retryable):
    """The account's request limit is used up: others share it."""


class NoAnswer(Retryable):
    """The API was silent until the time-out, or could not be reached."""


class TryAtOnce(Retryable):
    """One more attempt at once is worth it."""


class ConnectionLost(TryAtOnce):
    """The connection was closed before an answer came, as a kept-alive one is after a freeze."""


class KeyRenewed(TryAtOnce):
    """The API refused a key, and the secret, which was read again, holds another one."""


def _cut(text: str, most_bytes: int) -> str:
    """Cut a text to so many bytes of UTF-8, as AWS counts them."""
    return text.encode(errors="replace")[:most_bytes].decode(errors="ignore")
