"""The callback function as Lambda calls it, with an embedded AWS."""

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

    def answer(self, content: object, method: str = "POST") -> tuple[int, str]:
        """Send bytes in Base64, a text as it is, anything else as JSON; return the answer's status and result."""
        request: dict[str, Any] = {"version": "2.0", "requestContext": {"http": {"method": method, "path": "/"}}}
        if isinstance(content, bytes):
            request |= {"body": base64.b64encode(content).decode(), "isBase64Encoded": True}
        elif content is not None:
            body = content if isinstance(content, str) else json.dumps(content)
            request |= {"body": body, "isBase64Encoded": False}
        answer = self.module.handler(request, Context())
        assert answer.keys() == {"statusCode", "headers", "body"}
        assert answer["headers"] == {"Content-Type": "application/json"}
        result = json.loads(answer["body"])
        assert result.keys() == {"result"}
        return answer["statusCode"], result["result"]

    def status(self, content: object) -> int:
        return self.answer(content)[0]

    def queued(self) -> list[str]:
        """Receive the bodies of the messages on the queue."""
        return [message["Body"] for message in taken(self.sqs, self.queue)]

    def rotate(self, key: str) -> None:
        self.secrets_manager.put_secret_value(SecretId=self.secret, SecretString=key)

    def lose_the_secret(self) -> None:
        self.secrets_manager.delete_secret(SecretId=self.secret, ForceDeleteWithoutRecovery=True)

    def logs(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.getvalue().splitlines()]


def signed(
    event_type: str = "RoomDestroy", key: str = KEY, nonce: str = "Nonce", event_time: str = EVENT_TIME, **data: Any
) -> dict[str, str]:
    """Create a callback as the RTC server does."""
    return callback(event_type, {"RoomId": "room-1"} | data, event_time, key=key, nonce=nonce)


def resigned(content: dict[str, str], **changes: str) -> dict[str, str]:
    """Change a callback and sign it again."""
    content = content | changes
    return content | {"Signature": sign(content, KEY)}


@pytest.fixture(scope="module")
def sqs(aws: EmbeddedAws) -> Iterator[Any]:
    client = aws.client("sqs")
    yield client
    client.close()


@pytest.fixture
def function(aws: EmbeddedAws, sqs: Any, secrets_manager: Any, monkeypatch: pytest.MonkeyPatch) -> Function:
    """Create a secret and a queue, and a function environment that starts as Lambda would start it."""
    queue = sqs.create_queue(QueueName=f"events-{uuid4().hex}")["QueueUrl"]
    secret = secrets_manager.create_secret(Name=f"callback-{uuid4().hex}", SecretString=KEY)["ARN"]
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
    # The machine may be busy, so the function waits longer for AWS here.
    monkeypatch.setitem(sys.modules[module.Service.__module__]._pool.connection_pool_kw, "timeout", urllib3.Timeout(60))
    made = Function(module, io.StringIO(), sqs, queue, secrets_manager, secret)
    monkeypatch.setattr(module.logger.registered_handler, "stream", made.log)
    secrets = module._keys._secrets_manager
    call = secrets.call

    def note_call(action: str, **content: str) -> Any:
        made.asked.append(content["VersionStage"])
        # The embedded AWS has another clock than the function.
        return call(action, **content) | {"CreatedDate": made.created_ms / 1000}

    monkeypatch.setattr(secrets, "call", note_call)
    monkeypatch.setattr(module, "_keys", module.CallbackKeys(secrets, secret, lambda: made.now, lambda: made.now_ms))
    monkeypatch.setattr(module, "now_ms", lambda: made.now_ms)
    monkeypatch.setattr(module, "_slices", QueuedSlices(module.MOST_REMEMBERED, lambda: made.now))
    return made


def kept(content: dict[str, Any]) -> str:
    """Return the message that the queue receives for a callback."""
    return json.dumps({name: content[name] for name in SIGNED_KEYS})


class TestAnswers:
    @pytest.mark.parametrize("event_type", ["UserJoinRoom", "roomdestroy", ""])
    def test_200_for_every_other_signed_callback_and_it_is_not_queued(
        self, function: Function, event_type: str
    ) -> None:
        assert function.answer(signed(event_type)) == (200, "ignored")
        assert function.queued() == []

    @pytest.mark.parametrize(
        ("body", "reason"),
        [
            pytest.param(None, "the body must be JSON", id="nothing"),
            pytest.param("[]", "the body must be a JSON object", id="list"),
            pytest.param("[" * 30_000, "the body must be JSON", id="deep"),
            pytest.param('{"a": ' + "9" * 5_000 + "}", "the body must be JSON", id="huge number"),
            pytest.param("\ufeff" + json.dumps(signed()), "the body must be JSON", id="byte order mark"),
            pytest.param(b'{"RoomId": "\xff"}', "the body must be UTF-8", id="not UTF-8"),
            pytest.param("{}", "the callback's EventType must be a string", id="no EventType"),
        ],
    )
    def test_400_for_a_malformed_body(self, function: Function, body: object, reason: str) -> None:
        assert function.answer(body) == (400, reason)
        assert function.queued() == []

    @pytest.mark.parametrize("method", ["GET", "HEAD"])
    @pytest.mark.parametrize("body", [None, "", json.dumps(signed())])
    def test_200_for_the_request_with_which_the_console_checks_the_url(
        self, function: Function, capsys: pytest.CaptureFixture[str], method: str, body: str | None
    ) -> None:
        assert function.answer(body, method) == (200, "ready")
        assert function.queued() == []
        assert function.asked == []
        assert function.logs() == []
        assert capsys.readouterr().out == ""

    @pytest.mark.parametrize("method", ["PUT", "OPTIONS", "post", "get"])
    def test_405_for_every_other_method(self, function: Function, method: str) -> None:
        assert function.answer(signed(), method) == (405, "the method must be POST, GET or HEAD")
        assert function.queued() == []
        assert function.asked == []

    def test_413_for_more_than_64_kib(self, function: Function) -> None:
        room = MOST_BYTES - len(json.dumps(signed(Note=""))) - 100
        content = signed(Note="x" * room)
        padding = MOST_BYTES - len(json.dumps(content))
        fits = json.dumps(content) + " " * padding
        for body in (fits + " ", fits.encode() + b" ", "é" * (MOST_BYTES // 2 + 1)):
            assert function.answer(body) == (413, "the body must have at most 65536 bytes")
        assert function.answer(fits) == (200, "queued")
        assert function.answer(fits.encode()) == (200, "replayed")
        assert function.queued() == [kept(content)]
        assert function.status("é" * (MOST_BYTES // 2)) == 400


class TestWhatIsQueued:
    @pytest.mark.parametrize("nonce", ["Nonce", "Noce"])
    @pytest.mark.parametrize("encoded", [False, True])
    def test_the_queue_receives_what_the_signature_covers_and_nothing_else(
        self, function: Function, nonce: str, *, encoded: bool
    ) -> None:
        content = signed(nonce=nonce, Name="房间 ☎ 😀", TaskId="audio")
        unsigned = {"BusinessId": "biz-1", "Extra": [1, {"x": None}], "signature": content["Signature"]}
        for body in (
            json.dumps(content | unsigned, ensure_ascii=False, indent=1),
            "\r\n\t " + json.dumps(unsigned | content, separators=(",", ":")) + "  \n",
        ):
            assert function.status(body.encode() if encoded else body) == 200
        assert function.queued() == [kept(content)]

    @pytest.mark.parametrize("character", ["\uffff", "\ufffe", "\x00", "\x1b", "\x7f", "\ufdd0", "\U0001ffff"])
    def test_every_character_that_can_be_signed_reaches_the_queue(self, function: Function, character: str) -> None:
        content = resigned(signed(), EventId=f"evt-{character}")
        assert function.answer(json.dumps(content, ensure_ascii=False)) == (200, "queued")
        (body,) = function.queued()
        assert body.isascii()
        assert body.isprintable()
        assert json.loads(body)["EventId"] == content["EventId"]


GENUINE = resigned(signed(event_time="2026-11-22T06:12:00Z"), Nonce="0815")
TIME, VERSION = GENUINE["EventTime"], GENUINE["Version"]


class TestTimes:
    @pytest.mark.parametrize("event_type", [*QUEUED_TYPES, "UserJoinRoom"])
    def test_a_callback_that_is_more_than_an_hour_old_is_dropped(
        self, function: Function, capsys: pytest.CaptureFixture[str], event_type: str
    ) -> None:
        content = signed(event_type, event_time="2026-11-22T06:13:00Z")
        function.now_ms = ARRIVED_MS + 3_600_001
        assert function.answer(content) == (200, "stale")
        assert function.queued() == []
        assert json.loads(capsys.readouterr().out)["CallbackStale"] == [1]
        function.now_ms -= 1
        assert function.answer(content)[1] != "stale"

    @pytest.mark.parametrize(
        "event_time",
        ["", "yesterday", "2026-11-22T06:12:00", "2017-12-31T23:59:59Z", "0001-01-01T00:00:00Z", "1795327920"],
    )
    def test_a_room_s_end_without_a_readable_time_is_queued(self, function: Function, event_time: str) -> None:
        content = signed(event_time=event_time)
        assert function.answer(content) == (200, "queued")
        assert function.queued() == [kept(content)]

    @pytest.mark.parametrize(
        "moved",
        [
            pytest.param({"EventTime": GENUINE["EventId"], "EventId": TIME}, id="EventTime and EventId exchanged"),
            pytest.param({"EventTime": GENUINE["Nonce"], "Nonce": TIME}, id="EventTime and Nonce exchanged"),
            pytest.param({"EventTime": VERSION, "Version": TIME}, id="EventTime and Version exchanged"),
            pytest.param({"EventTime": "", "Version": VERSION + TIME}, id="EventTime appended to Version"),
            pytest.param({"EventTime": VERSION + TIME, "Version": ""}, id="Version put before EventTime"),
            pytest.param(
                {"Version": GENUINE["Nonce"] + VERSION, "Nonce": TIME[:8], "EventTime": TIME[8:]},
                id="EventTime cut in two",
            ),
        ],
    )
    @pytest.mark.parametrize("noce", [{}, {"Noce": "2026"}])
    def test_values_that_change_places_do_not_make_an_old_callback_new(
        self, function: Function, moved: dict[str, str], noce: dict[str, str]
    ) -> None:
        replay = GENUINE | moved
        assert sign(replay, KEY) == GENUINE["Signature"]
        assert function.answer(replay | noce) == (200, "queued")
        assert json.loads(function.queued()[0])["EventTime"] == "2026-11-22T06:12:00.000Z"
        function.now_ms += 3_600_000
        assert function.answer(replay | noce) == (200, "stale")


class TestReplays:
    def test_a_callback_that_comes_again_is_not_queued_again(
        self, function: Function, capsys: pytest.CaptureFixture[str]
    ) -> None:
        content = signed()
        assert function.answer(content) == (200, "queued")
        for again in (json.dumps(content), json.dumps(content, indent=1), json.dumps(content | {"Note": "x"})):
            assert function.answer(again) == (200, "replayed")
        assert function.queued() == [kept(content)]
        metrics = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert [line.get("CallbackReplayed") for line in metrics] == [None, [1], [1], [1]]

    @pytest.mark.parametrize("content", [signed(), signed("SegmentRealTimeData", TaskId="audio")])
    def test_a_callback_that_could_not_be_queued_is_queued_when_it_comes_again(
        self, function: Function, aws_away: EmbeddedAws, monkeypatch: pytest.MonkeyPatch, content: dict[str, str]
    ) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(function.module._sqs, "url", aws_away.endpoint)
            assert function.answer(content) == (503, "the callback was not queued: send it again")
        assert function.answer(content) == (200, "queued")

    def test_a_callback_is_no_replay_of_another_that_has_the_same_signature(self, function: Function) -> None:
        content = signed()
        other = content | {"AppId": content["Nonce"], "Nonce": content["AppId"]}
        assert function.answer(other) == (200, "queued")
        assert function.answer(content) == (200, "queued")


def slice_of(task_id: str = "audio", second: int = 0, room_id: str = "room-1") -> dict[str, str]:
    """Create the callback of a slice, some seconds after the first one."""
    data = {"RoomId": room_id, "TaskId": task_id, "UserId": "user-1"}
    return callback("SegmentRealTimeData", data, f"2026-11-22T06:{12 + second // 60:02}:{second % 60:02}.5Z", key=KEY)


class TestSlices:
    def test_only_the_first_of_many_slices_of_a_task_is_queued(
        self, function: Function, capsys: pytest.CaptureFixture[str]
    ) -> None:
        slices = [slice_of(second=second) for second in range(20)]
        answers = [function.answer(one) for one in slices]
        assert answers == [(200, "queued")] + [(200, "known")] * 19
        assert function.queued() == [kept(slices[0])]
        # A log line and a metric for each would cost more than the rest of its processing.
        assert [line["message"] for line in function.logs()] == ["queued"]
        assert function.status(signed()) == 200
        first, second = (json.loads(line) for line in capsys.readouterr().out.splitlines())
        assert "CallbackKnown" not in first
        assert (second["CallbackKnown"], second["CallbackQueued"]) == ([19], [1])
        assert function.status(signed()) == 200
        assert "CallbackKnown" not in json.loads(capsys.readouterr().out)

    def test_a_slice_is_queued_again_after_a_minute(self, function: Function) -> None:
        ends: list[str] = []
        for seconds in (0, 59.9, 0.1, 1):
            function.now += seconds
            ends.append(function.answer(slice_of(second=len(ends)))[1])
        assert ends == ["queued", "known", "queued", "known"]

    def test_an_older_slice_is_queued(self, function: Function) -> None:
        # It may be from before the room's end, and the other one from after it.
        ends = [function.answer(slice_of(second=second))[1] for second in (5, 4, 4, 5, 6)]
        assert ends == ["queued", "queued", "known", "known", "known"]

    def test_a_slice_without_a_readable_time_counts_from_its_arrival(self, function: Function) -> None:
        ends = []
        for _ in range(2):
            content = signed("SegmentRealTimeData", event_time="yesterday", TaskId="audio")
            ends.append(function.answer(content)[1])
            function.now_ms += 1
        assert ends == ["queued", "known"]

    @pytest.mark.parametrize("other", [slice_of("video"), slice_of(room_id="room-2")])
    def test_a_slice_of_another_task_is_queued(self, function: Function, other: dict[str, str]) -> None:
        for content in (slice_of(), other):
            assert function.answer(content) == (200, "queued")
        assert function.answer(slice_of(second=1)) == (200, "known")

    def test_a_slice_after_the_end_of_its_room_is_queued(self, function: Function) -> None:
        ends = [
            function.answer(content)[1]
            for content in (slice_of(), slice_of(room_id="room-2"), signed(), slice_of(second=1))
        ]
        assert ends == ["queued"] * 4
        assert function.answer(slice_of(second=1, room_id="room-2")) == (200, "known")

    @pytest.mark.parametrize(
        "content",
        [
            signed("SegmentRealTimeData"),
            signed("SegmentRealTimeData", TaskId=5),
            resigned(signed("SegmentRealTimeData"), EventData="[]"),
            resigned(signed("SegmentRealTimeData"), EventData="{"),
            resigned(signed(), EventData="[]"),
        ],
    )
    def test_a_callback_without_a_room_or_a_task_is_queued_each_time_since_the_stop_function_reports_it(
        self, function: Function, content: dict[str, str]
    ) -> None:
        for one in (content, resigned(content, EventId="again")):
            assert function.answer(one) == (200, "queued")

    def test_the_number_of_remembered_slices_is_bounded(self) -> None:
        slices = QueuedSlices(2, lambda: 0.0)
        first, second, third = (read_slice(slice_of(task_id), ARRIVED_MS) for task_id in ("one", "two", "three"))
        assert first
        assert second
        assert third
        for one in (first, second, first, third):
            slices.add(one)
        assert [one in slices for one in (first, second, third)] == [True, False, True]


@pytest.mark.parametrize(
    ("app_id", "group"), [("661e", "661e"), ("a" * 128, "a" * 128), ("a" * 129, None), ("", None), ("a b", None)]
)
def test_the_callbacks_of_an_application_are_a_message_group(
    function: Function, app_id: str, group: str | None
) -> None:
    # A group that SQS refuses would keep the callback off the queue.
    content = callback("RoomDestroy", {"RoomId": "room-1"}, EVENT_TIME, app_id=app_id, key=KEY)
    assert function.answer(content) == (200, "queued")
    received = function.sqs.receive_message(QueueUrl=function.queue, MessageSystemAttributeNames=["All"])
    assert received["Messages"][0]["Attributes"].get("MessageGroupId") == group


class TestKeys:
    def test_the_key_before_the_previous_one_is_refused(self, function: Function) -> None:
        function.rotate(NEXT_KEY)
        function.rotate("the-key-after-that")
        assert function.status(signed(key=NEXT_KEY)) == 200
        assert function.answer(signed(key=KEY)) == (401, "the signature is missing or wrong: check the key")

    def test_an_unknown_signature_makes_the_function_read_the_new_key(self, function: Function) -> None:
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

    def test_white_space_around_a_key_is_ignored(self, function: Function) -> None:
        function.rotate(f"  {NEXT_KEY}\n")
        assert function.status(signed(key=NEXT_KEY)) == 200

    def test_an_empty_secret_accepts_no_signature_and_is_read_again_after_five_seconds(
        self, function: Function
    ) -> None:
        function.rotate(" \n")
        for seconds in (0, 1, 3.9):
            function.now += seconds
            assert function.status(signed(key="")) == 503
        assert function.asked == ["AWSCURRENT"]
        assert function.logs()[0]["error"] == "SecretIsEmpty"
        function.rotate(KEY)
        function.now += 0.1
        assert function.status(signed()) == 200

    def test_a_thousand_requests_try_to_read_a_missing_secret_once_in_five_seconds(self, function: Function) -> None:
        function.lose_the_secret()
        for _ in range(1_000):
            assert function.status(signed()) == 503
            function.now += 0.0101
        assert function.asked == ["AWSCURRENT"] * 3

    @pytest.mark.parametrize("hours", [0, 1, 23.9, 24, 25, 24 * 365])
    def test_the_previous_key_is_accepted_for_a_day_after_the_next_one_was_created(
        self, function: Function, hours: float
    ) -> None:
        function.rotate(NEXT_KEY)
        function.created_ms = function.now_ms - int(hours * 3_600_000)
        assert function.status(signed(key=NEXT_KEY)) == 200
        assert function.status(signed()) == (200 if hours < 24 else 401)

    def test_the_previous_key_expires_even_if_secrets_manager_does_not_answer(self, function: Function) -> None:
        function.rotate(NEXT_KEY)
        function.created_ms = function.now_ms - 86_399_999
        assert function.status(signed()) == 200
        function.lose_the_secret()
        function.now_ms += 1
        assert function.status(signed()) == 401

    def test_old_keys_are_kept_while_the_secret_cannot_be_read(self, function: Function) -> None:
        assert function.status(signed()) == 200
        function.lose_the_secret()
        function.now += 300
        assert function.status(signed()) == 200
        assert function.status(signed(key="their-key")) == 401

    @pytest.mark.parametrize("is_lost", [False, True])
    def test_a_storm_of_forgeries_reads_the_keys_once_a_minute(self, function: Function, is_lost: bool) -> None:
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


class TestReports:
    @pytest.mark.parametrize(
        ("content", "method", "metric", "level"),
        [
            (signed(), "POST", "CallbackQueued", "INFO"),
            (signed("UserJoinRoom"), "POST", "CallbackIgnored", "INFO"),
            (signed(key="their-key"), "POST", "CallbackRefused", "WARNING"),
            ({}, "POST", "CallbackMalformed", "WARNING"),
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
        function.answer(content, method)
        (line,) = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        (directive,) = line["_aws"]["CloudWatchMetrics"]
        assert directive["Namespace"] == NAMESPACE
        assert directive["Dimensions"] == [["service"]]
        assert directive["Metrics"] == [{"Name": metric, "Unit": "Count"}]
        assert (line[metric], line["service"]) == ([1], SERVICE)
        assert [said["level"] for said in function.logs()] == [level]

    def test_a_callback_that_could_not_be_checked_is_counted(
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

    def test_the_log_line_of_a_queued_callback_names_its_message(self, function: Function) -> None:
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
    """Check a body by the rules of the API's documents, with code that is not the function's."""
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


class TestRandomRequests:
    """Each request is sent twice and answered twice. Only signed requests are queued, and only once."""

    @pytest.fixture
    def queued(self, function: Function, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """Replace the queue by a list, since real sends would take minutes."""
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
    def test_only_signed_mutations_of_callbacks_are_queued(
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
        status, _ = function.answer(body)
        assert (status == 200) == is_properly_signed(body)
        assert status in (200, 400, 401)
        if queued:
            content = json.loads(body)
            assert queued == [kept(content)]
            assert content["EventType"] in QUEUED_TYPES
        queued.clear()
        assert function.answer(body)[0] == status
        assert queued == []
