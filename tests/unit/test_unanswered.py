"""A request to the RTC API without an answer: every error that urllib3 and the SDK can raise."""

import http.client
import socket
import ssl
from typing import Any, cast

import pytest
import urllib3
from urllib3 import exceptions as of_urllib3
from volcenginesdkcore.rest import ApiException

from segments.credentials import Credentials, Key
from segments.errors import ConnectionLost, NoAnswer, Retryable, StopError
from segments.events import Room, Task
from segments.rtc import RtcApi
from stop_segment.settings import read_settings
from tests.environments import STOP_SETTINGS

POOL = cast("urllib3.HTTPConnectionPool", None)
CONNECTION = cast("urllib3.connection.HTTPConnection", None)
UNREACHABLE = (NoAnswer, "ApiUnreachable")
TIMEOUT = (NoAnswer, "Timeout")
LOST = (ConnectionLost, "ConnectionLost")
UNKNOWN = (Retryable, "ApiUnreachable")
UNREADABLE = (Retryable, "UnreadableAnswer")

Meaning = tuple[type[StopError], str]
MEANINGS: list[tuple[Exception, Meaning]] = [
    # The connection cannot be made. In urllib3 2 the first two are time-outs by inheritance.
    (of_urllib3.NewConnectionError(CONNECTION, "Connection refused"), UNREACHABLE),
    (of_urllib3.NameResolutionError("rtc.example", CONNECTION, socket.gaierror(-2, "unknown")), UNREACHABLE),
    (of_urllib3.SSLError(ssl.SSLCertVerificationError(1, "self-signed certificate")), UNREACHABLE),
    (of_urllib3.ProxyError("Unable to connect to proxy", OSError("503")), UNREACHABLE),
    (of_urllib3.LocationValueError("No host specified."), UNREACHABLE),
    (of_urllib3.LocationParseError("rtc..example"), UNREACHABLE),
    (of_urllib3.URLSchemeUnknown("ftp"), UNREACHABLE),
    (of_urllib3.ProxySchemeUnknown("ftp"), UNREACHABLE),
    (of_urllib3.HostChangedError(POOL, "https://elsewhere"), UNREACHABLE),
    # It was made, and nothing came in time.
    (of_urllib3.TimeoutError(), TIMEOUT),
    (of_urllib3.ConnectTimeoutError(CONNECTION, "Connection timed out"), TIMEOUT),
    (of_urllib3.ReadTimeoutError(POOL, "/", "Read timed out."), TIMEOUT),
    # It broke without an answer.
    (of_urllib3.ProtocolError("Connection aborted.", ConnectionResetError(104, "reset")), LOST),
    (of_urllib3.ProtocolError("Connection aborted.", ConnectionAbortedError(103, "aborted")), LOST),
    (of_urllib3.ProtocolError("Connection aborted.", BrokenPipeError(32, "broken")), LOST),
    (of_urllib3.ProtocolError("Connection aborted.", http.client.RemoteDisconnected("closed")), LOST),
    (of_urllib3.SSLError(ssl.SSLEOFError(8, "EOF occurred in violation of protocol")), LOST),
    # It broke within an answer, or the answer is not HTTP.
    (of_urllib3.ProtocolError("Connection broken", http.client.IncompleteRead(b"", 5)), UNREACHABLE),
    (of_urllib3.ProtocolError("Connection aborted.", http.client.BadStatusLine("x")), UNREACHABLE),
    (of_urllib3.IncompleteRead(0, 5), UNREACHABLE),
    (of_urllib3.InvalidChunkLength(urllib3.HTTPResponse(), b"x"), UNREACHABLE),
    (of_urllib3.ResponseNotChunked("no chunks"), UNREACHABLE),
    (of_urllib3.BodyNotHttplibCompatible("no file"), UNREACHABLE),
    (of_urllib3.HeaderParsingError([], b"x"), UNREACHABLE),
    (of_urllib3.InvalidHeader("x"), UNREACHABLE),
    (of_urllib3.DecodeError("gzip"), UNREACHABLE),
    (of_urllib3.ResponseError("too many redirects"), UNREACHABLE),
    (of_urllib3.MaxRetryError(POOL, "/", None), UNREACHABLE),
    # The pool's own.
    (of_urllib3.HTTPError("x"), UNREACHABLE),
    (of_urllib3.ConnectionError("x"), UNREACHABLE),
    (of_urllib3.PoolError(POOL, "x"), UNREACHABLE),
    (of_urllib3.RequestError(POOL, "/", "x"), UNREACHABLE),
    (of_urllib3.ClosedPoolError(POOL, "closed"), UNREACHABLE),
    (of_urllib3.EmptyPoolError(POOL, "empty"), UNREACHABLE),
    (of_urllib3.FullPoolError(POOL, "full"), UNREACHABLE),
    (of_urllib3.TimeoutStateError("x"), UNREACHABLE),
    (of_urllib3.UnrewindableBodyError("x"), UNREACHABLE),
    # The SDK's, and unforeseen ones.
    (ApiException(status=0, reason="cannot prepare a request"), UNKNOWN),
    (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), UNREADABLE),
    (ValueError("a header that cannot be sent"), UNKNOWN),
    (OSError(24, "Too many open files"), UNKNOWN),
]


def name(value: object) -> str:
    return type(value).__name__ if isinstance(value, Exception) else ""


@pytest.mark.parametrize(("error", "meaning"), MEANINGS, ids=name)
def test_what_an_error_means(error: Exception, meaning: Meaning, monkeypatch: pytest.MonkeyPatch) -> None:
    class OneKey(Credentials):
        def __init__(self) -> None:
            pass

        def current(self) -> Key:
            return Key("AKLT", "s3cr3t")

    def fail(*_: object, **__: object) -> Any:
        raise error

    monkeypatch.setattr(urllib3.PoolManager, "urlopen", fail)
    api = RtcApi(read_settings(STOP_SETTINGS), OneKey(), connections=1)
    with pytest.raises(StopError) as raised:
        api.stop_segment(Task(Room("661e", "room-1"), "audio"), None)
    assert (type(raised.value), raised.value.code) == meaning


def test_every_error_of_urllib3_is_in_the_table() -> None:
    known = {type(error) for error, _ in MEANINGS}
    errors = {kind for kind in vars(of_urllib3).values() if isinstance(kind, type) and issubclass(kind, Exception)}
    ours = {kind for kind in errors if kind.__module__ == of_urllib3.__name__ and not issubclass(kind, Warning)}
    assert ours - known == {of_urllib3.ProxySchemeUnsupported}  # raised if the proxy's URL is wrong
