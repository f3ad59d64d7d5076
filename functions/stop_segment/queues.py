"""The messages that replace failed messages, and the back-offs of messages that stay. This module knows SQS."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

from segments.batches import at_once, parts
from segments.errors import NoTimeLeft
from segments.events import FIRST_SENT_AT, GIVEN_UP
from stop_segment.failures import BACK_OFF_BASE_SECONDS, Failure, back_off_seconds, delay_seconds
from stop_segment.workflow_answers import notice

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sqs.type_defs import MessageAttributeValueTypeDef, SendMessageBatchRequestEntryTypeDef


@dataclass(eq=False)
class Queues:
    """The queues for failed messages.

    A letter is a failure with its ErrorKind. Every `send` method returns the ids of the failed messages whose
    replacements SQS accepted. `jitter` gives random numbers from 0 to 1. `failed_stop_queue_url` and
    `answer_queue_url` may be empty.
    """

    client: SQSClient
    event_queue_url: str
    dead_letter_queue_url: str
    failed_stop_queue_url: str
    answer_queue_url: str = ""

    def send_dead_letters(self, letters: Sequence[tuple[Failure, str]], now_ms: int) -> set[str]:
        """Send letters to the dead-letter queue. Only the messages in the result may be acknowledged."""
        return self._send(
            self.dead_letter_queue_url,
            [_Entry(failure, failure.arrival.body, _attributes(failure, kind, now_ms)) for failure, kind in letters],
        )

    def send_copies(self, failures: Sequence[Failure], now_ms: int, jitter: Callable[[], float]) -> set[str]:
        """Send copies of messages to the event queue, with a delay and with the times of the original messages.

        Only the messages whose copies were sent may be acknowledged.
        """
        entries = []
        for failure in failures:
            arrival, first_sent_ms = failure.arrival, failure.arrival.first_sent_ms
            times = _numbers({"EventTime": arrival.time_ms, FIRST_SENT_AT: first_sent_ms})
            entries.append(_Entry(failure, arrival.body, times, delay_seconds(now_ms - first_sent_ms, jitter())))
        return self._send(self.event_queue_url, entries)

    def send_given_up(self, letters: Sequence[tuple[Failure, str]], now_ms: int) -> set[str]:
        """Send copies of letters to the event queue, since the workflows of these letters must still be notified."""
        mark: dict[str, MessageAttributeValueTypeDef] = {GIVEN_UP: {"DataType": "String", "StringValue": "true"}}
        entries = [
            _Entry(failure, failure.arrival.body, _attributes(failure, kind, now_ms) | mark, BACK_OFF_BASE_SECONDS)
            for failure, kind in letters
        ]
        return self._send(self.event_queue_url, entries)

    def send_notices(self, letters: Sequence[tuple[Failure, str]], now_ms: int) -> set[str]:
        """Report dead letters to the publishing function."""
        return self._send(
            self.failed_stop_queue_url,
            [_Entry(failure, notice(failure, kind, now_ms)) for failure, kind in letters],
        )

    def send_answers(self, answers: Sequence[tuple[Failure, str]]) -> set[str]:
        """Send answers for workflows to the publishing function."""
        return self._send(self.answer_queue_url, [_Entry(failure, answer) for failure, answer in answers])

    def _send(self, queue_url: str, entries: Sequence[_Entry]) -> set[str]:
        # At the same time: 10 large entries need 10 calls.
        sent = at_once([functools.partial(self._send_part, queue_url, part) for part in parts(entries, _size)])
        return set().union(*sent)

    def _send_part(self, queue_url: str, part: Sequence[_Entry]) -> set[str]:
        entries = [entry.of_call(number) for number, entry in enumerate(part)]
        try:
            answer = self.client.send_message_batch(QueueUrl=queue_url, Entries=entries)
        except (ClientError, BotoCoreError):
            return set()
        return {part[int(entry["Id"])].failure.message_id for entry in answer.get("Successful", [])}

    def postpone(self, failures: Sequence[Failure], jitter: Callable[[], float]) -> None:
        """Set when each message is tried again. If a call fails, the queue's visibility time-out applies."""
        for part in parts(failures):
            try:
                self.client.change_message_visibility_batch(
                    QueueUrl=self.event_queue_url,
                    Entries=[
                        {
                            "Id": str(number),
                            "ReceiptHandle": failure.arrival.receipt_handle,
                            "VisibilityTimeout": back_off_seconds(_tries(failure), jitter()),
                        }
                        for number, failure in enumerate(part)
                    ],
                )
            except (ClientError, BotoCoreError):
                continue


def _tries(failure: Failure) -> int:
    # A message that got no turn has not failed, so its back-off does not grow.
    return 1 if isinstance(failure.error, NoTimeLeft) else failure.arrival.receive_count


@dataclass(frozen=True)
class _Entry:
    failure: Failure
    body: str
    attributes: dict[str, MessageAttributeValueTypeDef] = field(default_factory=dict)
    delay_seconds: int | None = None  # None for queues other than the event queue

    def of_call(self, number: int) -> SendMessageBatchRequestEntryTypeDef:
        entry: SendMessageBatchRequestEntryTypeDef = {
            "Id": str(number),
            "MessageBody": self.body,
            "MessageAttributes": self.attributes,
        }
        if self.delay_seconds is not None:
            entry["DelaySeconds"] = self.delay_seconds
            if event := self.failure.arrival.event:
                # While one AppId floods the queue, SQS serves the other AppIds first.
                entry["MessageGroupId"] = event.room.app_id
        return entry


def _size(entry: _Entry) -> int:
    """Count an entry's bytes as SQS does: the body, and every attribute's name, type and value."""
    attributes = entry.attributes.items()
    texts = [text for name, value in attributes for text in (name, value["DataType"], value["StringValue"])]
    return len(entry.body.encode()) + sum(len(text.encode()) for text in texts)


def _attributes(failure: Failure, kind: str, now_ms: int) -> dict[str, MessageAttributeValueTypeDef]:
    arrival, error = failure.arrival, failure.error
    texts = {
        "ErrorKind": kind,
        "ErrorCode": error.code,
        "ErrorMessage": error.message,
        "RequestId": error.request_id,
        "SourceMessageId": failure.message_id,
    }
    # SQS refuses empty values, such as the RequestId of an error without an answer.
    strings: dict[str, MessageAttributeValueTypeDef] = {
        name: {"DataType": "String", "StringValue": text} for name, text in texts.items() if text
    }
    numbers = {"FailedAt": now_ms, "ReceiveCount": arrival.receive_count, "EventTime": arrival.time_ms}
    return strings | _numbers(numbers)


def _numbers(values: Mapping[str, int]) -> dict[str, MessageAttributeValueTypeDef]:
    return {name: {"DataType": "Number", "StringValue": str(number)} for name, number in values.items()}
