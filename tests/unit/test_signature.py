"""The RTC double accepts the requests that the official SDK signs, and refuses all others."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from volcenginesdkcore.signv4 import SignerV4

from sandbox.signature import SignedRequest, parse_authorization, signature_of, verify

KEY, SECRET, TOKEN = "AKLT-one", "c2VjcmV0", "STS-token"
REGION, SERVICE = "cn-north-1", "rtc"
QUERY = (("Action", "StopSegment"), ("Version", "2020-12-01"))
BODY = '{"AppId": "app", "RoomId": "math-101", "TaskId": "audio"}'
Refused = tuple[int, str, int | None]  # HTTP status, code, the gateway's number
INVALID_AUTHORIZATION = (400, "InvalidAuthorization", 100024)
INVALID_TIMESTAMP = (400, "InvalidTimestamp", 100006)
NO_MATCH = (401, "SignatureDoesNotMatch", 100010)


def sign(
    method: str = "POST",
    query: tuple[tuple[str, str], ...] = QUERY,
    body: str = BODY,
    *,
    key: str = KEY,
    secret: str = SECRET,
    token: str = "",
    region: str = REGION,
    service: str = SERVICE,
    host: str = "127.0.0.1:8443",
) -> SignedRequest:
    headers = {"Host": host, "X-Sdk-Request": "attempt=1; max=1", "User-Agent": "not signed"}
    if method == "POST":
        headers["Content-Type"] = "application/json"
    SignerV4.sign("/", method, headers, body, None, query, key, secret, region, service, token)
    return SignedRequest(method, "/", query, {name.lower(): value for name, value in headers.items()}, body.encode())


def answer_to(request: SignedRequest, now: datetime | None = None, token: str = "") -> Refused | None:
    """Return how the request is refused; None if it is accepted."""
    refusal = verify(
        request,
        secrets={KEY: SECRET},
        region=REGION,
        service=SERVICE,
        now=now or datetime.now(UTC),
        session_tokens={KEY: token} if token else {},
    )
    return None if refusal is None else (refusal.http_status, refusal.code, refusal.code_n)


def with_headers(request: SignedRequest, **changes: str | None) -> SignedRequest:
    changed = {**request.headers, **{name.replace("_", "-"): value for name, value in changes.items()}}
    return replace(request, headers={name: value for name, value in changed.items() if value is not None})


def signed_by_hand(request: SignedRequest, **changes: str) -> SignedRequest:
    """Sign again after a change that the SDK would not make: the signature is right, the request is not."""
    changed = with_headers(request, **changes)
    header = changed.headers["authorization"]
    authorization = parse_authorization(header)
    assert authorization is not None
    signature = signature_of(changed, authorization, SECRET)
    return with_headers(changed, authorization=header.replace(authorization.signature, signature))


def without_signing(request: SignedRequest, name: str) -> SignedRequest:
    header = request.headers["authorization"]
    remaining = header.replace(f"{name};", "", 1).replace(f";{name},", ",", 1)
    return signed_by_hand(request, authorization=remaining)


@given(
    body=st.text(),
    query=st.dictionaries(st.text(min_size=1), st.text()),
    method=st.sampled_from(["GET", "POST"]),
)
def test_every_request_that_the_sdk_signs_is_accepted(body: str, query: dict[str, str], method: str) -> None:
    assert answer_to(sign(method, tuple(query.items()), body)) is None


@pytest.mark.parametrize(
    "host", ["rtc.volcengineapi.com", "rtc.volcengineapi.com:443", "127.0.0.1:80", "127.0.0.1:8080"]
)
def test_a_default_port_in_the_host_is_not_signed(host: str) -> None:
    assert answer_to(sign(host=host)) is None


@pytest.mark.parametrize(
    ("sent", "refused_as"),
    [
        (sign(key="AKLT-unknown"), (401, "InvalidAccessKey", 100009)),
        (sign(region="ap-singapore-1"), (400, "InvalidCredential", 100025)),
        (sign(service="vod"), (400, "InvalidCredential", 100025)),
        (with_headers(sign(), authorization=None), (401, "MissingAuthenticationToken", 100003)),
        (with_headers(sign(), authorization="Bearer token"), INVALID_AUTHORIZATION),
        (with_headers(sign(), x_sdk_request=None), INVALID_AUTHORIZATION),
        (without_signing(sign(), "x-date"), INVALID_AUTHORIZATION),
        (signed_by_hand(sign(), x_date="yesterday"), INVALID_TIMESTAMP),
        (signed_by_hand(sign(), x_date="20200101T000000Z"), INVALID_TIMESTAMP),
        (sign(secret="wrong"), NO_MATCH),
        (replace(sign(), body=BODY.replace("math-101", "math-102").encode()), NO_MATCH),
        (replace(sign(), query=(("Action", "StopSegment"), ("Version", "2023-11-01"))), NO_MATCH),
        (replace(sign(), query=(*QUERY, ("Extra", ""))), NO_MATCH),
        (replace(sign(), method="PUT"), NO_MATCH),
        (replace(sign(), path="/other"), NO_MATCH),
        (with_headers(sign(), host="elsewhere"), NO_MATCH),
        (with_headers(sign(), content_type="text/plain"), NO_MATCH),
    ],
)
def test_a_wrongly_signed_or_changed_request_is_refused(sent: SignedRequest, refused_as: Refused) -> None:
    assert answer_to(sent) == refused_as


@pytest.mark.parametrize(("sent", "expected"), [("", TOKEN), ("another", TOKEN), (TOKEN, "")])
def test_a_missing_wrong_or_unknown_session_token_is_refused(sent: str, expected: str) -> None:
    assert answer_to(sign(token=sent), token=expected) == (401, "InvalidSecretToken", 100026)


def test_the_header_with_the_hash_of_the_body_is_optional() -> None:
    request = with_headers(without_signing(sign(), "x-content-sha256"), x_content_sha256=None)
    assert answer_to(request) is None
    assert answer_to(replace(request, body=b"{}")) == NO_MATCH


@pytest.mark.parametrize(
    ("minutes", "refused_as"), [(-16, INVALID_TIMESTAMP), (-14, None), (14, None), (16, INVALID_TIMESTAMP)]
)
def test_a_clock_may_be_a_quarter_of_an_hour_off(minutes: int, refused_as: Refused | None) -> None:
    assert answer_to(sign(), now=datetime.now(UTC) + timedelta(minutes=minutes)) == refused_as


def test_a_date_of_another_day_than_the_credential_scope_is_refused() -> None:
    request = signed_by_hand(sign(), x_date="20200101T000000Z")
    assert answer_to(request, now=datetime(2020, 1, 1, tzinfo=UTC)) == INVALID_TIMESTAMP
