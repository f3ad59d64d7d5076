"""The double of the RTC API, called by the official SDK over a socket. The tests of the client check the rest of the
double."""

import contextlib
import json
import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import urllib3
from volcenginesdkcore import ApiClient, Configuration, UniversalApi, UniversalInfo
from volcenginesdkcore.rest import ApiException

from sandbox.faults import INTERNAL_ERROR, SERVICE_UNAVAILABLE
from sandbox.rtc_double import RtcDouble

KEY, SECRET = "AKLT-one", "c2VjcmV0"
TASK = ("app", "math-101", "audio")
OTHER_TASK = ("app", "math-101", "video")
IDS = {"AppId": "app", "RoomId": "math-101", "TaskId": "audio"}
OTHER_IDS = {**IDS, "TaskId": "video"}
REGIONS = {"volcengine": "cn-north-1", "volcengine-ap-singapore": "ap-singapore-1", "byteplus": "ap-singapore-1"}


@pytest.fixture
def double() -> Iterator[RtcDouble]:
    with RtcDouble(secrets={KEY: SECRET}) as running:
        running.start_task(*TASK)
        yield running


def call(
    double: RtcDouble, ids: Mapping[str, object] = IDS, action: str = "StopSegment", version: str = "2023-11-01"
) -> Any:
    configuration = Configuration()
    configuration.host, configuration.scheme, configuration.region = double.url, "http", REGIONS[double.platform]
    configuration.ak, configuration.sk, configuration.auto_retry = KEY, SECRET, False
    method = "POST" if action == "StopSegment" else "GET"
    info = UniversalInfo(method=method, service="rtc", version=version, action=action, content_type="application/json")
    return UniversalApi(ApiClient(configuration)).do_call(info, ids)


def refusal(double: RtcDouble, *request: Any) -> tuple[int, str, int | None]:
    """Call, and return HTTP status, Code and CodeN of the refusal."""
    with pytest.raises(ApiException) as raised:
        call(double, *request)
    answer = json.loads(raised.value.body)
    error = answer["ResponseMetadata"]["Error"]
    assert answer["Result"] == ""
    assert error["Message"]
    return raised.value.status, error["Code"], error.get("CodeN")


def control(double: RtcDouble, method: str, command: str, body: object = None) -> tuple[int, Any]:
    raw = body if isinstance(body, bytes) else json.dumps(body)
    response = urllib3.request(method, f"{double.url}/_control/{command}", body=raw)
    return response.status, response.json()


@pytest.mark.parametrize(
    ("changes", "refused_as"),
    [
        ({"AppId": 7}, "IllegalAppId"),
        ({"AppId": "another"}, "NotExistAppId"),
        ({"RoomId": "x" * 129}, "IllegalRoomID"),
        ({"TaskId": "audio\n"}, "IllegalTaskID"),
        ({"BusinessId": ""}, "IllegalBusinessID"),
    ],
)
def test_an_illegal_or_unknown_id_is_refused(changes: dict[str, Any], refused_as: str) -> None:
    with RtcDouble(secrets={KEY: SECRET}, app_ids={"app"}) as double:
        double.start_task(*TASK)
        assert refusal(double, IDS | changes) == (400, f"InvalidParameter.{refused_as}", None)
        assert double.is_running(*TASK)


class TestGateway:
    @pytest.mark.parametrize(
        ("platform", "stop_segment_versions"),
        [
            ("volcengine", {"2020-12-01", "2023-11-01"}),
            ("volcengine-ap-singapore", {"2020-12-01", "2023-11-01"}),
            ("byteplus", {"2022-06-01"}),
        ],
    )
    @pytest.mark.parametrize("version", ["2020-12-01", "2022-06-01", "2023-11-01"])
    def test_each_platform_knows_its_versions(
        self, platform: str, stop_segment_versions: set[str], version: str
    ) -> None:
        known = {"StopSegment": stop_segment_versions, "GetSegmentTask": {"2022-06-01", "2023-11-01"}}
        known["GetRoomOnlineUsers"] = {"2023-11-01"}
        with RtcDouble(secrets={KEY: SECRET}, platform=platform) as double:
            double.start_task(*TASK)
            for action in ("GetRoomOnlineUsers", "GetSegmentTask", "StartSegment", "StopSegment"):
                if version in known.get(action, ()):
                    assert call(double, IDS, action, version)
                else:
                    assert refusal(double, IDS, action, version) == (404, "InvalidActionOrVersion", 100008)

    @pytest.mark.parametrize(
        ("action", "limit"), [("StopSegment", 150), ("GetSegmentTask", 60), ("GetRoomOnlineUsers", 40)]
    )
    def test_a_request_over_the_limit_is_refused_and_counts(
        self, double: RtcDouble, action: str, limit: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        now = time.time()
        monkeypatch.setattr("sandbox.rtc_gateway.time", SimpleNamespace(time=lambda: now))

        def status() -> int | None:
            with contextlib.suppress(ApiException):
                call(double, IDS, action)
            return double.requests[-1].http_status

        assert {status() for _ in range(limit)} <= {200, 400}  # only the first one finds the task running
        now += 0.9
        assert refusal(double, IDS, action) == (429, "FlowLimitExceeded.QPSOverLimit", None)
        assert double.busiest_second(action) == limit + 1
        now += 0.2
        assert status() in {200, 400}
        assert double.busiest_second() == limit + 1


NODE = json.loads((Path(__file__).parent / "node_requests.json").read_text())["requests"]


@pytest.mark.parametrize("recorded", NODE, ids=lambda recorded: recorded["method"])
def test_a_request_of_the_official_node_client_is_accepted(
    double: RtcDouble, monkeypatch: pytest.MonkeyPatch, recorded: dict[str, Any]
) -> None:
    """The official Node client signs neither the host nor the content type, and does not hash an empty body."""
    sent_at = datetime.strptime(recorded["headers"]["x-date"], "%Y%m%dT%H%M%S%z").timestamp()
    monkeypatch.setattr("sandbox.rtc_gateway.time", SimpleNamespace(time=lambda: sent_at))
    url, headers = double.url + recorded["target"], recorded["headers"]
    response = urllib3.request(recorded["method"], url, headers=headers, body=recorded["body"] or None)
    assert (response.status, double.requests[0].code) == (200, "")
    forged = urllib3.request(recorded["method"], url.replace("&", "&a=b&", 1), headers=headers, body=recorded["body"])
    assert (forged.status, double.requests[1].code) == (401, "SignatureDoesNotMatch")


def test_a_fault_lasts_for_the_next_requests_of_its_task_or_until_healed(double: RtcDouble) -> None:
    double.start_task(*OTHER_TASK)
    double.fail(SERVICE_UNAVAILABLE, next_requests=2, task=TASK)
    double.fail(INTERNAL_ERROR, task=TASK)
    assert call(double, OTHER_IDS) == "ok"
    assert [refusal(double)[0] for _ in range(4)] == [503, 503, 500, 500]
    double.heal()
    assert call(double) == "ok"


class TestControl:
    def test_a_command_needs_no_signature(self, double: RtcDouble) -> None:
        assert control(double, "POST", "tasks", OTHER_IDS)[0] == 200
        fault = {"kind": "error", "status": 503, "next_requests": 1, "task": list(OTHER_TASK)}
        assert control(double, "POST", "fail", fault)[0] == 200
        assert refusal(double, OTHER_IDS)[0] == 503
        assert call(double, OTHER_IDS) == "ok"
        assert control(double, "POST", "fail", {"kind": "drop"})[0] == 200
        assert control(double, "POST", "heal") == (200, {})
        assert call(double) == "ok"
        status, requests = control(double, "GET", "requests")
        assert (status, [request["http_status"] for request in requests]) == (200, [503, 200, 200])

    @pytest.mark.parametrize(
        ("command", "body", "sentence"),
        [
            ("tasks", b"{", "The body must be a JSON object."),
            ("fail", b"[]", "The body must be a JSON object."),
            ("tasks", {"AppId": "app", "RoomId": "math-101"}, "TaskId is required"),
            ("tasks", {**IDS, "Start": 1}, "Start is unknown"),
            ("fail", {"kind": "melt"}, "kind must be one of error, delay"),
            ("fail", {"kind": "error", "status": True}, "status must be of type int, not bool"),
            ("fail", {"kind": "error", "status": 9}, "status must be an HTTP status"),
            ("fail", {"kind": "drop", "next_requests": 0}, "next_requests must be 1 or more"),
            ("fail", {"kind": "drop", "task": ["app", "room"]}, "task must be [AppId, RoomId, TaskId]"),
        ],
    )
    def test_a_bad_command_is_answered_with_a_sentence(
        self, double: RtcDouble, command: str, body: object, sentence: str
    ) -> None:
        status, answer = control(double, "POST", command, body)
        assert status == 400
        assert answer["error"].startswith(sentence)
        assert answer["error"].endswith(".")
