"""The official SDK calls the double over a real socket."""

import json
import time
from collections.abc import Callable, Iterator
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
ROOM_IDS = {"AppId": "app", "RoomId": "math-101"}
OTHER_IDS = {**IDS, "TaskId": "video"}
NOT_FOUND = "InvalidParameter.ErrorActiveTaskNotFound"
REGIONS = {"volcengine": "cn-north-1", "volcengine-ap-singapore": "ap-singapore-1", "byteplus": "ap-singapore-1"}


@pytest.fixture
def double() -> Iterator[RtcDouble]:
    with RtcDouble(secrets={KEY: SECRET}) as running:
        running.start_task(*TASK)
        yield running


def api(double: RtcDouble, **settings: Any) -> UniversalApi:
    configuration = Configuration()
    ours = {"host": double.url, "scheme": "http", "ak": KEY, "sk": SECRET, "region": REGIONS[double.platform]}
    for name, value in {**ours, "auto_retry": False, "read_timeout": 5, **settings}.items():
        setattr(configuration, name, value)
    return UniversalApi(ApiClient(configuration))


def call(client: UniversalApi, ids: dict[str, Any], action: str = "StopSegment", version: str = "2023-11-01") -> Any:
    method = "POST" if action == "StopSegment" else "GET"
    info = UniversalInfo(method=method, service="rtc", version=version, action=action, content_type="application/json")
    return client.do_call(info, ids)


def call_in_any_case(client: UniversalApi, action: str) -> None:
    """Call without minding whether the task still runs."""
    try:
        call(client, IDS, action)
    except ApiException as error:
        assert NOT_FOUND in error.body  # noqa: PT017 - only some of the calls fail


def stop(double: RtcDouble, ids: dict[str, Any] = IDS, **settings: Any) -> object:
    return call(api(double, **settings), ids)


def segment_task(double: RtcDouble, ids: dict[str, str] = IDS) -> dict[str, Any]:
    task: dict[str, Any] = call(api(double), ids, "GetSegmentTask")["SegmentTask"]
    return task


def room(double: RtcDouble, ids: dict[str, str] = ROOM_IDS) -> dict[str, Any]:
    found: dict[str, Any] = call(api(double), ids, "GetRoomOnlineUsers")
    return found


def refusal(make: Callable[..., object], *args: Any, **settings: Any) -> tuple[int, str, int | None]:
    """Call, and return HTTP status, Code and CodeN of the refusal."""
    with pytest.raises(ApiException) as raised:
        make(*args, **settings)
    answer = json.loads(raised.value.body)
    error = answer["ResponseMetadata"]["Error"]
    assert answer["Result"] == ""
    assert error["Message"]
    return raised.value.status, error["Code"], error.get("CodeN")


def control(double: RtcDouble, method: str, command: str, body: object = None) -> tuple[int, Any]:
    raw = body if isinstance(body, bytes) else json.dumps(body)
    response = urllib3.request(method, f"{double.url}/_control/{command}", body=raw)
    return response.status, response.json()


class TestStopSegment:
    @pytest.mark.parametrize(
        ("body", "refused_as"),
        [
            ({**IDS, "AppId": 7}, "IllegalAppId"),
            ({**IDS, "RoomId": "x" * 129}, "IllegalRoomID"),
            ({**IDS, "TaskId": "audio\n"}, "IllegalTaskID"),
            ({**IDS, "BusinessId": ""}, "IllegalBusinessID"),
        ],
    )
    def test_an_illegal_id_is_refused(self, double: RtcDouble, body: dict[str, Any], refused_as: str) -> None:
        assert refusal(stop, double, body) == (400, f"InvalidParameter.{refused_as}", None)
        assert double.is_running(*TASK)

    def test_an_app_that_does_not_exist_is_refused(self) -> None:
        with RtcDouble(secrets={KEY: SECRET}, app_ids={"another"}) as double:
            assert refusal(stop, double) == (400, "InvalidParameter.NotExistAppId", None)


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
                    assert call(api(double), IDS, action, version)
                else:
                    unknown = (404, "InvalidActionOrVersion", 100008)
                    assert refusal(call, api(double), IDS, action, version) == unknown

    @pytest.mark.parametrize(
        ("action", "limit"), [("StopSegment", 150), ("GetSegmentTask", 60), ("GetRoomOnlineUsers", 40)]
    )
    def test_more_than_the_limit_in_a_second_is_refused_and_counts(
        self, double: RtcDouble, action: str, limit: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        now = time.time()
        monkeypatch.setattr("sandbox.rtc_gateway.time", SimpleNamespace(time=lambda: now))
        client = api(double)
        for _ in range(limit):
            call_in_any_case(client, action)
        assert {request.http_status for request in double.requests} <= {200, 400}
        now += 0.9
        assert refusal(call, client, IDS, action) == (429, "FlowLimitExceeded.QPSOverLimit", None)
        assert double.busiest_second(action) == limit + 1
        now += 0.2
        call_in_any_case(client, action)
        assert double.requests[-1].http_status in {200, 400}
        assert double.busiest_second() == limit + 1


NODE = json.loads((Path(__file__).parent / "node_requests.json").read_text())["requests"]


@pytest.mark.parametrize("recorded", NODE, ids=lambda recorded: recorded["method"])
def test_what_the_official_node_client_signs_is_understood(
    double: RtcDouble, monkeypatch: pytest.MonkeyPatch, recorded: dict[str, Any]
) -> None:
    """It signs neither host nor content type, and hashes no empty body."""
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
    assert stop(double, OTHER_IDS) == "ok"
    assert [refusal(stop, double)[0] for _ in range(4)] == [503, 503, 500, 500]
    double.heal()
    assert stop(double) == "ok"


class TestControl:
    def test_a_sandbox_is_played_without_a_signature(self, double: RtcDouble) -> None:
        assert control(double, "POST", "tasks", {**OTHER_IDS, "StartTime": 1_700_000_000_000})[0] == 200
        assert segment_task(double, OTHER_IDS)["StartTime"] == 1_700_000_000_000
        fault = {"kind": "error", "status": 503, "next_requests": 1, "task": list(OTHER_TASK)}
        assert control(double, "POST", "fail", fault)[0] == 200
        assert refusal(stop, double, OTHER_IDS)[0] == 503
        assert stop(double, OTHER_IDS) == "ok"
        assert control(double, "POST", "close-room", ROOM_IDS) == (200, {})
        assert room(double)["RoomExists"] is False
        assert control(double, "POST", "fail", {"kind": "drop"})[0] == 200
        assert control(double, "POST", "heal") == (200, {})
        assert stop(double) == "ok"
        status, requests = control(double, "GET", "requests")
        assert (status, [request["http_status"] for request in requests]) == (200, [200, 503, 200, 200, 200])

    @pytest.mark.parametrize(
        ("command", "body", "sentence"),
        [
            ("tasks", b"{", "The body must be a JSON object."),
            ("fail", b"[]", "The body must be a JSON object."),
            ("tasks", ROOM_IDS, "TaskId is required"),
            ("tasks", {**IDS, "StartTime": "noon"}, "StartTime must be of type int, not str"),
            ("tasks", {**IDS, "Start": 1}, "Start is unknown"),
            ("close-room", {"AppId": "app"}, "RoomId is required and must match"),
            ("fail", {"kind": "melt"}, "kind must be one of error, delay"),
            ("fail", {"kind": "error", "status": True}, "status must be of type int, not bool"),
            ("fail", {"kind": "error", "status": 9}, "status must be an HTTP status"),
            ("fail", {"kind": "drop", "next_requests": 0}, "next_requests must be 1 or more"),
            ("fail", {"kind": "drop", "task": ["app", "room"]}, "task must be [AppId, RoomId, TaskId]"),
        ],
    )
    def test_bad_input_gets_a_sentence(self, double: RtcDouble, command: str, body: object, sentence: str) -> None:
        status, answer = control(double, "POST", command, body)
        assert status == 400
        assert answer["error"].startswith(sentence)
        assert answer["error"].endswith(".")
