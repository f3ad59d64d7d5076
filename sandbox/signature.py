"""The check of a request's Volcengine V4 signature (HMAC-SHA256), like the check of the API gateway.

The client signs a *canonical request*: method, path, sorted query, some headers and the hash of the body. The signing
key is derived from the client's secret, the day, the region and the service. The check derives the signature again. The
check is not stricter than the gateway. Only the header X-Date must be signed, because the official Node clients sign
fewer headers than the Python SDK does. The codes, numbers and statuses come from the gateway's pages (6396/70462).
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

ALGORITHM = "HMAC-SHA256"
CLOCK_TOLERANCE = timedelta(minutes=15)

_AUTHORIZATION = re.compile(
    rf"{ALGORITHM} Credential=([^/,\s]+)/([0-9]{{8}})/([^/,\s]+)/([^/,\s]+)/request,"
    r" *SignedHeaders=([a-z0-9;-]+), *Signature=([0-9a-f]{64})"
)


@dataclass(frozen=True)
class SignedRequest:
    """The signed part of a request: the path percent-encoded, the query decoded, the headers' names in lower case."""

    method: str
    path: str
    query: tuple[tuple[str, str], ...]
    headers: Mapping[str, str]
    body: bytes = b""


@dataclass(frozen=True)
class Authorization:
    """The parts of an `Authorization` header. `day` is YYYYMMDD in UTC, and semicolons join the `signed_headers`."""

    access_key_id: str
    day: str
    region: str
    service: str
    signed_headers: str
    signature: str


@dataclass(frozen=True)
class Refusal:
    """An error answer. `code_n` is the gateway's number for the code, or None if the code has no number."""

    code: str
    message: str
    code_n: int | None = None
    http_status: int = 401


def verify(
    request: SignedRequest,
    *,
    secrets: Mapping[str, str],
    region: str,
    service: str,
    now: datetime,
    session_tokens: Mapping[str, str] | None = None,
) -> Refusal | None:
    """Check the signature of a request.

    Parameters
    ----------
    secrets
        The SecretAccessKey of every accepted key, by AccessKeyId.
    region, service
        The credential scope of the endpoint.
    session_tokens
        The session token that a request with temporary credentials must carry, by AccessKeyId.

    Returns
    -------
    Refusal or None
        The gateway's refusal, or None if the signature is valid.
    """
    header = request.headers.get("authorization")
    if header is None:
        return Refusal("MissingAuthenticationToken", "The request has no Authorization header.", 100003)
    authorization = parse_authorization(header)
    if authorization is None:
        return _invalid_authorization(f"it is not of the form '{ALGORITHM} Credential=..., SignedHeaders=...'")
    scope = (authorization.region, authorization.service)
    if scope != (region, service):
        message = f"The credential is for {scope}, expected {(region, service)}."
        return Refusal("InvalidCredential", message, 100025, 400)
    key_id = authorization.access_key_id
    secret = secrets.get(key_id)
    if secret is None:
        return Refusal("InvalidAccessKey", f"The access key [{key_id}] is not valid.", 100009)
    if request.headers.get("x-security-token", "") != (session_tokens or {}).get(key_id, ""):
        return Refusal("InvalidSecretToken", "The session token is missing or not valid.", 100026)
    return (
        _check_signed_headers(request, authorization)
        or _check_date(request.headers["x-date"], authorization.day, now)
        or _check_signature(request, authorization, secret)
    )


def parse_authorization(header: str) -> Authorization | None:
    """Parse an `Authorization` header. None if the header is malformed or has another scheme."""
    match = _AUTHORIZATION.fullmatch(header.strip())
    return Authorization(*match.groups()) if match else None


def signature_of(request: SignedRequest, authorization: Authorization, secret: str) -> str:
    """Derive the signature of a request with a secret, in lower-case hex."""
    scope = [authorization.day, authorization.region, authorization.service, "request"]
    key = secret.encode()
    for part in scope:
        key = _hmac_sha256(key, part)
    hashed = _sha256(_encode(_canonical_request(request, sorted(authorization.signed_headers.split(";")))))
    return _hmac_sha256(key, "\n".join([ALGORITHM, request.headers["x-date"], "/".join(scope), hashed])).hex()


def _check_signed_headers(request: SignedRequest, authorization: Authorization) -> Refusal | None:
    signed, sent = set(authorization.signed_headers.split(";")), request.headers.keys()
    wrong = ({"x-date"} - signed) | (signed - sent)
    return _invalid_authorization(f"these must be sent and signed: {', '.join(sorted(wrong))}") if wrong else None


def _check_date(x_date: str, day: str, now: datetime) -> Refusal | None:
    with contextlib.suppress(ValueError):
        signed_at = datetime.strptime(x_date, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        if abs(now - signed_at) <= CLOCK_TOLERANCE and x_date.startswith(day):
            return None
    return Refusal("InvalidTimestamp", f"X-Date [{x_date}] is malformed or more than 15 minutes off.", 100006, 400)


def _check_signature(request: SignedRequest, authorization: Authorization, secret: str) -> Refusal | None:
    if _content_hash(request) != _sha256(request.body):
        message = "X-Content-Sha256 is not the hash of the body."
    elif not hmac.compare_digest(signature_of(request, authorization, secret), authorization.signature):
        message = "The calculated signature is different: check the secret and the signing method."
    else:
        return None
    return Refusal("SignatureDoesNotMatch", message, 100010)


def _canonical_request(request: SignedRequest, names: Sequence[str]) -> str:
    return "\n".join(
        [
            request.method,
            request.path,
            "&".join("=".join(pair) for pair in sorted((_quote(name), _quote(value)) for name, value in request.query)),
            *(f"{name}:{_canonical_value(name, request.headers[name])}" for name in names),
            "",
            ";".join(names),
            _content_hash(request),
        ]
    )


def _content_hash(request: SignedRequest) -> str:
    return request.headers.get("x-content-sha256") or _sha256(request.body)


def _canonical_value(name: str, value: str) -> str:
    # Clients sign the host without a default port, but may send it with the port.
    return re.sub(r":(80|443)$", "", value.strip()) if name == "host" else value.strip()


def _invalid_authorization(reason: str) -> Refusal:
    return Refusal("InvalidAuthorization", f"The Authorization header is not valid: {reason}.", 100024, 400)


def _quote(text: str) -> str:
    return quote(text, safe="-_.~", errors="surrogateescape")


def _encode(text: str) -> bytes:
    # HTTP servers represent header bytes that are not UTF-8 as surrogates.
    return text.encode("utf-8", "surrogateescape")


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _hmac_sha256(key: bytes, text: str) -> bytes:
    return hmac.new(key, _encode(text), hashlib.sha256).digest()
