"""The callback URL's function as Lambda calls it, against an embedded AWS."""

import base64
import hashlib
import io
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
import urllib3
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from receive_callback.signature import sign
from receive_callback.slices import QueuedSlices, read_slice
from sandbox.callbacks import callback
from sandbox.embedded_aws import EmbeddedAws
from tests.environments import Context, import_handler, taken
from tests.examples import examples

KEY = "callback-key"
NEXT_KEY = "callback-key-of-tomorrow"
EVENT_TIME = "2026-11-22T06:12:00.123456789Z"
ARRIVED_MS = 1_795_327_980_000  # a minute later
MOST_BYTES = 64 * 1024
SERVICE = "callback-function-tests"
NAMESPACE = "CallbackTests"
SIGNED_KEYS = ("EventType", "EventData", "EventTime", "EventId", "AppId", "Version")
QUEUED_TYPES = ("RoomDestroy", "SegmentRealTimeData")


@dataclass
class Function:
    """A function environment, the secret that it reads and the queue that it fills."""

    module: ModuleType
    log: io.StringIO
    sqs: Any
    queue: str
    secrets_manager: Any
    secret: str
    now: float = 1_000.0
    now_ms: int = ARRIVED_MS
    created_ms: int = ARRIVED_MS - 3_600_000
    asked: list[str] = field(default_factory=list)

    def answer(self, body: str | bytes | None, method: str = "POST", *, encoded: bool = False) -> tuple[int, str]:
        """Send a request; return the answer's status and result."""
        request: dict[str, Any] = {"version": "2.0", "requestContext": {"http": {"method": method, "path": "/"}}}
        if encoded:
            raw = body if isinstance(body, bytes) else str(body).encode()
            request |= {"body": base64.b64encode(raw).decode(), "isBase64Encoded": True}
        elif body is not None:
            request |= {"body": body, "isBase64Encoded": False}
        answer = self.module.handler(request, Context())
        assert answer.keys() == {"statusCode", "headers", "body"}
        assert answer["headers"] == {"Content-Type": "application/json"}
        content = json.loads(answer["body"])
        assert content.keys() == {"result"}
        return answer["statusCode"], content["result"]

    def status(self, content: object) -> int:
        return self.answer(content if isinstance(content, str) else json.dumps(content))[0]

    def queued(self) -> list[str]:
        """Receive the bodies of the messages on the queue."""
        return [message["Body"] for message in taken(self.sqs, self.queue)]

    def rotate(self, key: str) -> None:
        self.secrets_manager.put_secret_value(SecretId=self.secret, SecretString=key)

    def lose_the_secret(self) -> None:
        self.secrets_manager.delete_secret(SecretId=self.secret, ForceDeleteWithoutRecovery=True)

    def logs(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.getvalue().splitlines()]


def signed(event_type: str = "RoomDestroy", key: str = KEY, nonce: str = "Nonce", **data: Any) -> dict[str, str]:
    """Make a callback as the RTC server does."""
    return callback(event_type, {"RoomId": "room-1"} | data, EVENT_TIME, key=key, nonce=nonce)


@pytest.fixture(scope="module")
def sqs(aws: EmbeddedAws) -> Iterator[Any]:
    client = aws.client("sqs")
    yield client
    client.close()


@pytest.fixture
def function(
    aws: EmbeddedAws, sqs: Any, secrets_manager: Any, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Function:
    """Create a secret and a queue, and a function environment that starts as Lambda would start it."""
    queue = sqs.create_queue(QueueName=f"events-{uuid4().hex}")["QueueUrl"]
    key = getattr(request, "param", KEY)
    secret = secrets_manager.create_secret(Name=f"callback-{uuid4().hex}", SecretString=key)["ARN"]
    variables = {
        "AWS_REGION": aws.environment["AWS_DEFAULT_REGION"],
        "EVENT_QUEUE_URL": queue,
        "CALLBACK_SECRET_ARN": secret,
        "URL_SUFFIX": "amazonaws.com",
        "POWERTOOLS_SERVICE_NAME": SERVICE,
        "POWERTOOLS_METRICS_NAMESPACE": NAMESPACE,
    }
    module = import_handler(
        "receive_callback", ("receive_callback.keys", "receive_callback.aws"), aws.environment | variables
    )
    # How long the function waits for AWS says nothing here: the machine may be busy.
    monkeypatch.setitem(sys.modules[module.Service.__module__]._pool.connection_pool_kw, "timeout", urllib3.Timeout(60))
    made = Function(module, io.StringIO(), sqs, queue, secrets_manager, secret)
    monkeypatch.setattr(module.logger.registered_handler, "stream", made.log)
    secrets = module._keys._secrets_manager
    call = secrets.call

    def note_call(action: str, **content: str) -> Any:
        made.asked.append(content["VersionStage"])
        # The function's day is another one than the embedded AWS's.
        return call(action, **content) | {"CreatedDate": made.created_ms / 1000}

    monkeypatch.setattr(secrets, "call", note_call)
    monkeypatch.setattr(module, "_keys", module.CallbackKeys(secrets, secret, lambda: made.now, lambda: made.now_ms))
    monkeypatch.setattr(module, "now_ms", lambda: made.now_ms)
    monkeypatch.setattr(module, "_slices", QueuedSlices(module.MOST_REMEMBERED, lambda: made.now))
    return made


def kept(content: dict[str, Any]) -> str:
    """Return the part of a callback that the queue receives."""
    return json.dumps({name: content[name] for name in SIGNED_KEYS})


def changed(**changes: Any) -> dict[str, Any]:
    """Change a signed callback; None removes a key."""
    return {key: value for key, value in (signed() | changes).items() if value is not None}


class TestAnswers:
    @pytest.mark.parametrize("event_type", QUEUED_TYPES)
    def test_200_for_what_concerns_us_and_it_is_queued(self, function: Function, event_type: str) -> None:
        content = signed(event_type, TaskId="audio")
        assert function.answer(json.dumps(content)) == (200, "queued")
        assert function.queued() == [kept(content)]

    @pytest.mark.parametrize("event_type", ["UserJoinRoom", "roomdestroy", ""])
    def test_200_for_whatever_else_is_signed_and_it_is_not_queued(self, function: Function, event_type: str) -> None:
        assert function.answer(json.dumps(signed(event_type))) == (200, "ignored")
        assert function.queued() == []

    @pytest.mark.parametrize(
        "body",
        [
            pytest.param(None, id="nothing"),
            pytest.param("[]", id="list"),
            pytest.param("[" * 30_000, id="deep"),
            pytest.param('{"a": ' + "9" * 5_000 + "}", id="huge number"),
            pytest.param("\ufeff" + json.dumps(signed()), id="byte order mark"),
            pytest.param(json.dumps(changed(EventId=None)), id="no EventId"),
            pytest.param(json.dumps(changed(EventData={"RoomId": "room-1"})), id="EventData an object"),
        ],
    )
    def test_400_for_what_is_malformed(self, function: Function, body: str | None) -> None:
        assert function.answer(body)[0] == 400
        assert function.queued() == []

    def test_400_for_what_is_not_utf_8(self, function: Function) -> None:
        body = json.dumps(signed()).encode().replace(b"room-1", b"room-\xff")
        assert function.answer(body, encoded=True) == (400, "the body is not UTF-8")

    @pytest.mark.parametrize(
        "changes",
        [
            {"Signature": None},
            {"AppId": "661f"},
            {"EventData": '{"RoomId": "room-2"}'},
            {"EventId": "\ud800"},
        ],
    )
    def test_401_for_what_is_not_signed(self, function: Function, changes: dict[str, Any]) -> None:
        assert function.status(changed(**changes)) == 401
        assert function.queued() == []

    @pytest.mark.parametrize("method", ["GET", "HEAD"])
    @pytest.mark.parametrize("body", [None, "", json.dumps(signed())])
    def test_200_for_the_request_by_which_the_console_tries_the_url(
        self, function: Function, capsys: pytest.CaptureFixture[str], method: str, body: str | None
    ) -> None:
        assert function.answer(body, method) == (200, "ready")
        assert function.queued() == []
        assert function.asked == []
        assert function.logs() == []
        assert capsys.readouterr().out == ""

    @pytest.mark.parametrize("method", ["PUT", "OPTIONS", "post", "get"])
    def test_405_for_every_other_method(self, function: Function, method: str) -> None:
        assert function.answer(json.dumps(signed()), method)[0] == 405
        assert function.queued() == []
        assert function.asked == []

    def test_413_above_64_kib(self, function: Function) -> None:
        room = MOST_BYTES - len(json.dumps(signed(Note=""))) - 100
        content = signed(Note="x" * room)
        padding = MOST_BYTES - len(json.dumps(content))
        fits = json.dumps(content) + " " * padding
        assert function.answer(fits + " ")[0] == 413
        assert function.answer(fits + " ", encoded=True)[0] == 413
        assert function.answer(fits) == (200, "queued")
        assert function.answer(fits, encoded=True) == (200, "replayed")
        assert function.queued() == [kept(content)]

    def test_413_counts_bytes(self, function: Function) -> None:
        assert function.answer("é" * (MOST_BYTES // 2 + 1))[0] == 413
        assert function.answer("é" * (MOST_BYTES // 2))[0] == 400

    def test_503_while_the_queue_takes_nothing(self, function: Function) -> None:
        function.sqs.delete_queue(QueueUrl=function.queue)
        assert function.answer(json.dumps(signed())) == (503, "not queued, send it again")


class TestWhatIsQueued:
    @pytest.mark.parametrize("nonce", ["Nonce", "Noce"])
    @pytest.mark.parametrize("encoded", [False, True])
    def test_it_is_what_the_signature_covers_and_nothing_else(
        self, function: Function, nonce: str, *, encoded: bool
    ) -> None:
        content = signed(nonce=nonce, Name="房间 ☎ 😀", TaskId="audio")
        unsigned = {"BusinessId": "biz-1", "Extra": [1, {"x": None}], "signature": content["Signature"]}
        for body in (
            json.dumps(content | unsigned, ensure_ascii=False, indent=1),
            "\r\n\t " + json.dumps(unsigned | content, separators=(",", ":")) + "  \n",
        ):
            assert function.answer(body, encoded=encoded)[0] == 200
        assert function.queued() == [kept(content)]

    @pytest.mark.parametrize("character", ["\uffff", "\ufffe", "\x00", "\x1b", "\x7f", "\ufdd0", "\U0001ffff"])
    def test_every_character_that_can_be_signed_is_one_that_sqs_takes(self, function: Function, character: str) -> None:
        content = callback("RoomDestroy", {"RoomId": "room-1"}, EVENT_TIME, key=KEY) | {"EventId": f"evt-{character}"}
        content |= {"Signature": sign(content, KEY)}
        assert function.answer(json.dumps(content, ensure_ascii=False)) == (200, "queued")
        (body,) = function.queued()
        assert body.isascii()
        assert body.isprintable()
        assert json.loads(body)["EventId"] == content["EventId"]

    def test_the_longest_callback_is_no_longer_than_sqs_takes(self, function: Function) -> None:
        # An escape has three times the bytes of the shortest character that needs one.
        content = signed()
        content["EventData"] = json.dumps({"RoomId": "room-1", "Name": "é" * 32_400}, ensure_ascii=False)
        content |= {"Signature": sign(content, KEY)}
        body = json.dumps(content, ensure_ascii=False)
        assert MOST_BYTES - 500 < len(body.encode()) <= MOST_BYTES
        assert function.answer(body) == (200, "queued")
        assert len(function.queued()[0]) < 256 * 1024


def at(event_time: str, **changes: str) -> dict[str, str]:
    """Create a room's end with a given spelling of its time."""
    content = callback("RoomDestroy", {"RoomId": "room-1"}, event_time, key=KEY) | changes
    return content | {"Signature": sign(content, KEY)}


GENUINE = at("2026-11-22T06:12:00Z", Nonce="0815")
TIME, VERSION = GENUINE["EventTime"], GENUINE["Version"]


class TestTimes:
    @pytest.mark.parametrize("event_type", [*QUEUED_TYPES, "UserJoinRoom"])
    def test_a_callback_that_is_more_than_an_hour_old_is_dropped(
        self, function: Function, capsys: pytest.CaptureFixture[str], event_type: str
    ) -> None:
        content = callback(event_type, {"RoomId": "room-1"}, "2026-11-22T06:13:00Z", key=KEY)
        function.now_ms = ARRIVED_MS + 3_600_001
        assert function.answer(json.dumps(content)) == (200, "stale")
        assert function.queued() == []
        assert json.loads(capsys.readouterr().out)["CallbackStale"] == [1]
        function.now_ms -= 1
        assert function.answer(json.dumps(content))[1] != "stale"

    @pytest.mark.parametrize(
        "event_time",
        ["", "yesterday", "2026-11-22T06:12:00", "2017-12-31T23:59:59Z", "0001-01-01T00:00:00Z", "1795327920"],
    )
    def test_a_room_s_end_is_not_lost_for_its_time(self, function: Function, event_time: str) -> None:
        content = at(event_time)
        assert function.answer(json.dumps(content)) == (200, "queued")
        assert function.queued() == [kept(content)]

    @pytest.mark.parametrize(
        "moved",
        [
            pytest.param({"EventTime": GENUINE["EventId"], "EventId": TIME}, id="with EventId"),
            pytest.param({"EventTime": GENUINE["Nonce"], "Nonce": TIME}, id="with Nonce"),
            pytest.param({"EventTime": VERSION, "Version": TIME}, id="with Version"),
            pytest.param({"EventTime": "", "Version": VERSION + TIME}, id="its characters to Version"),
            pytest.param({"EventTime": VERSION + TIME, "Version": ""}, id="Version's to it"),
            pytest.param(
                {"Version": GENUINE["Nonce"] + VERSION, "Nonce": TIME[:8], "EventTime": TIME[8:]}, id="cut in two"
            ),
        ],
    )
    @pytest.mark.parametrize("noce", [{}, {"Noce": "2026"}])
    def test_values_that_change_places_make_no_old_callback_new(
        self, function: Function, moved: dict[str, str], noce: dict[str, str]
    ) -> None:
        replay = GENUINE | moved
        assert sign(replay, KEY) == GENUINE["Signature"]
        assert function.answer(json.dumps(replay | noce)) == (200, "queued")
        assert json.loads(function.queued()[0])["EventTime"] == "2026-11-22T06:12:00.000Z"
        function.now_ms += 3_600_000
        assert function.answer(json.dumps(replay | noce)) == (200, "stale")


class TestReplays:
    def test_a_callback_that_comes_again_is_not_queued_again(self, function: Function) -> None:
        content = signed()
        assert function.answer(json.dumps(content)) == (200, "queued")
        for again in (json.dumps(content), json.dumps(content, indent=1), json.dumps(content | {"Note": "x"})):
            assert function.answer(again) == (200, "replayed")
        assert function.queued() == [kept(content)]

    @pytest.mark.parametrize("content", [signed(), signed("SegmentRealTimeData", TaskId="audio")])
    def test_a_callback_that_was_not_queued_is_no_replay_and_no_known_slice_when_it_comes_again(
        self, function: Function, aws_away: EmbeddedAws, monkeypatch: pytest.MonkeyPatch, content: dict[str, str]
    ) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(function.module._sqs, "url", aws_away.endpoint)
            assert function.answer(json.dumps(content)) == (503, "not queued, send it again")
        assert function.answer(json.dumps(content)) == (200, "queued")

    def test_a_callback_is_no_replay_of_another_that_has_the_same_signature(self, function: Function) -> None:
        content = signed()
        other = content | {"AppId": content["Nonce"], "Nonce": content["AppId"]}
        assert function.answer(json.dumps(other)) == (200, "queued")
        assert function.answer(json.dumps(content)) == (200, "queued")


def slice_of(task_id: str = "audio", second: int = 0, room_id: str = "room-1", **changes: Any) -> dict[str, str]:
    """Make the callback of a slice, which was made some seconds after the first one."""
    data = {"RoomId": room_id, "TaskId": task_id, "UserId": "user-1"} | changes
    return callback("SegmentRealTimeData", data, f"2026-11-22T06:{12 + second // 60:02}:{second % 60:02}.5Z", key=KEY)


class TestSlices:
    def test_of_many_slices_of_a_task_the_first_one_is_queued(
        self, function: Function, capsys: pytest.CaptureFixture[str]
    ) -> None:
        slices = [slice_of(second=second) for second in range(20)]
        answers = [function.answer(json.dumps(one)) for one in slices]
        assert answers == [(200, "queued")] + [(200, "known")] * 19
        assert function.queued() == [kept(slices[0])]
        # A line and a metric for each would cost more than all else that is done for it.
        assert [line["message"] for line in function.logs()] == ["queued"]
        assert function.status(signed()) == 200
        first, second = (json.loads(line) for line in capsys.readouterr().out.splitlines())
        assert "CallbackKnown" not in first
        assert (second["CallbackKnown"], second["CallbackQueued"]) == ([19], [1])
        assert function.status(signed()) == 200
        assert "CallbackKnown" not in json.loads(capsys.readouterr().out)

    def test_a_slice_is_news_after_a_minute(self, function: Function) -> None:
        ends: list[str] = []
        for seconds in (0, 59.9, 0.1, 1):
            function.now += seconds
            ends.append(function.answer(json.dumps(slice_of(second=len(ends))))[1])
        assert ends == ["queued", "known", "queued", "known"]

    def test_an_older_slice_is_news(self, function: Function) -> None:
        # It may be from before the room's end, and the other one from after it.
        ends = [function.answer(json.dumps(slice_of(second=second)))[1] for second in (5, 4, 4, 5, 6)]
        assert ends == ["queued", "queued", "known", "known", "known"]

    def test_a_slice_whose_time_cannot_be_read_was_made_when_it_came(self, function: Function) -> None:
        ends = []
        for _ in range(2):
            content = callback("SegmentRealTimeData", {"RoomId": "room-1", "TaskId": "audio"}, "yesterday", key=KEY)
            ends.append(function.answer(json.dumps(content))[1])
            function.now_ms += 1
        assert ends == ["queued", "known"]

    @pytest.mark.parametrize("other", [slice_of("video"), slice_of(room_id="room-2")])
    def test_a_slice_of_another_task_is_news(self, function: Function, other: dict[str, str]) -> None:
        for content in (slice_of(), other):
            assert function.answer(json.dumps(content)) == (200, "queued")
        assert function.answer(json.dumps(slice_of(second=1))) == (200, "known")

    def test_a_slice_after_the_room_s_end_is_news(self, function: Function) -> None:
        ends = [
            function.answer(json.dumps(content))[1]
            for content in (slice_of(), slice_of(room_id="room-2"), signed(), slice_of(second=1))
        ]
        assert ends == ["queued"] * 4
        assert function.answer(json.dumps(slice_of(second=1, room_id="room-2"))) == (200, "known")

    @pytest.mark.parametrize(
        "content",
        [
            callback("SegmentRealTimeData", {"RoomId": "room-1"}, EVENT_TIME, key=KEY),
            callback("SegmentRealTimeData", {"RoomId": "room-1", "TaskId": 5}, EVENT_TIME, key=KEY),
            callback("SegmentRealTimeData", [], EVENT_TIME, key=KEY),  # type: ignore[arg-type]
            at(EVENT_TIME, EventType="SegmentRealTimeData", EventData="{"),
            callback("RoomDestroy", [], EVENT_TIME, key=KEY),  # type: ignore[arg-type]
        ],
    )
    def test_an_unusual_one_is_queued_each_time_so_that_its_reason_is_kept(
        self, function: Function, content: dict[str, str]
    ) -> None:
        again = content | {"EventId": "again"}
        again |= {"Signature": sign(again, KEY)}
        for one in (content, again):
            assert function.answer(json.dumps(one)) == (200, "queued")

    def test_what_is_remembered_is_bounded(self) -> None:
        slices = QueuedSlices(2, lambda: 0.0)
        first, second, third = (read_slice(slice_of(task_id), ARRIVED_MS) for task_id in ("one", "two", "three"))
        assert first
        assert second
        assert third
        for one in (first, second, first, third):
            slices.add(one)
        assert [one in slices for one in (first, second, third)] == [True, False, True]


class TestGroups:
    @pytest.mark.parametrize(
        ("app_id", "group"), [("661e", "661e"), ("a" * 128, "a" * 128), ("a" * 129, None), ("", None), ("a b", None)]
    )
    def test_an_application_s_callbacks_are_a_group_of_their_own(
        self, function: Function, app_id: str, group: str | None
    ) -> None:
        # A group that SQS refuses would keep the callback off the queue.
        content = callback("RoomDestroy", {"RoomId": "room-1"}, EVENT_TIME, app_id=app_id, key=KEY)
        assert function.answer(json.dumps(content)) == (200, "queued")
        received = function.sqs.receive_message(QueueUrl=function.queue, MessageSystemAttributeNames=["All"])
        assert received["Messages"][0]["Attributes"].get("MessageGroupId") == group


class TestKeys:
    def test_the_key_of_before_that_is_not(self, function: Function) -> None:
        function.rotate(NEXT_KEY)
        function.rotate("the-key-after-that")
        assert function.status(signed(key=NEXT_KEY)) == 200
        assert function.status(signed(key=KEY)) == 401

    def test_a_rotation_is_noticed_by_a_signature_that_is_not_known(self, function: Function) -> None:
        assert function.status(signed()) == 200
        function.rotate(NEXT_KEY)
        function.now += 60
        assert function.status(signed(key=NEXT_KEY)) == 200
        assert function.status(signed()) == 200

    def test_the_keys_are_kept_for_five_minutes(self, function: Function) -> None:
        reads = []
        for seconds in (0, 100, 199.9, 0.1, 299.9, 0.1):
            function.now += seconds
            assert function.status(signed()) == 200
            reads.append(function.asked.count("AWSCURRENT"))
        assert reads == [1, 1, 1, 2, 2, 3]

    @pytest.mark.parametrize("function", [f"  {KEY}\n"], indirect=True)
    def test_blanks_around_a_key_are_not_part_of_it(self, function: Function) -> None:
        assert function.status(signed()) == 200

    @pytest.mark.parametrize("function", [" \n"], indirect=True)
    def test_an_empty_secret_signs_nothing_and_is_read_again_after_five_seconds(self, function: Function) -> None:
        for seconds in (0, 1, 3.9):
            function.now += seconds
            assert function.status(signed(key="")) == 503
        assert function.asked == ["AWSCURRENT"]
        assert function.logs()[0]["error"] == "SecretIsEmpty"
        function.rotate(KEY)
        function.now += 0.1
        assert function.status(signed()) == 200

    def test_a_thousand_requests_read_a_secret_that_cannot_be_read_once_in_five_seconds(
        self, function: Function
    ) -> None:
        function.lose_the_secret()
        for _ in range(1_000):
            assert function.status(signed()) == 503
            function.now += 0.0101
        assert function.asked == ["AWSCURRENT"] * 3

    @pytest.mark.parametrize("hours", [0, 1, 23.9, 24, 25, 24 * 365])
    def test_the_key_of_before_is_accepted_for_a_day_from_when_the_next_one_was_created(
        self, function: Function, hours: float
    ) -> None:
        function.rotate(NEXT_KEY)
        function.created_ms = function.now_ms - int(hours * 3_600_000)
        assert function.status(signed(key=NEXT_KEY)) == 200
        assert function.status(signed()) == (200 if hours < 24 else 401)

    def test_the_day_of_the_key_of_before_ends_while_secrets_manager_is_away(self, function: Function) -> None:
        function.rotate(NEXT_KEY)
        function.created_ms = function.now_ms - 86_399_999
        assert function.status(signed()) == 200
        function.lose_the_secret()
        function.now_ms += 1
        assert function.status(signed()) == 401

    @pytest.mark.parametrize("seconds", [300, 86_400])
    def test_old_keys_are_better_than_none(self, function: Function, seconds: float) -> None:
        assert function.status(signed()) == 200
        function.lose_the_secret()
        function.now += seconds
        assert function.status(signed()) == 200
        assert function.status(signed(key="their-key")) == 401

    @pytest.mark.parametrize("is_lost", [False, True])
    def test_a_storm_of_forgeries_makes_one_reading_a_minute(self, function: Function, is_lost: bool) -> None:
        assert function.status(signed()) == 200
        if is_lost:
            function.lose_the_secret()
        reads = []
        for _ in range(3):
            for _ in range(20):
                function.now += 3
                assert function.status(signed(key="their-key")) == 401
            reads.append(function.asked.count("AWSCURRENT"))
        assert reads == [2, 3, 4]


REPLAYED = signed()


class TestReports:
    @pytest.mark.parametrize(
        ("content", "method", "metric", "level"),
        [
            (signed(), "POST", "CallbackQueued", "INFO"),
            (signed("UserJoinRoom"), "POST", "CallbackIgnored", "INFO"),
            (REPLAYED, "POST", "CallbackReplayed", "INFO"),
            (signed(key="their-key"), "POST", "CallbackRefused", "WARNING"),
            ({}, "POST", "CallbackMalformed", "WARNING"),
            (at("2026-11-22T05:12:59Z"), "POST", "CallbackStale", "INFO"),
            (signed(), "PUT", "CallbackMalformed", "WARNING"),
        ],
    )
    def test_each_request_is_counted_and_logged_once(
        self,
        function: Function,
        capsys: pytest.CaptureFixture[str],
        content: dict[str, str],
        method: str,
        metric: str,
        level: str,
    ) -> None:
        if content is REPLAYED:
            function.status(content)
            capsys.readouterr()
            function.log.truncate(function.log.seek(0))
        function.answer(json.dumps(content), method)
        (line,) = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        (directive,) = line["_aws"]["CloudWatchMetrics"]
        assert directive["Namespace"] == NAMESPACE
        assert directive["Dimensions"] == [["service"]]
        assert directive["Metrics"] == [{"Name": metric, "Unit": "Count"}]
        assert (line[metric], line["service"]) == ([1], SERVICE)
        assert [said["level"] for said in function.logs()] == [level]

    def test_a_callback_that_is_lost_for_now_is_counted(
        self, function: Function, capsys: pytest.CaptureFixture[str]
    ) -> None:
        function.lose_the_secret()
        function.status(signed())
        assert json.loads(capsys.readouterr().out)["CallbackNotQueued"] == [1]
        assert function.logs()[0]["error"] == "ResourceNotFoundException"

    def test_no_line_holds_the_payload_or_the_key(self, function: Function) -> None:
        for key in (KEY, "their-key"):
            for event_type in (*QUEUED_TYPES, "UserJoinRoom"):
                function.status(signed(event_type, key, UserId="p4yload"))
        function.status('{"EventType": "p4yload"')
        function.status({"EventType": "p4yload"})
        text = function.log.getvalue()
        assert len(function.logs()) == 8
        assert not any(secret in text for secret in ("p4yload", KEY, "their-key"))

    def test_what_is_queued_can_be_found_by_its_message(self, function: Function) -> None:
        content = signed()
        function.status(content)
        (line,) = function.logs()
        (message,) = function.sqs.receive_message(QueueUrl=function.queue)["Messages"]
        assert line["message_id"] == message["MessageId"]
        assert (line["event_type"], line["event_id"]) == ("RoomDestroy", content["EventId"])


KEYS = [*SIGNED_KEYS, "Nonce", "Noce", "Signature", "signature", "nonce", "detail", "Type"]
VALUES: list[Any] = [
    None, True, 0, 4321, 1.5, float("nan"), 10**30, "", "0", "x", "é", "\ud800", "\x00", [], {}, ["x"], {"x": "y"},
    "RoomDestroy", "SegmentRealTimeData", "UserJoinRoom", '{"RoomId": "room-2"}', "661e", KEY, "0" * 64,
]  # fmt: skip
UNDAMAGED = (b"", 0, 0)


def is_properly_signed(body: bytes) -> bool:
    """Judge a body by the documents' rules, by other means than the function's."""
    try:
        content = json.loads(body.decode())
    except (ValueError, RecursionError):
        return False
    if not isinstance(content, dict):
        return False
    for nonce in ("Nonce", "Noce"):
        values = [content.get(name) for name in (*SIGNED_KEYS, nonce)]
        if all(isinstance(value, str) for value in values):
            strings = sorted(str(value).encode(errors="surrogatepass") for value in (*values, KEY))
            if content.get("Signature") == hashlib.sha256(b"".join(strings)).hexdigest():
                return True
    return False


class TestWhateverIsSent:
    """Hundreds of requests, each sent twice: only properly signed ones are queued, once, and each is answered."""

    @pytest.fixture
    def queued(self, function: Function, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """Stand in for the queue: as many real sends would take minutes, and the tests above make them."""
        bodies: list[str] = []

        def call(_: str, *, QueueUrl: str, MessageBody: str, **_group: str) -> dict[str, str]:  # noqa: N803 - SQS's names
            assert QueueUrl == function.queue
            bodies.append(MessageBody)
            return {"MessageId": "m-1"}

        monkeypatch.setattr(function.module, "_sqs", SimpleNamespace(call=call))
        return bodies

    @settings(max_examples=examples(500), suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        event_type=st.sampled_from([*QUEUED_TYPES, "UserJoinRoom"]),
        nonce=st.sampled_from(["Nonce", "Noce"]),
        changes=st.dictionaries(st.sampled_from(KEYS), st.sampled_from(VALUES) | st.text(max_size=3), max_size=2),
        lost=st.sampled_from(["nothing", *KEYS]),
        damage=st.just(UNDAMAGED) | st.tuples(st.binary(max_size=80), st.integers(0, 300), st.integers(0, 10)),
    )
    def test_mutations_of_what_is_signed(
        self,
        function: Function,
        queued: list[str],
        event_type: str,
        nonce: str,
        changes: dict[str, Any],
        lost: str,
        damage: tuple[bytes, int, int],
    ) -> None:
        content: dict[str, Any] = {**signed(event_type, nonce=nonce), **changes}
        content.pop(lost, None)
        text, (inserted, start, length) = json.dumps(content).encode(), damage
        body = text[:start] + inserted + text[start + length :]
        queued.clear()
        status, _ = function.answer(body, encoded=True)
        assert (status == 200) == is_properly_signed(body)
        assert status in (200, 400, 401)
        if queued:
            content = json.loads(body)
            assert queued == [kept(content)]
            assert content["EventType"] in QUEUED_TYPES
        queued.clear()
        assert function.answer(body, encoded=True)[0] == status
        assert queued == []
