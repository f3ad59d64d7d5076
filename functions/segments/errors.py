"""The errors of a stop, and what happens to the message after each error.

* StopError
  - InvalidMessage, Rejected: sent to the dead-letter queue at once, as ``invalid_message`` or ``rejected``.
  - Retryable: tried again after a back-off, and after the last receive as a later copy. A message that is too old is
    sent to the dead-letter queue, as ``exhausted``.
    + FunctionFailed, Unanswered, CredentialsRefused, SetupRefused, NoTimeLeft, CircuitOpen, TooManyRequests, NoAnswer
    + TryAtOnce: ConnectionLost, KeyRenewed
"""

from __future__ import annotations

_MOST_MESSAGE_BYTES = 1_500
_MOST_NAME_BYTES = 256


class StopError(Exception):
    """A message could not be served. Error texts have a maximum length: logs, dead letters and events repeat them.

    `code` is a stable name for the cause: the API's error code, if there is one. `message` is one sentence for a
    person, and never holds a secret or a payload. `request_id` is the RequestId of the API's answer, if any.
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
    """The API rejects the request, and would reject every retry."""


class Retryable(StopError):
    """A later attempt may succeed."""


class FunctionFailed(Retryable):
    """The function has a bug: retries do not help, but a later version may serve the message."""


class Unanswered(Retryable):
    """The message was processed, but its workflow could not be notified.

    The `answer` holds the task token, so the error's message does not repeat the answer. `has_letter` is True if the
    message has a dead letter, so that only the answer is missing.
    """

    def __init__(self, answer: str, *, has_letter: bool = False) -> None:
        super().__init__("WorkflowNotAnswered", "the message was processed, but its workflow could not be notified")
        self.answer = answer
        self.has_letter = has_letter


class CredentialsRefused(Retryable):
    """The API refuses the key, or the secret holds no key."""


class SetupRefused(Retryable):
    """The API refuses every call: the account is blocked, or the endpoint does not know the action."""


class NoTimeLeft(Retryable):
    """The call was not made, since the invocation would end before the answer."""


class CircuitOpen(Retryable):
    """The call was not made, since the API did not answer the last calls."""


class TooManyRequests(Retryable):
    """The account's request limit is used up, since other programs share the limit."""


class NoAnswer(Retryable):
    """The API did not answer before the time-out, or could not be reached."""


class TryAtOnce(Retryable):
    """An immediate retry may succeed."""


class ConnectionLost(TryAtOnce):
    """The connection was closed before an answer arrived, for example while Lambda froze the environment."""


class KeyRenewed(TryAtOnce):
    """The API refused a key, and the secret now holds another key."""


def _cut(text: str, most_bytes: int) -> str:
    """Cut a text to a maximum number of bytes in UTF-8, as AWS counts them."""
    return text.encode(errors="replace")[:most_bytes].decode(errors="ignore")
