"""The answers of the RTC API, and the party at fault for an error.

The error code decides, not the HTTP status: the public error table (document 70426) gives no statuses, and the pages
of the gateway disagree. The status decides only if the code is missing, or if no page names the code.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

from segments.errors import CredentialsRefused, Rejected, Retryable, SetupRefused, StopError, TooManyRequests

TASK_NOT_FOUND = "InvalidParameter.ErrorActiveTaskNotFound"
_LONGEST_MESSAGE = 500
_LONGEST_NAME = 128


class Whose(StrEnum):
    """The party at fault, which must change something before the same request can succeed."""

    KEY = "key"
    APP = "app"
    ACCOUNT = "account"
    DEPLOYMENT = "deployment"
    LIMIT = "limit"
    MESSAGE = "message"
    CLOCK = "clock"
    SERVICE = "service"
    NOBODY = "nobody"


# fmt: off
BECOMES: dict[Whose, type[StopError]] = {
    Whose.KEY:        CredentialsRefused,
    Whose.APP:        Rejected,
    Whose.ACCOUNT:    SetupRefused,
    Whose.DEPLOYMENT: SetupRefused,
    Whose.LIMIT:      TooManyRequests,
    Whose.MESSAGE:    Rejected,
    Whose.CLOCK:      Retryable,
    Whose.SERVICE:    Retryable,
    Whose.NOBODY:     Retryable,
}

_REFUSED = "the API refuses the key in the secret"
_NOT_ALLOWED = "the user of the key in the secret lacks a policy that allows the call"
_OFF = "the RTC service, or slicing, is switched off for the account"
_UNPAID = "the account has unpaid bills"
_UNKNOWN_CALL = "the endpoint does not know the call: check RtcPlatform and RtcEndpoint"
_PAGE = "the answer is not from the RTC API but from another host: check RtcEndpoint, proxies and firewalls"


class Row(NamedTuple):
    """Error codes (a `*` at the end stands for any characters) with the party at fault, gateway numbers and a text."""

    whose: Whose
    codes: str
    numbers: str = ""
    says: str = ""


# The first row with the code counts, else the first with the number. docs/operations.md shows this table, too.
CODES = (
    Row(Whose.APP,        "AccessDenied.NoPermissionForApp"),
    Row(Whose.ACCOUNT,    "AccessDenied.ServiceNotEnabled AccessDenied.RecordNotEnabled",          says=_OFF),
    Row(Whose.ACCOUNT,    "OperationDenied.ServiceOverdue AccountOverdue*",                        says=_UNPAID),
    Row(Whose.KEY,        "LackPolicy LackProjectPolicy AccessDenied*",    "100012 100013",        says=_NOT_ALLOWED),
    Row(Whose.KEY,        "InvalidAccessKey* SignatureDoesNotMatch",       "100009 100010",        says=_REFUSED),
    Row(Whose.KEY,        "InvalidAuthorization InvalidCredential",        "100024 100025",        says=_REFUSED),
    Row(Whose.KEY,        "InvalidSecretToken",                            "100026",               says=_REFUSED),
    Row(Whose.KEY,        "MissingAuthenticationToken MissingSignature",   "100003 100005",        says=_REFUSED),
    Row(Whose.DEPLOYMENT, "ServiceNotFound InvalidActionOrVersion",        "100007 100008",        says=_UNKNOWN_CALL),
    Row(Whose.CLOCK,      "InvalidTimestamp",                              "100006"),
    Row(Whose.SERVICE,    "FlowLimitExceeded.TaskNumberOverLimit Internal* ServiceUnavailable*"),
    Row(Whose.LIMIT,      "FlowLimitExceeded* AccountFlowLimitExceeded*"),
    Row(Whose.MESSAGE,    "InvalidParameter*"),
)
# fmt: on


def whose_status(status: int, *, from_api: bool) -> Whose:
    """Return the party at fault by the HTTP status, for an answer with an unknown or missing error code.

    `from_api` is True if the answer has ResponseMetadata. Otherwise the answer may be from a proxy.
    """
    if status == 429:
        return Whose.LIMIT
    if not from_api:
        return Whose.NOBODY
    if status == 401:
        return Whose.KEY
    return Whose.MESSAGE if 400 <= status < 500 and status not in (403, 408) else Whose.SERVICE


def row_of(code: str, number: object = None) -> Row | None:
    """Find the row of an error code or of a gateway number, or return None if neither is documented."""
    named = (row for row in CODES if any(_is(code, pattern) for pattern in row.codes.split()))
    numbered = (row for row in CODES if str(number) in row.numbers.split())
    return next(named, None) or next(numbered, None)


def _is(code: str, pattern: str) -> bool:
    return code.startswith(pattern[:-1]) if pattern.endswith("*") else code == pattern


@dataclass(frozen=True)
class Answer:
    """An HTTP answer of the API. `content` is the JSON object in the body, or None."""

    status: int
    content: dict[str, Any] | None

    @classmethod
    def read(cls, status: int, text: str | None) -> Answer:
        """Create an answer from an HTTP status and a body."""
        try:
            content = json.loads(text or "")
        except (ValueError, RecursionError):
            content = None
        return cls(status, content if isinstance(content, dict) else None)

    @property
    def error_code(self) -> str:
        """The error's Code; empty if the answer has no error code."""
        code = self._error.get("Code")
        return _line(code)[:_LONGEST_NAME] if isinstance(code, str) else ""

    @property
    def request_id(self) -> str | None:
        """The API's RequestId, in successes and failures."""
        return _line(self._metadata.get("RequestId", ""))[:_LONGEST_NAME] or None

    @property
    def result(self) -> Any:
        """The Result of a success; None for any other answer."""
        succeeded = 200 <= self.status < 300 and bool(self._metadata) and not self._metadata.get("Error")
        return self.content.get("Result") if self.content and succeeded else None

    def failure(self) -> StopError:
        """Return the error to raise for this answer."""
        row = self.row
        name = self.error_code or ("UnreadableAnswer" if 200 <= self.status < 300 else f"Http{self.status}")
        if row.whose is Whose.KEY:
            said = [row.says]  # the API's message may quote the signature
        elif row.whose is Whose.NOBODY:
            said = [row.says, f"HTTP {self.status}"]
        else:
            said = [row.says, f"the API answered HTTP {self.status}", _line(self._error.get("Message", ""))]
        return BECOMES[row.whose](name, ": ".join(filter(None, said))[:_LONGEST_MESSAGE], self.request_id)

    @property
    def row(self) -> Row:
        """The row of `CODES` for this failure, or a row for the HTTP status if `CODES` has none."""
        if self._error and (found := row_of(self.error_code, self._error.get("CodeN"))):
            return found
        whose = whose_status(self.status, from_api=bool(self._metadata))
        return Row(whose, "", says={Whose.KEY: _REFUSED, Whose.NOBODY: _PAGE}.get(whose, ""))

    @property
    def _metadata(self) -> dict[str, Any]:
        return _dict((self.content or {}).get("ResponseMetadata"))

    @property
    def _error(self) -> dict[str, Any]:
        return _dict(self._metadata.get("Error"))


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _line(value: object) -> str:
    """Reduce a text of the API to one printable line, for logs and message attributes."""
    return "".join(character if character.isprintable() else " " for character in str(value))
