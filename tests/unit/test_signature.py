"""The official SDK signs, sandbox.signature verifies."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from volcenginesdkcore.signv4 import SignerV4

from sandbox.signature import Refusal, SignedRequest, parse_authorization, signature_of, verify

KEY, SECRET, TOKEN = "AKLT-one", "c2VjcmV0", "STS-token"
REGION, SERVICE = "cn-north-1", "rtc"
QUERY = (("Action", "StopSegment"), ("Version", "2020-12-01"))
BODY = '{"AppId": "app", "RoomId": "math-101", "TaskId": "audio"}'


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


def check(request: SignedRequest, now: datetime | None = None, token: str = "") -> Refusal | None:
    return verify(
        request,
        secrets={KEY: SECRET},
        region=REGION,
        service=SERVICE,
        now=now or datetime.now(UTC),
        session_tokens={KEY: token} if token else {},
    )


def code(refusal: Refusal | None) -> tuple[str, int | None] | None:
    return None if refusal is None else (refusal.code, refusal.code_n)


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
    assert check(sign(method, tuple(query.items()), body)) is None


@pytest.mark.parametrize(
    "host", ["rtc.volcengineapi.com", "rtc.volcengineapi.com:443", "127.0.0.1:80", "127.0.0.1:8080"]
)
def test_a_default_port_in_the_host_is_not_signed(host: str) -> None:
    assert check(sign(host=host)) is None


@pytest.mark.parametrize(("sent", "expected"), [("", TOKEN), ("another", TOKEN), (TOKEN, "")])
def test_a_missing_wrong_or_unknown_session_token_is_refused(sent: str, expected: str) -> None:
    refusal = check(sign(token=sent), token=expected)
    assert code(refusal) == ("InvalidSecretToken", 100026)


@pytest.mark.parametrize(
    ("sent", "refused_as"),
    [
        (sign(key="AKLT-unknown"), (401, "InvalidAccessKey", 100009)),
        (sign(secret="wrong"), (401, "SignatureDoesNotMatch", 100010)),
        (sign(region="ap-singapore-1"), (400, "InvalidCredential", 100025)),
        (sign(service="vod"), (400, "InvalidCredential", 100025)),
        (with_headers(sign(), authorization="Bearer token"), (400, "InvalidAuthorization", 100024)),
        (with_headers(sign(), authorization=None), (401, "MissingAuthenticationToken", 100003)),
    ],
)
def test_wrong_credentials_are_told_apart(sent: SignedRequest, refused_as: tuple[int, str, int]) -> None:
    refusal = check(sent)
    assert refusal is not None
    assert (refusal.http_status, refusal.code, refusal.code_n) == refused_as


def test_a_date_that_is_not_signed_is_refused() -> None:
    assert code(check(unsigning(sign(), "x-date"))) == ("InvalidAuthorization", 100024)


def test_a_body_need_not_be_hashed_in_a_header() -> None:
    request = with_headers(unsigning(sign(), "x-content-sha256"), x_content_sha256=None)
    assert check(request) is None
    assert code(check(replace(request, body=b"{}"))) == ("SignatureDoesNotMatch", 100010)


def test_a_signed_header_that_is_absent_is_refused() -> None:
    assert code(check(with_headers(sign(), x_sdk_request=None))) == ("InvalidAuthorization", 100024)


@pytest.mark.parametrize(
    ("minutes", "refused_as"),
    [(-16, ("InvalidTimestamp", 100006)), (-14, None), (14, None), (16, ("InvalidTimestamp", 100006))],
)
def test_a_clock_may_be_a_little_off(minutes: int, refused_as: tuple[str, int] | None) -> None:
    assert code(check(sign(), now=datetime.now(UTC) + timedelta(minutes=minutes))) == refused_as


@pytest.mark.parametrize(
    ("x_date", "now"),
    [("yesterday", None), ("20200101T000000Z", None), ("20200101T000000Z", datetime(2020, 1, 1, tzinfo=UTC))],
    ids=["malformed", "long ago", "not the day of the credential scope"],
)
def test_a_date_that_is_not_right_is_refused(x_date: str, now: datetime | None) -> None:
    assert code(check(signed_by_hand(sign(), x_date=x_date), now)) == ("InvalidTimestamp", 100006)


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
