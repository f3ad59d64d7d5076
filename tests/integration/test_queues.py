"""The queues of the stop function, in an embedded AWS and in moto."""

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from botocore.exceptions import EndpointConnectionError

from sandbox.embedded_aws import EmbeddedAws
from segments.errors import InvalidMessage, NoTimeLeft, Rejected, Retryable, StopError
from stop_segment.arrivals import Arrival
from stop_segment.failures import Failure
from stop_segment.queues import Queues
from stop_segment.workflow_answers import notice
from tests.environments import hooked
from tests.second_opinion import moto_client

NOW_MS = 1_795_327_930_000
EVENT_MS = 1_795_327_920_123
REJECTED = Rejected("InvalidParameter.NotExistAppId", "the API answered HTTP 400: no such app", "20261122REQUEST")


class Sqs:
    """The queues, and the requests that send or postpone their messages."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.event_queue, self.dead_letter_queue, self.failed_stop_queue, self.answer_queue = (
            client.create_queue(QueueName=f"{name}-{uuid4().hex}")["QueueUrl"]
            for name in ("events", "letters", "failed-stops", "answers")
        )
        self.asked: list[dict[str, Any]] = []

    def note(self, params: dict[str, Any], **_: object) -> None:
        self.asked.append(params)

    def queues(self) -> Queues:
        places = (self.event_queue, self.dead_letter_queue, self.failed_stop_queue, self.answer_queue)
        return Queues(self.client, *places)

    def receive(self, queue: str, count: int) -> list[dict[str, Any]]:
        """Receive this number of messages, which stay invisible."""
        messages: list[dict[str, Any]] = []
        for _ in range(count + 1):  # each answer has at least one message, and the last one is empty
            messages += self.client.receive_message(
                QueueUrl=queue,
                MaxNumberOfMessages=10,
                VisibilityTimeout=600,
                MessageAttributeNames=["All"],
                WaitTimeSeconds=1 if len(messages) < count else 0,
            ).get("Messages", [])
        return messages

    def letters(self, count: int) -> list[dict[str, Any]]:
        return self.receive(self.dead_letter_queue, count)


@pytest.fixture(scope="module", params=["embedded AWS", "moto"])
def client(request: pytest.FixtureRequest, aws: EmbeddedAws) -> Iterator[Any]:
    if request.param == "moto":
        with moto_client("sqs") as client:
            yield client
        return
    client = aws.client("sqs")
    yield client
    client.close()


@pytest.fixture
def sqs(client: Any) -> Iterator[Sqs]:
    made = Sqs(client)
    sent, postponed = (f"provide-client-params.sqs.{name}Batch" for name in ("SendMessage", "ChangeMessageVisibility"))
    with hooked(client, sent, made.note), hooked(client, postponed, made.note):
        yield made


def failure(
    message_id: str = "m-1",
    body: str = "{}",
    error: StopError = REJECTED,
    receive_count: int = 1,
    receipt_handle: str = "handle",
) -> Failure:
    return Failure(Arrival(message_id, receipt_handle, body, EVENT_MS, receive_count), error)


def attributes(letter: dict[str, Any]) -> dict[str, tuple[str, str]]:
    return {name: (value["DataType"], value["StringValue"]) for name, value in letter["MessageAttributes"].items()}


def test_the_message_of_a_notice_has_it_as_its_body_and_no_attributes(sqs: Sqs) -> None:
    letters = [(failure("m-1"), "rejected"), (failure("m-2", error=InvalidMessage("NotJson", "no")), "invalid_message")]
    assert sqs.queues().send_notices(letters, NOW_MS) == {"m-1", "m-2"}
    received = sqs.receive(sqs.failed_stop_queue, 2)
    assert sorted(one["Body"] for one in received) == sorted(notice(one, kind, NOW_MS) for one, kind in letters)
    assert not any(attributes(one) for one in received if "MessageAttributes" in one)
    assert sqs.receive(sqs.dead_letter_queue, 0) == []


def test_the_message_of_an_answer_has_it_as_its_body(sqs: Sqs) -> None:
    answers = [(failure("m-1"), '{"TaskToken": "one"}'), (failure("m-2"), '{"TaskToken": "two"}')]
    assert sqs.queues().send_answers(answers) == {"m-1", "m-2"}
    assert sorted(one["Body"] for one in sqs.receive(sqs.answer_queue, 2)) == [answer for _, answer in answers]


def test_a_copy_that_only_repeats_an_answer_has_the_attributes_of_the_dead_letter_and_a_mark(sqs: Sqs) -> None:
    letters = [(failure(), "rejected")]
    sqs.queues().send_dead_letters(letters, NOW_MS)
    assert sqs.queues().send_given_up(letters, NOW_MS) == {"m-1"}
    assert [sent["QueueUrl"] for sent in sqs.asked] == [sqs.dead_letter_queue, sqs.event_queue]
    (letter,), (copy,) = (sent["Entries"] for sent in sqs.asked)
    mark = {"GivenUp": {"DataType": "String", "StringValue": "true"}}
    assert copy["MessageAttributes"] == letter["MessageAttributes"] | mark
    assert (copy["MessageBody"], copy["DelaySeconds"]) == (letter["MessageBody"], 5)


class TestDeadLetters:
    @pytest.mark.parametrize("body", ['  {"RoomId":\t"房间 ☎ 😀",\r\n "a": "\\ud800"}  ', "x" * 500_000])
    def test_a_dead_letter_has_the_body_of_its_message_unchanged(self, sqs: Sqs, body: str) -> None:
        assert sqs.queues().send_dead_letters([(failure(body=body), "rejected")], NOW_MS) == {"m-1"}
        assert [letter["Body"] for letter in sqs.letters(1)] == [body]

    def test_a_dead_letter_has_the_error_in_its_attributes(self, sqs: Sqs) -> None:
        sqs.queues().send_dead_letters([(failure(receive_count=3), "rejected")], NOW_MS)
        (letter,) = sqs.letters(1)
        assert attributes(letter) == {
            "ErrorKind": ("String", "rejected"),
            "ErrorCode": ("String", "InvalidParameter.NotExistAppId"),
            "ErrorMessage": ("String", "the API answered HTTP 400: no such app"),
            "RequestId": ("String", "20261122REQUEST"),
            "FailedAt": ("Number", str(NOW_MS)),
            "SourceMessageId": ("String", "m-1"),
            "ReceiveCount": ("Number", "3"),
            "EventTime": ("Number", str(EVENT_MS)),
        }

    def test_a_dead_letter_without_a_request_id_has_no_such_attribute(self, sqs: Sqs) -> None:
        error = InvalidMessage("NotJson", "the body is not JSON", "")
        assert sqs.queues().send_dead_letters([(failure(error=error), "invalid_message")], NOW_MS) == {"m-1"}
        (letter,) = sqs.letters(1)
        assert "RequestId" not in letter["MessageAttributes"]

    def test_dead_letters_of_more_than_one_mib_take_several_calls(self, sqs: Sqs) -> None:
        # Each of these characters takes 2 bytes: bytes count, not characters.
        letters = [(failure(f"m-{number}", body="é" * 200_000), "rejected") for number in range(5)]
        assert len(sqs.queues().send_dead_letters(letters, NOW_MS)) == 5
        assert [len(asked["Entries"]) for asked in sqs.asked] == [2, 2, 1]
        assert len(sqs.letters(5)) == 5

    def test_the_attributes_count_towards_the_limit_of_a_call(self, sqs: Sqs) -> None:
        error = Rejected("InvalidParameter.X", "e" * 500, "r" * 40)
        letters = [(failure(f"m-{number}", body="x" * 104_700, error=error), "rejected") for number in range(10)]
        assert len(sqs.queues().send_dead_letters(letters, NOW_MS)) == 10
        assert [len(asked["Entries"]) for asked in sqs.asked] == [9, 1]

    def test_no_dead_letter_counts_as_sent_if_the_answer_lists_none(self, sqs: Sqs) -> None:
        """SQS leaves an empty list out of an answer, but the embedded AWS does not."""

        def leave_out(parsed: dict[str, Any], **_: object) -> None:
            del parsed["Successful"]

        with hooked(sqs.client, "after-call.sqs.SendMessageBatch", leave_out):
            assert sqs.queues().send_dead_letters([(failure(), "rejected")], NOW_MS) == set()

    def test_without_the_queue_or_sqs_no_dead_letter_counts_as_sent(self, sqs: Sqs, aws_away: EmbeddedAws) -> None:
        for client, queue in ((sqs.client, sqs.dead_letter_queue + "-gone"), (aws_away.client("sqs"), "letters")):
            queues = Queues(client, sqs.event_queue, queue, sqs.failed_stop_queue)
            assert queues.send_dead_letters([(failure(), "rejected")], NOW_MS) == set()


class TestPostpone:
    def received(self, sqs: Sqs, count: int, error: StopError, receive_count: int = 1) -> list[Failure]:
        """Send and receive messages, as failures."""
        for number in range(count):
            sqs.client.send_message(QueueUrl=sqs.event_queue, MessageBody=f"body {number}")
        return [
            failure(message["MessageId"], message["Body"], error, receive_count, message["ReceiptHandle"])
            for message in sqs.receive(sqs.event_queue, count)
        ]

    def in_flight(self, sqs: Sqs) -> int:
        answer = sqs.client.get_queue_attributes(
            QueueUrl=sqs.event_queue, AttributeNames=["ApproximateNumberOfMessagesNotVisible"]
        )
        return int(answer["Attributes"]["ApproximateNumberOfMessagesNotVisible"])

    def test_a_message_is_received_again_after_its_back_off(self, sqs: Sqs) -> None:
        failures = self.received(sqs, 2, Retryable("Timeout", "too late"))
        jitters = iter([0.0, 1.0])
        sqs.queues().postpone(failures, lambda: next(jitters))
        assert self.in_flight(sqs) == 1
        (again,) = sqs.receive(sqs.event_queue, 1)
        assert again["Body"] == failures[0].arrival.body

    @pytest.mark.parametrize(
        ("error", "receive_count", "seconds"),
        [
            (Retryable("Timeout", "too late"), 4, 40),
            (NoTimeLeft("NoTimeLeft", "its turn did not come"), 9, 5),
            (Rejected("X", "its letter could not be sent"), 2, 10),
        ],
    )
    def test_the_back_off_grows_with_each_attempt(
        self, sqs: Sqs, error: StopError, receive_count: int, seconds: int
    ) -> None:
        failures = self.received(sqs, 1, error, receive_count)
        sqs.queues().postpone(failures, lambda: 1.0)
        assert [entry["VisibilityTimeout"] for entry in sqs.asked[0]["Entries"]] == [seconds]
        assert self.in_flight(sqs) == 1

    def test_a_message_that_cannot_be_postponed_does_not_affect_the_others(self, sqs: Sqs) -> None:
        lost = failure("lost", error=Retryable("Timeout", "too late"), receipt_handle="unknown")
        good = self.received(sqs, 1, Retryable("Timeout", "too late"))
        sqs.queues().postpone([lost, *good], lambda: 0.0)
        assert len(sqs.receive(sqs.event_queue, 1)) == 1

    def test_a_failed_call_does_not_keep_later_ones_from_being_made(self, sqs: Sqs) -> None:
        failures = self.received(sqs, 12, Retryable("Timeout", "too late"))
        connections = iter([False, True])

        def connect(**_: object) -> None:
            if not next(connections):
                raise EndpointConnectionError(endpoint_url=sqs.event_queue)

        with hooked(sqs.client, "before-call.sqs.ChangeMessageVisibilityBatch", connect):
            sqs.queues().postpone(failures, lambda: 0.0)
        assert {message["Body"] for message in sqs.receive(sqs.event_queue, 2)} == {
            one.arrival.body for one in failures[10:]
        }

    def test_a_missing_queue_raises_no_error_since_its_visibility_time_out_applies(self, sqs: Sqs) -> None:
        queues = Queues(sqs.client, sqs.event_queue + "-gone", sqs.dead_letter_queue, sqs.failed_stop_queue)
        queues.postpone([failure(error=Retryable("Timeout", "too late"))], lambda: 1.0)
