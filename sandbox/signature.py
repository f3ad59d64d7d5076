"""Checks that a request carries a valid Volcengine V4 signature (HMAC-SHA256), as the API gateway does.

The client signs a *canonical request* (method, path, sorted query, some headers, hash of the body) with a key
derived from its secret, the day, the region and the service. Verifying is deriving the same signature again.
Codes and numbers are those of the gateway's common error codes.
"""

import hashlib
import hmac
import re
from collections.abc import Mapping
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
    """What a signature covers.

    Parameters
    ----------
    method, path
        As in the request line, the path percent-encoded.
    query
        Decoded names and values.
    headers
        Names in lower case.
    body
        The bytes that were received.
    """

    method: str
    path: str
    query: tuple[tuple[str, str], ...]
    headers: Mapping[str, str]
    body: bytes = b""


@dataclass(frozen=True)
class Authorization:
    """The parts of an ``Authorization`` header; ``day`` is YYYYMMDD in UTC."""

    access_key_id: str
    day: str
    region: str
    service: str
    signed_headers: tuple[str, ...]
    signature: str


@dataclass(frozen=True)
class Refusal:
    """An error answer: HTTP status, ``Code``, ``Message`` and, where the gateway has one, its number ``CodeN``."""

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
    request
        The request as it was received.
    secrets
        AccessKeyId to SecretAccessKey of every key that is accepted.
    region, service
        The credential scope that the endpoint belongs to.
    now
        The time, with its zone.
    session_tokens
        AccessKeyId to the session token that the key is only valid with (temporary credentials).

    Returns
    -------
    Refusal or None
        Why the gateway refuses the request; ``None`` when the signature is valid.
    """
    header = request.headers.get("authorization")
    if header is None:
        return Refusal("MissingAuthenticationToken", "The request has no Authorization header.", 100003)
    authorization = parse_authorization(header)
    if authorization is None:
        return _invalid_authorization(f"it is not of the form '{ALGORITHM} Credential=..., SignedHeaders=...'")
    return (
        _check_scope(authorization, region, service)
        or _check_access_key(authorization, secrets)
        or _check_session_token(request, authorization, session_tokens or {})
        or _check_signed_headers(request, authorization)
        or _check_date(request, authorization, now)
        or _check_signature(request, authorization, secrets[authorization.access_key_id])
    )


def parse_authorization(header: str) -> Authorization | None:
    """Take an ``Authorization`` header apart; ``None`` when it is malformed or of another scheme."""
    match = _AUTHORIZATION.fullmatch(header.strip())
    if match is None:
        return None
    access_key_id, day, region, service, signed_headers, signature = match.groups()
    return Authorization(access_key_id, day, region, service, tuple(signed_headers.split(";")), signature)


def signature_of(request: SignedRequest, authorization: Authorization, secret: str) -> str:
    """Derive the signature, lower-case hex, that the holder of ``secret`` gives to this request."""
    scope = [authorization.day, authorization.region, authorization.service, "request"]
    key = secret.encode()
    for part in scope:
        key = _hmac_sha256(key, part)
    canonical_request = _canonical_request(request, authorization.signed_headers)
    to_sign = "\n".join([ALGORITHM, request.headers["x-date"], "/".join(scope), _sha256(_encode(canonical_request))])
    return _hmac_sha256(key, to_sign).hex()


def _check_scope(authorization: Authorization, region: str, service: str) -> Refusal | None:
    scope = (authorization.region, authorization.service)
    if scope == (region, service):
        return None
    return Refusal("InvalidCredential", f"The credential is for {scope}, expected {(region, service)}.", 100025)


def _check_access_key(authorization: Authorization, secrets: Mapping[str, str]) -> Refusal | None:
    if authorization.access_key_id in secrets:
        return None
    return Refusal("InvalidAccessKey", f"The access key [{authorization.access_key_id}] is not valid.", 100009)


def _check_session_token(
    request: SignedRequest, authorization: Authorization, session_tokens: Mapping[str, str]
) -> Refusal | None:
    sent = request.headers.get("x-security-token", "")
    expected = session_tokens.get(authorization.access_key_id, "")
    if hmac.compare_digest(_encode(sent), _encode(expected)):
        return None
    return Refusal("InvalidSecretToken", "The session token is missing or not valid.", 100026)


def _check_signed_headers(request: SignedRequest, authorization: Authorization) -> Refusal | None:
    required = {"host", "x-date", "x-content-sha256"}
    if request.method == "POST":
        required.add("content-type")
    if "x-security-token" in request.headers:
        required.add("x-security-token")
    signed = set(authorization.signed_headers)
    if unsigned := required - signed:
        return _invalid_authorization(f"these headers must be signed: {', '.join(sorted(unsigned))}")
    if absent := signed - request.headers.keys():
        return _invalid_authorization(f"these signed headers are not in the request: {', '.join(sorted(absent))}")
    return None


def _check_date(request: SignedRequest, authorization: Authorization, now: datetime) -> Refusal | None:
    x_date = request.headers["x-date"]
    try:
        signed_at = datetime.strptime(x_date, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        signed_at = None
    in_time = signed_at is not None and abs(now - signed_at) <= CLOCK_TOLERANCE
    if in_time and x_date.startswith(authorization.day):
        return None
    return Refusal("InvalidTimestamp", f"X-Date [{x_date}] is malformed or more than 15 minutes off.", 100006, 400)


def _check_signature(request: SignedRequest, authorization: Authorization, secret: str) -> Refusal | None:
    if request.headers["x-content-sha256"] != _sha256(request.body):
        return _does_not_match("X-Content-Sha256 is not the hash of the body.")
    if not hmac.compare_digest(signature_of(request, authorization, secret), authorization.signature):
        return _does_not_match("The signature we calculated is another one: check the secret and the signing method.")
    return None


def _canonical_request(request: SignedRequest, signed_headers: tuple[str, ...]) -> str:
    query = sorted((_quote(name), _quote(value)) for name, value in request.query)
    names = sorted(signed_headers)
    return "\n".join(
        [
            request.method,
            request.path,
            "&".join(f"{name}={value}" for name, value in query),
            *(f"{name}:{_canonical_value(name, request.headers[name])}" for name in names),
            "",
            ";".join(names),
            request.headers["x-content-sha256"],
        ]
    )


def _canonical_value(name: str, value: str) -> str:
    # Clients sign the host without a default port but may send it with one.
    return re.sub(r":(80|443)$", "", value.strip()) if name == "host" else value.strip()


def _invalid_authorization(reason: str) -> Refusal:
    return Refusal("InvalidAuthorization", f"The Authorization header is not valid: {reason}.", 100024)


def _does_not_match(message: str) -> Refusal:
    return Refusal("SignatureDoesNotMatch", message, 100010)


def _quote(text: str) -> str:
    return quote(text, safe="-_.~", errors="surrogateescape")


def _encode(text: str) -> bytes:
    # Servers hand over header bytes that are not UTF-8 as surrogates.
    return text.encode("utf-8", "surrogateescape")


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _hmac_sha256(key: bytes, text: str) -> bytes:
    return hmac.new(key, _encode(text), hashlib.sha256).digest()
