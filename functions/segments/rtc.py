"""The RTC API. Only this module knows the Volcengine SDK.

The SDK loses the RequestId of a success and garbles some failures. So each answer is captured before the SDK
interprets the answer, and `api_answers` judges the captured answer in every possible form.
"""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass

from urllib3.exceptions import HTTPError, NewConnectionError, ProtocolError, SSLError
from urllib3.exceptions import TimeoutError as HttpTimeoutError
from volcenginesdkcore import ApiClient, Configuration, UniversalApi, UniversalInfo
from volcenginesdkcore.auth.providers.provider import CredentialValue, Provider
from volcenginesdkcore.interceptor import InterceptorContext, RequestInterceptor, ResponseInterceptor
from volcenginesdkcore.rest import ApiException

from segments.api_answers import TASK_NOT_FOUND, Answer, Whose
from segments.credentials import Credentials, Key
from segments.errors import ConnectionLost, CredentialsRefused, KeyRenewed, NoAnswer, Retryable, StopError
from segments.events import Room, Task
from segments.settings import SharedSettings
from segments.stop_rules import Outcome, RunningTask

QUERY_VERSION = "2022-06-01"  # GetSegmentTask has this version on every platform
ROOM_QUERY_VERSION = "2023-11-01"  # GetRoomOnlineUsers has this version on every platform


@dataclass(frozen=True)
class Stopped:
    """A stop that the API confirms: `outcome` is STOPPED or ALREADY_STOPPED."""

    outcome: Outcome
    request_id: str | None


class RtcApi:
    """Calls StopSegment, GetSegmentTask and GetRoomOnlineUsers, each with one HTTP request. The class is thread-safe.

    Every method calls `sending` just before the request is sent, and may raise `Rejected` or `Retryable`. At most
    `connections` calls may be under way at once.
    """

    def __init__(self, settings: SharedSettings, credentials: Credentials, connections: int) -> None:
        self._credentials = credentials
        self._version = settings.rtc_version
        self._exchange = _Exchange()
        configuration = Configuration()
        configuration.host = settings.rtc_endpoint
        configuration.scheme = settings.rtc_endpoint.partition(":")[0]
        configuration.region = settings.rtc_region
        configuration.connect_timeout = settings.rtc_connect_timeout_seconds
        configuration.read_timeout = settings.rtc_read_timeout_seconds
        configuration.auto_retry = False  # the SDK's silent retries would be requests that the pace does not count
        configuration.connection_pool_maxsize = connections
        configuration.credential_provider = _ExchangeKey(self._exchange)
        client = ApiClient(configuration)
        client.interceptor_chain.append_request_interceptor(_NoteSending(self._exchange))
        client.interceptor_chain.insert_response_interceptor(_KeepAnswer(self._exchange))
        self._api = UniversalApi(client)

    def stop_segment(self, task: Task, business_id: str | None, sending: Callable[[], None] = lambda: None) -> Stopped:
        """Stop a task (StopSegment page of the API)."""
        body = _ids(task.room) | {"TaskId": task.task_id} | ({"BusinessId": business_id} if business_id else {})
        answer = self._call("POST", "StopSegment", self._version, body, sending)
        if answer.error_code == TASK_NOT_FOUND:
            return Stopped(Outcome.ALREADY_STOPPED, answer.request_id)
        if answer.result != "ok":
            raise answer.failure()
        return Stopped(Outcome.STOPPED, answer.request_id)

    def get_segment_task(
        self, task: Task, sending: Callable[[], None] = lambda: None
    ) -> tuple[RunningTask | None, str | None]:
        """Return the state of a task (None if the API does not know the task) and the RequestId of the answer."""
        query = _ids(task.room) | {"TaskId": task.task_id}
        answer = self._call("GET", "GetSegmentTask", QUERY_VERSION, query, sending)
        if answer.error_code == TASK_NOT_FOUND:
            return None, answer.request_id
        found = answer.result.get("SegmentTask") if isinstance(answer.result, dict) else None
        if not isinstance(found, dict):
            raise answer.failure()
        times = [found.get(name) or 0 for name in ("StartTime", "EndTime", "Status")]
        if not all(isinstance(value, int) for value in times):
            raise Retryable("UnreadableAnswer", "StartTime, EndTime and Status must be numbers", answer.request_id)
        return RunningTask(*times), answer.request_id

    def room_exists(self, room: Room, sending: Callable[[], None] = lambda: None) -> bool:
        """Return whether a room exists now (document 1188355 of the API). An answer without this value is an error."""
        answer = self._call("GET", "GetRoomOnlineUsers", ROOM_QUERY_VERSION, _ids(room), sending)
        said = answer.result if isinstance(answer.result, dict) else {}
        # BytePlus writes the second name.
        exists = [said[name] for name in ("RoomExists", "RoomExist") if name in said]
        if len(exists) != 1 or not isinstance(exists[0], bool):
            raise answer.failure()
        return exists[0]

    def _call(
        self, method: str, action: str, version: str, content: dict[str, str], sending: Callable[[], None]
    ) -> Answer:
        key = self._credentials.current()
        self._exchange.key, self._exchange.answer, self._exchange.sending = key, None, sending
        info = UniversalInfo(
            method=method, service="rtc", version=version, action=action, content_type="application/json"
        )
        failure = None
        try:
            self._api.do_call(info, content)
        except Exception as error:  # noqa: BLE001 - whatever the SDK raises, the message must not be lost
            failure = error
        # Outside the except block: the SDK's error may quote the key, and would become the context of ours.
        answer = self._exchange.answer or _answer_in(failure)
        if answer.row.whose is Whose.KEY:
            raise self._refusal(key, answer)
        return answer

    def _refusal(self, key: Key, answer: Answer) -> StopError:
        try:
            renewed = self._credentials.renewed(key)
        except CredentialsRefused as error:
            return CredentialsRefused(error.code, error.message, answer.request_id)
        if renewed:
            return KeyRenewed("KeyRenewed", "the API refused a key that the secret no longer holds", answer.request_id)
        return answer.failure()


class _Exchange(threading.local):
    """The call under way in a thread: the key, the function to call before the request is sent, and the raw answer."""

    key: Key
    answer: Answer | None
    sending: Callable[[], None]


class _OfExchange:
    def __init__(self, exchange: _Exchange) -> None:
        self._exchange = exchange


class _ExchangeKey(_OfExchange, Provider):  # type: ignore[misc] # the SDK has no types
    def get_credentials(self) -> CredentialValue:
        key = self._exchange.key
        return CredentialValue(key.access_key_id, key.secret_access_key, key.session_token)


class _NoteSending(_OfExchange, RequestInterceptor):  # type: ignore[misc] # the SDK has no types
    def name(self) -> str:
        return "note-sending"

    def intercept(self, context: InterceptorContext) -> InterceptorContext:
        self._exchange.sending()
        return context


class _KeepAnswer(_OfExchange, ResponseInterceptor):  # type: ignore[misc] # the SDK has no types
    def name(self) -> str:
        return "keep-answer"

    def intercept(self, context: InterceptorContext) -> InterceptorContext:
        response = context.response.http_response
        self._exchange.answer = Answer.read(response.status, response.data)
        return context


def _ids(room: Room) -> dict[str, str]:
    return {"AppId": room.app_id, "RoomId": room.room_id}


def _answer_in(error: Exception | None) -> Answer:
    """Find the answer in the SDK's error, or raise the error for a missing answer."""
    if isinstance(error, ApiException) and error.status:
        return Answer.read(error.status, error.body)
    if isinstance(error, UnicodeDecodeError):
        raise Retryable("UnreadableAnswer", "the API's answer is not UTF-8: check RtcEndpoint") from None
    # The SDK turns urllib3's SSLError into an ApiException without a status.
    cause = error.__context__ if isinstance(error, ApiException) else error
    if isinstance(cause, (ProtocolError, SSLError)) and isinstance(cause.args[-1], (ConnectionError, ssl.SSLEOFError)):
        raise ConnectionLost("ConnectionLost", "the API closed the connection without an answer: try later") from None
    # In urllib3 2 a NewConnectionError is a subclass of the time-outs.
    if isinstance(cause, HttpTimeoutError) and not isinstance(cause, NewConnectionError):
        raise NoAnswer("Timeout", f"the API did not answer in time ({type(cause).__name__}): try later") from None
    kind = NoAnswer if isinstance(cause, HTTPError) else Retryable
    # From None: the SDK's error about an unsent request may quote its headers.
    raise kind("ApiUnreachable", f"no full answer ({type(cause or error).__name__}): check RtcEndpoint") from None
