"""Requests to the RTC API without a usable answer: every error that urllib3 and the SDK can raise."""

import http.client
import ssl
from typing import Any

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

UNREACHABLE = (NoAnswer, "ApiUnreachable")
TIMEOUT = (NoAnswer, "Timeout")
LOST = (ConnectionLost, "ConnectionLost")
UNKNOWN = (Retryable, "ApiUnreachable")
UNREADABLE = (Retryable, "UnreadableAnswer")
TIMEOUTS = {of_urllib3.TimeoutError, of_urllib3.ConnectTimeoutError, of_urllib3.ReadTimeoutError}
NOT_OF_A_REQUEST = {of_urllib3.ProxySchemeUnsupported}  # raised if the proxy's URL is wrong
WITH_PARTS = {of_urllib3.IncompleteRead, of_urllib3.InvalidChunkLength}  # their text needs constructor arguments

Meaning = tuple[type[StopError], str]
MEANINGS: list[tuple[Exception, Meaning]] = [
    # The connection closed without an answer.
    (of_urllib3.ProtocolError("Connection aborted.", ConnectionResetError(104, "reset")), LOST),
    (of_urllib3.ProtocolError("Connection aborted.", ConnectionAbortedError(103, "aborted")), LOST),
    (of_urllib3.ProtocolError("Connection aborted.", BrokenPipeError(32, "broken")), LOST),
    (of_urllib3.ProtocolError("Connection aborted.", http.client.RemoteDisconnected("closed")), LOST),
    (of_urllib3.SSLError(ssl.SSLEOFError(8, "EOF occurred in violation of protocol")), LOST),
    # The connection failed, or closed within an answer, or the answer is not HTTP.
    (of_urllib3.SSLError(ssl.SSLCertVerificationError(1, "self-signed certificate")), UNREACHABLE),
    (of_urllib3.ProtocolError("Connection broken", http.client.IncompleteRead(b"", 5)), UNREACHABLE),
    (of_urllib3.ProtocolError("Connection aborted.", http.client.BadStatusLine("x")), UNREACHABLE),
    (of_urllib3.IncompleteRead(0, 5), UNREACHABLE),
    (of_urllib3.InvalidChunkLength(urllib3.HTTPResponse(), b"x"), UNREACHABLE),
    # The SDK's errors, and unexpected ones.
    (ApiException(status=0, reason="cannot prepare a request"), UNKNOWN),
    (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), UNREADABLE),
    (ValueError("a header that cannot be sent"), UNKNOWN),
    (OSError(24, "Too many open files"), UNKNOWN),
]
OF_URLLIB3: list[tuple[Exception, Meaning]] = [
    (kind.__new__(kind, "x"), TIMEOUT if kind in TIMEOUTS else UNREACHABLE)
    for kind in vars(of_urllib3).values()
    if isinstance(kind, type)
    and issubclass(kind, Exception)
    and kind.__module__ == of_urllib3.__name__
    and not issubclass(kind, Warning)
    and kind not in NOT_OF_A_REQUEST | WITH_PARTS
]


def name(value: object) -> str:
    return type(value).__name__ if isinstance(value, Exception) else ""


@pytest.mark.parametrize(("error", "meaning"), MEANINGS + OF_URLLIB3, ids=name)
def test_each_error_has_its_kind_and_code(error: Exception, meaning: Meaning, monkeypatch: pytest.MonkeyPatch) -> None:
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
