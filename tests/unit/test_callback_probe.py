"""The operator's test of the callback URL, and the sentences that explain each answer."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from tools import callbacks
from tools.callbacks import Answer, describe_forged, describe_get, describe_signed, make_callback, send, send_get

CALLBACK = make_callback(1_795_327_920_123, "signed", "key")


class Front(HTTPServer):
    """A server with a configured answer."""

    status = 200
    body = b""
    location = ""
    delay_seconds = 0.0
    received: bytes = b""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/"


class Handler(BaseHTTPRequestHandler):
    server: Front

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self.server.received = self.rfile.read(int(self.headers["Content-Length"]))
        self._answer()

    def _answer(self) -> None:
        time.sleep(self.server.delay_seconds)
        self.send_response(self.server.status)
        if self.server.location:
            self.send_header("Location", self.server.location)
        self.send_header("Content-Length", str(len(self.server.body)))
        self.end_headers()
        self.wfile.write(self.server.body)

    def log_message(self, *_: Any) -> None:
        """Write no log."""


@pytest.fixture
def front() -> Iterator[Front]:
    with Front(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("status", "body", "location", "result"),
    [
        (200, b'{"result": "queued"}', "", "queued"),
        (403, b'{"message": "Forbidden"}', "", "Forbidden"),
        (500, b"[]", "", ""),
        (502, b"Bad Gateway", "", "Bad Gateway"),
        (302, b"", "https://elsewhere.example/", "https://elsewhere.example/"),
    ],
)
def test_an_answer_has_the_status_and_the_reason_that_the_server_gives(
    front: Front, status: int, body: bytes, location: str, result: str
) -> None:
    front.status, front.body, front.location = status, body, location
    for answer in (send_get(front.url), send(front.url, CALLBACK)):
        assert (answer.status, answer.result) == (status, result)
    assert json.loads(front.received) == CALLBACK


def test_an_answer_after_the_time_out_of_the_rtc_server_is_no_answer(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(callbacks, "ANSWER_SECONDS", 0.2)
    front.delay_seconds = 0.5
    answer = send(front.url, CALLBACK)
    assert (answer.status, answer.result) == (0, "the answer took too long")


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://127.0.0.1:1/", "NewConnectionError"),
        ("https://127.0.0.1:1/", "NewConnectionError"),
        ("https://nowhere.invalid/", "this machine has no network, or the URL's host does not exist"),
    ],
)
def test_without_an_answer_the_reason_is_given(url: str, reason: str) -> None:
    for answer in (send_get(url), send(url, CALLBACK)):
        assert answer.status == 0
        assert answer.result.startswith(reason)


NOT_FOLLOWED = "302: a redirect to https://elsewhere.example/, which the RTC server does not follow"


@pytest.mark.parametrize(
    ("describe", "status", "result", "sentence"),
    [
        (describe_signed, 200, "queued", "accepted and queued after 0.0 s"),
        (describe_signed, 200, "ignored", "200: ignored."),
        (describe_signed, 302, "https://elsewhere.example/", NOT_FOLLOWED),
        (describe_signed, 400, "", "400: the server at the URL does not under"),
        (describe_signed, 401, "", "401: the signature is refused: this key differs from the key"),
        (describe_signed, 403, "", "403: a web ACL or another server refused the request"),
        (describe_signed, 404, "", "404: the server does not know this URL"),
        (describe_signed, 429, "", "429: throttled"),
        (describe_signed, 503, "the secret cannot be read", "503: the secret cannot be read"),
        (describe_signed, 500, "", "500: no reason given."),
        (describe_signed, 0, "why", "no answer within 5 s: why"),
        (describe_get, 200, "", "answered with 200, so the RTC console accepts the URL"),
        (describe_get, 302, "https://elsewhere.example/", NOT_FOLLOWED),
        (describe_get, 403, "", "403, not 200: the RTC console refuses the URL"),
        (describe_get, 404, "", "404: the server does not know this URL"),
        (describe_get, 0, "why", "no answer within 5 s: why"),
        (describe_forged, 401, "", "refused with 401"),
        (describe_forged, 200, "", "ACCEPTED: "),
        (describe_forged, 429, "", "429, not 401: the signature was not checked"),
        (describe_forged, 0, "why", "no answer within 5 s: why"),
    ],
)
def test_every_answer_is_explained(describe: Callable[[Answer], str], status: int, result: str, sentence: str) -> None:
    assert describe(Answer(status, result)).startswith(sentence)
