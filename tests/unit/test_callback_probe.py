"""The test callback of an operator, and the sentences about its result."""

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from receive_callback.signature import sign
from tools import callbacks
from tools.callbacks import Answer, forge, knock, make_callback, of_the_forgery, of_the_knock, on_the_way, send

NOW_MS = 1_795_327_920_123
CALLBACK = make_callback(NOW_MS, "signed", "key")


class Front(HTTPServer):
    """A server at a URL, with a configured answer."""

    status = 200
    body = b""
    location = ""
    delay_seconds = 0.0
    received: bytes = b""


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
        """Stay quiet."""


@pytest.fixture
def front() -> Iterator[Front]:
    with Front(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def url_of(front: Front) -> str:
    return f"http://127.0.0.1:{front.server_port}/"


def test_it_is_what_the_rtc_server_sends() -> None:
    assert sign(CALLBACK, "key") == CALLBACK["Signature"]
    forged = forge(CALLBACK, NOW_MS)
    assert sign(forged, "key") != forged["Signature"]
    assert CALLBACK["EventTime"] == "2026-11-22T06:12:00.123Z"
    assert json.loads(CALLBACK["EventData"]) == {"RoomId": "rtc-segment-stopper"}


@pytest.mark.parametrize(
    ("status", "body", "sentence"),
    [
        (200, {"result": "queued"}, "accepted and queued after "),
        (200, {"result": "ignored"}, "200: ignored."),
        (400, {"result": "the body is not JSON"}, "400: the server at the URL does not under"),
        (
            401,
            {"result": "the signature is missing or wrong"},
            "401: the signature is refused: this key is not the one",
        ),
        (403, {"message": "Forbidden"}, "403: refused by a web ACL or another server"),
        (404, {"message": "Not Found"}, "404: the server does not know this URL"),
        (429, {"message": "Too Many Requests"}, "429: throttled"),
        (
            503,
            {"result": "the callback secret cannot be read, send it again"},
            "503: the callback secret cannot be read",
        ),
        (500, [], "500: no reason given."),
    ],
)
def test_each_answer_has_its_sentence(front: Front, status: int, body: object, sentence: str) -> None:
    front.status, front.body = status, json.dumps(body).encode()
    answer = send(url_of(front), CALLBACK)
    assert json.loads(front.received) == CALLBACK
    assert answer.status == status
    assert on_the_way(answer).startswith(sentence)
    assert answer.is_taken == (sentence == "accepted and queued after ")


def test_a_redirect_is_not_followed_and_said(front: Front) -> None:
    front.status, front.location = 302, "https://elsewhere.example/"
    told = on_the_way(send(url_of(front), CALLBACK))
    assert told.startswith("302: a redirect to https://elsewhere.example/, which the RTC server does not follow")


def test_an_answer_that_comes_too_late_is_none(front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callbacks, "ANSWER_SECONDS", 0.2)
    front.delay_seconds = 1.0
    answer = send(url_of(front), CALLBACK)
    assert (answer.status, on_the_way(answer).startswith("no answer within 0.2 s")) == (0, True)


@pytest.mark.parametrize(
    ("status", "sentence"),
    [
        (200, "answered with 200, so the RTC console accepts the URL"),
        (302, "302: a redirect to https://elsewhere.example/, which the RTC server does not follow"),
        (403, "403, not 200: the RTC console refuses the URL"),
        (404, "404: the server does not know this URL"),
        (405, "405, not 200: the RTC console refuses the URL"),
    ],
)
def test_it_is_said_whether_the_console_takes_the_url(front: Front, status: int, sentence: str) -> None:
    front.status, front.location = status, "https://elsewhere.example/" if status == 302 else ""
    assert of_the_knock(knock(url_of(front))).startswith(sentence)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://127.0.0.1:1/", "NewConnectionError"),
        ("https://127.0.0.1:1/", "NewConnectionError"),
        ("https://nowhere.invalid/", "this machine has no network, or the URL's host does not exist"),
    ],
)
def test_without_an_answer_each_line_says_so(url: str, reason: str) -> None:
    for said in (of_the_knock(knock(url)), on_the_way(send(url, CALLBACK)), of_the_forgery(send(url, CALLBACK))):
        assert said.startswith(f"no answer within 5 s: {reason}")


@pytest.mark.parametrize(
    ("status", "sentence"),
    [(401, "refused with 401"), (200, "ACCEPTED: "), (429, "429, not 401: the signature was not checked")],
)
def test_a_forgery_must_be_refused(status: int, sentence: str) -> None:
    assert of_the_forgery(Answer(status, "")).startswith(sentence)
