"""The client of the RTC API with the API's double, over a real socket."""

import json
import logging
import socket
import threading
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest

from sandbox.faults import DOCUMENTED, Fault
from sandbox.rtc_double import RtcDouble
from sandbox.rtc_gateway import ApiRequest
from segments.api_answers import row_of
from segments.errors import (
    ConnectionLost,
    CredentialsRefused,
    KeyRenewed,
    NoAnswer,
    Rejected,
    Retryable,
    SetupRefused,
    StopError,
    TooManyRequests,
)
from segments.events import Room, Task
from segments.rtc import RtcApi, Stopped
from segments.stop_rules import Outcome, RunningTask
from stop_segment.settings import read_settings
from tests.environments import ACCEPTED, RTC_KEY, STOP_SETTINGS
from tests.integration.conftest import Secret

NEW_KEY = {"AccessKeyId": "AKLT-two", "SecretAccessKey": "s3cr3t-two"}
NEW_ACCEPTED = {"AKLT-two": "s3cr3t-two"}
TASK = Task(Room("app", "math-101"), "audio")
TASK_KEY = ("app", "math-101", "audio")
ROOM_IDS = {"AppId": "app", "RoomId": "math-101"}
IDS = ROOM_IDS | {"TaskId": "audio"}
PLATFORMS = ["volcengine", "volcengine-ap-singapore", "byteplus"]


@pytest.fixture
def double() -> Iterator[RtcDouble]:
    with RtcDouble(secrets=ACCEPTED) as running:
        running.start_task(*TASK_KEY, start_time_ms=1_000)
        yield running


@pytest.fixture
def api(double: RtcDouble, secret: Secret) -> RtcApi:
    return connect(double.url, secret)


def connect(url: str, secret: Secret, platform: str = "volcengine", read_timeout_seconds: float = 5) -> RtcApi:
    environment = STOP_SETTINGS | {"RTC_PLATFORM": platform, "RTC_ENDPOINT": url}
    settings = replace(read_settings(environment), rtc_read_timeout_seconds=read_timeout_seconds)
    return RtcApi(settings, secret.credentials, connections=32)


def refusal(call: Callable[[], object]) -> StopError:
    with pytest.raises(StopError) as raised:
        call()
    return raised.value


def only_request(double: RtcDouble) -> ApiRequest:
    (request,) = double.requests
    return request


@dataclass
class Answers:
    """A server's URL, and the Authorization headers that it received."""

    url: str
    signed: list[str] = field(default_factory=list)


@contextmanager
def answering(status: int, body: Callable[[str], bytes]) -> Iterator[Answers]:
    """Serve answers that the double cannot give; `body` returns an answer for the Authorization of the request."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            answers.signed.append(self.headers["Authorization"])
            content = body(answers.signed[-1])
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST  # noqa: N815 - http.server calls it so

        def log_message(self, *_: object) -> None:
            """Write no log."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        server.block_on_close = False
        answers = Answers(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield answers
        finally:
            server.shutdown()
            thread.join()


def answer(result: object = "", **metadata: object) -> bytes:
    return json.dumps({"Result": result, "ResponseMetadata": {"RequestId": "request-1"} | metadata}).encode()


class TestStopSegment:
    @pytest.mark.parametrize("platform", PLATFORMS)
    def test_a_running_task_is_stopped_on_every_platform(self, secret: Secret, platform: str) -> None:
        with RtcDouble(secrets=ACCEPTED, platform=platform) as double:
            double.start_task(*TASK_KEY)
            stopped = connect(double.url, secret, platform).stop_segment(TASK, None)
            assert not double.is_running(*TASK_KEY)
            assert stopped == Stopped(Outcome.STOPPED, only_request(double).request_id)

    @pytest.mark.parametrize(
        ("business_id", "body"), [("biz-1", IDS | {"BusinessId": "biz-1"}), (None, IDS), ("", IDS)]
    )
    def test_an_event_without_a_business_id_makes_a_request_without_one(
        self, double: RtcDouble, api: RtcApi, business_id: str | None, body: dict[str, str]
    ) -> None:
        api.stop_segment(TASK, business_id)
        request = only_request(double)
        assert (request.method, request.action, request.version) == ("POST", "StopSegment", "2020-12-01")
        assert request.body == body

    def test_every_character_of_an_id_is_signed_and_understood(self, double: RtcDouble, api: RtcApi) -> None:
        odd = Task(Room("a@b.c", "r_-." + "x" * 124), "@._-")
        double.start_task("a@b.c", odd.room.room_id, "@._-", start_time_ms=7)
        assert api.get_segment_task(odd)[0] == RunningTask(7, 0, 2)
        assert api.stop_segment(odd, "b@z").outcome is Outcome.STOPPED

    def test_a_temporary_key_is_sent_with_its_token(self, secret: Secret) -> None:
        secret.put(RTC_KEY | {"SessionToken": "t0ken", "Note": "unknown names are ignored"})
        with RtcDouble(secrets=ACCEPTED, session_tokens={"AKLT-one": "t0ken"}) as double:
            double.start_task(*TASK_KEY)
            assert connect(double.url, secret).stop_segment(TASK, None).outcome is Outcome.STOPPED


class TestGetSegmentTask:
    def test_a_running_task_has_its_start(self, double: RtcDouble, api: RtcApi) -> None:
        assert api.get_segment_task(TASK) == (RunningTask(1_000, 0, 2), only_request(double).request_id)
        request = only_request(double)
        assert (request.method, request.action, request.version) == ("GET", "GetSegmentTask", "2022-06-01")
        assert request.task == TASK_KEY

    def test_a_task_that_has_ended_has_its_end(self, double: RtcDouble, api: RtcApi) -> None:
        double.end_task(*TASK_KEY)
        ended = double.task(*TASK_KEY)
        assert ended is not None
        assert api.get_segment_task(TASK)[0] == RunningTask(1_000, ended.end_time_ms, 3)

    @pytest.mark.parametrize(
        ("result", "task"),
        [
            ({"SegmentTask": {}}, RunningTask(0, 0, 0)),
            ({"SegmentTask": {"StartTime": None, "EndTime": None, "Status": 1}}, RunningTask(0, 0, 1)),
            (
                {"SegmentTask": {"StartTime": 5, "EndTime": 0, "Status": 2, "StopReason": "", "New": []}},
                RunningTask(5, 0, 2),
            ),
        ],
    )
    def test_a_missing_time_or_status_is_zero(self, secret: Secret, result: object, task: RunningTask) -> None:
        with answering(200, lambda _: answer(result)) as server:
            assert connect(server.url, secret).get_segment_task(TASK) == (task, "request-1")

    @pytest.mark.parametrize(
        "result",
        [
            "ok",
            {},
            {"SegmentTask": []},
            {"SegmentTask": {"StartTime": "5"}},
            {"SegmentTask": {"EndTime": 5.5}},
            {"SegmentTask": {"Status": [2]}},
        ],
    )
    def test_an_unreadable_state_of_a_task_is_retried(self, secret: Secret, result: object) -> None:
        with answering(200, lambda _: answer(result)) as server:
            error = refusal(lambda: connect(server.url, secret).get_segment_task(TASK))
        assert (type(error), error.code, error.request_id) == (Retryable, "UnreadableAnswer", "request-1")


class TestRoomExists:
    @pytest.mark.parametrize("platform", PLATFORMS)
    def test_a_room_exists_until_it_is_closed_on_every_platform(self, secret: Secret, platform: str) -> None:
        with RtcDouble(secrets=ACCEPTED, platform=platform) as double:
            api = connect(double.url, secret, platform)
            double.start_task(*TASK_KEY)
            assert api.room_exists(TASK.room) is True
            double.close_room("app", "math-101")
            assert api.room_exists(TASK.room) is False
            request = double.requests[-1]
        assert (request.method, request.action, request.version) == ("GET", "GetRoomOnlineUsers", "2023-11-01")
        assert request.query == ROOM_IDS | {"Action": request.action, "Version": request.version}

    @pytest.mark.parametrize("exists", [True, False])
    @pytest.mark.parametrize("name", ["RoomExists", "RoomExist"])
    def test_both_spellings_of_the_field_are_understood(self, secret: Secret, name: str, exists: bool) -> None:
        with answering(200, lambda _: answer({name: exists, "TotalUser": 0, "New": []})) as server:
            assert connect(server.url, secret).room_exists(TASK.room) is exists

    @pytest.mark.parametrize(
        "result",
        [
            False,
            [False],
            {"TotalUser": 0},
            {"RoomExists": None},
            {"RoomExists": "false"},
            {"RoomExists": 0},
            {"RoomExists": True, "RoomExist": False},
            {"RoomExists": None, "RoomExist": False},
        ],
    )
    def test_an_unreadable_answer_does_not_mean_that_the_room_is_gone(self, secret: Secret, result: object) -> None:
        with answering(200, lambda _: answer(result)) as server:
            error = refusal(lambda: connect(server.url, secret).room_exists(TASK.room))
        assert (type(error), error.code, error.request_id) == (Retryable, "UnreadableAnswer", "request-1")

    @pytest.mark.parametrize(
        ("status", "body"),
        [
            pytest.param(500, answer({"RoomExists": False}), id="with status 500"),
            pytest.param(200, answer({"RoomExists": False}, Error={"Code": "InternalError"}), id="with an error"),
            pytest.param(200, b'{"Result": {"RoomExists": false}}', id="without metadata"),
        ],
    )
    def test_an_error_does_not_mean_that_the_room_is_gone(self, secret: Secret, status: int, body: bytes) -> None:
        with answering(status, lambda _: body) as server:
            assert type(refusal(lambda: connect(server.url, secret).room_exists(TASK.room))) is Retryable


STOP = pytest.param(lambda api: api.stop_segment(TASK, None), id="StopSegment")
QUERY = pytest.param(lambda api: api.get_segment_task(TASK), id="GetSegmentTask")
ROOM_QUERY = pytest.param(lambda api: api.room_exists(TASK.room), id="GetRoomOnlineUsers")
BOTH_ACTIONS = pytest.mark.parametrize("call", [STOP, QUERY])
EVERY_ACTION = pytest.mark.parametrize("call", [STOP, QUERY, ROOM_QUERY])
Call = Callable[[RtcApi], object]


def test_every_documented_code_has_a_row_in_the_table_of_codes() -> None:
    assert [code for code in DOCUMENTED if row_of(code) is None] == []


@BOTH_ACTIONS
@pytest.mark.parametrize("status", [200, 400, 404, 500])
def test_a_task_that_does_not_exist_is_no_error(double: RtcDouble, api: RtcApi, call: Call, status: int) -> None:
    double.fail(Fault("error", status=status, code="InvalidParameter.ErrorActiveTaskNotFound"))
    found = call(api)
    request_id = only_request(double).request_id
    assert found in (Stopped(Outcome.ALREADY_STOPPED, request_id), (None, request_id))


@EVERY_ACTION
class TestAnswers:
    """The answers of the API as they come through the SDK; test_api_answers.py holds the table of all codes."""

    @pytest.mark.parametrize(
        ("status", "code", "code_n", "kind"),
        [
            (429, "FlowLimitExceeded.QPSOverLimit", None, TooManyRequests),
            (200, "FlowLimitExceeded.QPSOverLimit", None, TooManyRequests),
            (500, "InternalError", None, Retryable),
            (401, "InvalidAccessKey", 100009, CredentialsRefused),
            (400, "SomethingElse", 100012, CredentialsRefused),
            (403, "AccessDenied.RecordNotEnabled", 100013, SetupRefused),
            (504, "InvalidParameter.NotExistAppId", None, Rejected),
            (400, "SomethingElse", None, Rejected),
            (200, "SomethingElse", 123, Retryable),
        ],
    )
    def test_each_error_raises_the_class_of_its_code(
        self, double: RtcDouble, api: RtcApi, call: Call, status: int, code: str, code_n: int | None, kind: type
    ) -> None:
        double.fail(Fault("error", status=status, code=code, code_n=code_n))
        error = refusal(lambda: call(api))
        request = only_request(double)  # and no silent retry
        assert (type(error), error.code, error.request_id) == (kind, code, request.request_id)

    @pytest.mark.parametrize(
        ("kind", "status", "error", "code", "has_request_id"),
        [
            ("html", 502, Retryable, "Http502", False),
            ("html", 429, TooManyRequests, "Http429", False),
            ("html", 302, Retryable, "Http302", False),
            ("html", 401, Retryable, "Http401", False),
            ("html_ok", None, Retryable, "UnreadableAnswer", False),
            ("list", None, Retryable, "UnreadableAnswer", False),
            ("empty", None, Retryable, "UnreadableAnswer", False),
            ("not_utf8", None, Retryable, "UnreadableAnswer", False),
            ("not_utf8", 500, Retryable, "UnreadableAnswer", False),
            ("no_metadata", None, Retryable, "UnreadableAnswer", False),
            ("no_result", None, Retryable, "UnreadableAnswer", True),
            ("empty_result", None, Retryable, "UnreadableAnswer", True),
            ("half_body", None, NoAnswer, "ApiUnreachable", False),
        ],
    )
    def test_each_answer_that_is_no_error_and_no_success_is_retried(
        self,
        double: RtcDouble,
        api: RtcApi,
        call: Call,
        kind: str,
        status: int | None,
        error: type[StopError],
        code: str,
        has_request_id: bool,
    ) -> None:
        double.fail(Fault(kind, status=status))
        raised = refusal(lambda: call(api))
        request = only_request(double)  # and no silent retry
        assert (type(raised), raised.code) == (error, code)
        assert raised.request_id == (request.request_id if has_request_id else None)

    @pytest.mark.parametrize(
        "body",
        [
            pytest.param(b"[" * 100_000, id="deep"),
            pytest.param(answer("OK"), id="almost ok"),
            pytest.param(answer(["ok"]), id="ok in a list"),
            pytest.param(answer("ok", Error="not an object"), id="an error that is a string"),
        ],
    )
    def test_an_odd_answer_is_no_success(self, secret: Secret, call: Call, body: bytes) -> None:
        with answering(200, lambda _: body) as server:
            assert type(refusal(lambda: call(connect(server.url, secret)))) is Retryable

    def test_a_kept_connection_that_broke_is_worth_another_try(
        self, double: RtcDouble, api: RtcApi, call: Call
    ) -> None:
        call(api)
        double.start_task(*TASK_KEY)
        double.fail(Fault("drop"), next_requests=1)
        assert type(refusal(lambda: call(api))) is ConnectionLost
        assert call(api)

    def test_a_late_answer_is_a_time_out_and_the_request_is_not_repeated(
        self, double: RtcDouble, secret: Secret, call: Call
    ) -> None:
        double.fail(Fault("delay", delay_seconds=30))
        error = refusal(lambda: call(connect(double.url, secret, read_timeout_seconds=0.2)))
        assert (type(error), error.code) == (NoAnswer, "Timeout")
        assert len(double.requests) == 1

    def test_an_api_that_cannot_be_reached_gives_no_answer(self, secret: Secret, call: Call) -> None:
        with socket.socket() as unheard:  # bound, so that no other server listens there
            unheard.bind(("127.0.0.1", 0))
            error = refusal(lambda: call(connect(f"http://127.0.0.1:{unheard.getsockname()[1]}", secret)))
        assert (type(error), error.code, error.request_id) == (NoAnswer, "ApiUnreachable", None)


def test_a_stop_whose_answer_was_lost_is_confirmed_by_the_next_try(double: RtcDouble, api: RtcApi) -> None:
    double.fail(Fault("drop_after"), next_requests=1)
    assert type(refusal(lambda: api.stop_segment(TASK, None))) is ConnectionLost
    assert api.stop_segment(TASK, None).outcome is Outcome.ALREADY_STOPPED


@EVERY_ACTION
class TestRefusedKey:
    def test_the_secret_s_new_key_is_worth_another_try(
        self, double: RtcDouble, secret: Secret, api: RtcApi, call: Call
    ) -> None:
        call(api)
        double.start_task(*TASK_KEY)
        double.secrets = NEW_ACCEPTED
        secret.put(NEW_KEY)
        error = refusal(lambda: call(api))
        assert type(error) is KeyRenewed
        assert error.request_id == double.requests[-1].request_id
        assert call(api)
        assert secret.reads == 2

    def test_a_refused_key_is_kept_while_the_secret_holds_no_other(
        self, double: RtcDouble, secret: Secret, api: RtcApi, call: Call
    ) -> None:
        call(api)
        double.secrets = NEW_ACCEPTED
        secret.put({})
        error = refusal(lambda: call(api))
        assert (type(error), error.code) == (CredentialsRefused, "SecretInvalid")
        assert error.request_id == double.requests[-1].request_id
        double.secrets = ACCEPTED
        double.start_task(*TASK_KEY)
        assert call(api)


def test_each_of_many_answers_belongs_to_its_request(double: RtcDouble, api: RtcApi) -> None:
    tasks = [Task(Room("app", "math-101"), f"task-{number}") for number in range(96)]
    for task in tasks[::2]:
        double.start_task("app", "math-101", task.task_id)
    gate = threading.Barrier(32)

    def stop(number: int) -> Stopped:
        gate.wait()
        return api.stop_segment(tasks[number], f"biz-{number}")

    with ThreadPoolExecutor(32) as threads:
        results = list(threads.map(stop, range(len(tasks))))
    for number, task in enumerate(tasks):
        (request,) = double.requests_for(task_id=task.task_id)
        assert request.body is not None
        assert request.body["BusinessId"] == f"biz-{number}"
        outcome = Outcome.ALREADY_STOPPED if number % 2 else Outcome.STOPPED
        assert results[number] == Stopped(outcome, request.request_id)


class TestSecrecy:
    """No key, token or signature in readable output."""

    SECRET: ClassVar = {"AccessKeyId": "AKLT-0ne", "SecretAccessKey": "s3cr3t-0ne", "SessionToken": "t0ken-0ne"}

    @BOTH_ACTIONS
    @pytest.mark.parametrize(
        ("status", "body"),
        [
            pytest.param(
                401, lambda signed: answer(Error={"Code": "SignatureDoesNotMatch", "Message": signed}), id="refused key"
            ),
            pytest.param(502, lambda signed: f"<html>{signed}</html>".encode(), id="gateway's page"),
            pytest.param(200, lambda signed: f"<html>{signed}</html>".encode(), id="page"),
            pytest.param(200, lambda signed: signed.encode() + b"\xff", id="not UTF-8"),
        ],
    )
    def test_errors_show_no_key_and_no_signature(
        self,
        secret: Secret,
        caplog: pytest.LogCaptureFixture,
        call: Call,
        status: int,
        body: Callable[[str], bytes],
    ) -> None:
        caplog.set_level(logging.INFO)
        secret.put(self.SECRET)
        with answering(status, body) as server:
            error = refusal(lambda: call(connect(server.url, secret)))
        signature = server.signed[0].rpartition("Signature=")[2]
        assert len(signature) == 64
        shown = repr(error) + "".join(traceback.format_exception(error)) + caplog.text
        assert not [word for word in (signature, *self.SECRET.values()) if word in shown]
