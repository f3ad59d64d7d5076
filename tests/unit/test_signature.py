"""The official SDK signs, sandbox.signature verifies."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from volcenginesdkcore.signv4 import SignerV4

from sandbox.signature import Refusal, SignedRequest, parse_authorization, signature_of, verify

KEY, SECRET, TOKEN = "AKLT-one", "c2VjcmV0", "STS-token"
REGION, SERVICE = "cn-north-1", "rtc"
QUERY = (("Action", "StopSegment"), ("Version", "2020-12-01"))
BODY = '{"AppId": "app", "RoomId": "math-101", "TaskId": "audio"}'


@dataclass(frozen=True)
class Client:
    """What the SDK is configured with."""

    key: str = KEY
    secret: str = SECRET
    token: str = ""
    region: str = REGION
    service: str = SERVICE
    host: str = "127.0.0.1:8443"


def sign(
    client: Client | None = None,
    method: str = "POST",
    query: tuple[tuple[str, str], ...] = QUERY,
    body: str = BODY,
) -> SignedRequest:
    client = client or Client()
    headers = {"Host": client.host, "X-Sdk-Request": "attempt=1; max=1", "User-Agent": "not signed"}
    if method == "POST":
        headers["Content-Type"] = "application/json"
    SignerV4.sign(
        "/", method, headers, body, None, query, client.key, client.secret, client.region, client.service, client.token
    )
    lower = {name.lower(): value for name, value in headers.items()}
    return SignedRequest(method, "/", query, lower, body.encode())


def check(request: SignedRequest, **changes: Any) -> Refusal | None:
    expected: dict[str, Any] = {
        "secrets": {KEY: SECRET},
        "region": REGION,
        "service": SERVICE,
        "now": datetime.now(UTC),
    }
    return verify(request, **{**expected, **changes})


def code(refusal: Refusal | None) -> tuple[str, int | None] | None:
    return None if refusal is None else (refusal.code, refusal.code_n)


def with_headers(request: SignedRequest, **changes: str | None) -> SignedRequest:
    changed = {**request.headers, **{name.replace("_", "-"): value for name, value in changes.items()}}
    return replace(request, headers={name: value for name, value in changed.items() if value is not None})


def signed_by_hand(request: SignedRequest, **changes: str) -> SignedRequest:
    """Sign again after a change that the SDK would not make: the signature is right, the request is not."""
    changed = with_headers(request, **changes)
    authorization = parse_authorization(changed.headers["authorization"])
    assert authorization is not None
    header = changed.headers["authorization"]
    signature = signature_of(changed, authorization, SECRET)
    return with_headers(changed, authorization=header.replace(authorization.signature, signature))


def unsigning(request: SignedRequest, name: str) -> SignedRequest:
    header = request.headers["authorization"]
    remaining = header.replace(f"{name};", "", 1).replace(f";{name},", ",", 1)
    return signed_by_hand(request, authorization=remaining)


@given(
    body=st.text(),
    query=st.dictionaries(st.text(min_size=1), st.text()),
    method=st.sampled_from(["GET", "POST"]),
)
def test_whatever_the_sdk_signs_is_accepted(body: str, query: dict[str, str], method: str) -> None:
    assert check(sign(method=method, query=tuple(query.items()), body=body)) is None


@pytest.mark.parametrize(
    "host", ["rtc.volcengineapi.com", "rtc.volcengineapi.com:443", "127.0.0.1:80", "127.0.0.1:8080"]
)
def test_a_default_port_in_the_host_is_not_signed(host: str) -> None:
    assert check(sign(Client(host=host))) is None


def test_a_temporary_key_is_accepted_with_its_session_token() -> None:
    assert check(sign(Client(token=TOKEN)), session_tokens={KEY: TOKEN}) is None


@pytest.mark.parametrize(("sent", "expected"), [("", TOKEN), ("another", TOKEN), (TOKEN, "")])
def test_a_missing_wrong_or_unknown_session_token_is_refused(sent: str, expected: str) -> None:
    refusal = check(sign(Client(token=sent)), session_tokens={KEY: expected} if expected else {})
    assert code(refusal) == ("InvalidSecretToken", 100026)


@pytest.mark.parametrize(
    ("client", "refused_as"),
    [
        (Client(key="AKLT-unknown"), ("InvalidAccessKey", 100009)),
        (Client(secret="wrong"), ("SignatureDoesNotMatch", 100010)),
        (Client(region="ap-singapore-1"), ("InvalidCredential", 100025)),
        (Client(service="vod"), ("InvalidCredential", 100025)),
    ],
)
def test_wrong_credentials_are_told_apart(client: Client, refused_as: tuple[str, int]) -> None:
    refusal = check(sign(client))
    assert code(refusal) == refused_as
    assert refusal is not None
    assert refusal.http_status == 401


def test_a_request_without_authorization_is_refused() -> None:
    assert code(check(with_headers(sign(), authorization=None))) == ("MissingAuthenticationToken", 100003)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer token",
        "HMAC-SHA256",
        "AWS4-HMAC-SHA256 Credential=a/20260101/r/s/request, SignedHeaders=host, Signature=" + "0" * 64,
        "HMAC-SHA256 Credential=a/20260101/r/s/aws4_request, SignedHeaders=host, Signature=" + "0" * 64,
        "HMAC-SHA256 Credential=a/20260101/r/s/request, SignedHeaders=host, Signature=short",
    ],
)
def test_a_malformed_authorization_is_refused(header: str) -> None:
    assert code(check(with_headers(sign(), authorization=header))) == ("InvalidAuthorization", 100024)


@pytest.mark.parametrize("name", ["host", "x-date", "x-content-sha256", "content-type"])
def test_a_header_that_must_be_signed_but_is_not_is_refused(name: str) -> None:
    assert code(check(unsigning(sign(), name))) == ("InvalidAuthorization", 100024)


def test_a_session_token_must_be_signed() -> None:
    request = unsigning(sign(Client(token=TOKEN)), "x-security-token")
    assert code(check(request, session_tokens={KEY: TOKEN})) == ("InvalidAuthorization", 100024)


def test_any_other_header_may_stay_unsigned() -> None:
    assert check(unsigning(sign(), "x-sdk-request")) is None


def test_a_signed_header_that_is_absent_is_refused() -> None:
    assert code(check(with_headers(sign(), x_sdk_request=None))) == ("InvalidAuthorization", 100024)


@pytest.mark.parametrize("minutes", [-14, 0, 14])
def test_a_clock_a_little_off_is_accepted(minutes: int) -> None:
    assert check(sign(), now=datetime.now(UTC) + timedelta(minutes=minutes)) is None


@pytest.mark.parametrize("minutes", [-16, 16])
def test_a_clock_far_off_is_refused(minutes: int) -> None:
    refusal = check(sign(), now=datetime.now(UTC) + timedelta(minutes=minutes))
    assert code(refusal) == ("InvalidTimestamp", 100006)


@pytest.mark.parametrize("x_date", ["yesterday", "20200101T000000Z"])
def test_a_date_that_is_malformed_or_of_another_day_is_refused(x_date: str) -> None:
    assert code(check(signed_by_hand(sign(), x_date=x_date))) == ("InvalidTimestamp", 100006)


def test_a_date_must_be_of_the_day_in_the_credential_scope() -> None:
    request = signed_by_hand(sign(), x_date="20200101T000000Z")
    refusal = check(request, now=datetime(2020, 1, 1, tzinfo=UTC))
    assert code(refusal) == ("InvalidTimestamp", 100006)


@pytest.mark.parametrize(
    "tampered",
    [
        replace(sign(), body=BODY.replace("math-101", "math-102").encode()),
        replace(sign(), query=(("Action", "StopSegment"), ("Version", "2023-11-01"))),
        replace(sign(), query=(*QUERY, ("Extra", ""))),
        replace(sign(), method="PUT"),
        replace(sign(), path="/other"),
        with_headers(sign(), host="elsewhere"),
        with_headers(sign(), content_type="text/plain"),
    ],
)
def test_a_request_changed_on_the_way_does_not_match(tampered: SignedRequest) -> None:
    assert code(check(tampered)) == ("SignatureDoesNotMatch", 100010)
