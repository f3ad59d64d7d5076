"""The event queue, the dead-letter queue and the failed stops' queue, as far as failures need them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

from segments.batches import at_once, parts
from segments.errors import NoTimeLeft
from segments.events import FIRST_SENT_AT, GIVEN_UP
from stop_segment.failures import BACK_OFF_BASE_SECONDS, Failure, back_off_seconds, delay_seconds
from stop_segment.notices import notice

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sqs.type_defs import MessageAttributeValueTypeDef, SendMessageBatchRequestEntryTypeDef


class Queues:
    """The event queue and the dead-letter queue, as far as failures need them. It knows SQS.

    Parameters
    ----------
    client
        A boto3 SQS client.
    failed_stop_queue_url
        What takes notices of dead letters; empty where nobody is told.
    answer_queue_url
        What takes answers to workflows; empty if none may be answered.
    """

    def __init__(
        self,
        client: SQSClient,
        event_queue_url: str,
        dead_letter_queue_url: str,
        failed_stop_queue_url: str,
        answer_queue_url: str = "",
    ) -> None:
        self._client = client
        self._event_queue_url = event_queue_url
        self._dead_letter_queue_url = dead_letter_queue_url
        self._failed_stop_queue_url = failed_stop_queue_url
        self._answer_queue_url = answer_queue_url

    def send_dead_letters(self, letters: Sequence[tuple[Failure, str]], now_ms: int) -> set[str]:
        """Send failures, each with its ErrorKind, to the dead-letter queue.

        Returns
        -------
        set
            The ids of the messages whose letters SQS has taken. Only those may be acknowledged.
        """
        return self._send(
            self._dead_letter_queue_url,
            [_Letter(failure, _attributes(failure, kind, now_ms)) for failure, kind in letters],
        )

    def send_notices(self, letters: Sequence[tuple[Failure, str]], now_ms: int) -> set[str]:
        """Have workflows told of dead letters, each with its ErrorKind.

        Returns
        -------
        set
            The ids of the messages of which they will be told.
        """
        return self._send(
            self._failed_stop_queue_url,
            [_Letter(failure, {}, body=notice(failure, kind, now_ms)) for failure, kind in letters],
        )

    def send_answers(self, answers: Sequence[tuple[Failure, str]]) -> set[str]:
        """Hand answers to workflows over to the publishing function.

        Returns
        -------
        set
            The ids of the messages whose answers SQS has taken.
        """
        return self._send(self._answer_queue_url, [_Letter(failure, {}, body=answer) for failure, answer in answers])

    def send_given_up(self, letters: Sequence[tuple[Failure, str]], now_ms: int) -> set[str]:
        """Send copies of dead letters, each with its ErrorKind, to the event queue: their workflows are to be told.

        Returns
        -------
        set
            The ids of the messages whose copies SQS has taken.
        """
        given_up: dict[str, MessageAttributeValueTypeDef] = {GIVEN_UP: {"DataType": "String", "StringValue": "true"}}
        return self._send(
            self._event_queue_url,
            [
                _Letter(failure, _attributes(failure, kind, now_ms) | given_up, BACK_OFF_BASE_SECONDS, failure.group)
                for failure, kind in letters
            ],
        )

    def send_copies(self, failures: Sequence[Failure], now_ms: int, jitter: Callable[[], float]) -> set[str]:
        """Send copies of messages to the event queue, to be served later, with the times of the original.

        Parameters
        ----------
        jitter
            Gives random numbers from 0 to 1.

        Returns
        -------
        set
            The ids of the messages whose copies SQS has taken. Only those may be acknowledged.
        """
        return self._send(
            self._event_queue_url,
            [
                _Letter(
                    failure,
                    _numbers({"EventTime": failure.event_time_ms, FIRST_SENT_AT: failure.first_sent_ms}),
                    delay_seconds(now_ms - failure.first_sent_ms, jitter()),
                    failure.group,
                )
                for failure in failures
            ],
        )

    def _send(self, queue_url: str, letters: Sequence[_Letter]) -> set[str]:
        # At once: a part is as large as a call may be, so that ten large letters are ten calls.
        sent = at_once([functools.partial(self._send_part, queue_url, part) for part in parts(letters, _size)])
        return set().union(*sent)

    def _send_part(self, queue_url: str, part: Sequence[_Letter]) -> set[str]:
        try:
            answer = self._client.send_message_batch(
                QueueUrl=queue_url,
                Entries=[_entry(number, letter) for number, letter in enumerate(part)],
            )
        except (ClientError, BotoCoreError):
            return set()
        return {part[int(entry["Id"])].failure.message_id for entry in answer.get("Successful", [])}

    def postpone(self, failures: Sequence[Failure], jitter: Callable[[], float]) -> None:
        """Set when each message is tried again. Where that fails, the queue's own visibility time-out says when.

        Parameters
        ----------
        jitter
            Gives random numbers from 0 to 1.
        """
        for part in parts(failures):
            try:
                self._client.change_message_visibility_batch(
                    QueueUrl=self._event_queue_url,
                    Entries=[
                        {
                            "Id": str(number),
                            "ReceiptHandle": failure.receipt_handle,
                            "VisibilityTimeout": _back_off_seconds(failure, jitter()),
                        }
                        for number, failure in enumerate(part)
                    ],
                )
            except (ClientError, BotoCoreError):
                continue


def _back_off_seconds(failure: Failure, jitter: float) -> int:
    # Nobody has failed a message whose turn did not come: it need not wait longer each time.
    return back_off_seconds(1 if isinstance(failure.error, NoTimeLeft) else failure.receive_count, jitter)


@dataclass(frozen=True)
class _Letter:
    failure: Failure
    attributes: dict[str, MessageAttributeValueTypeDef]
    delay_seconds: int = 0
    group: str | None = None
    body: str | None = None

    @property
    def text(self) -> str:
        return self.failure.body if self.body is None else self.body


def _size(letter: _Letter) -> int:
    """Count a letter's bytes as SQS does: the body, and every attribute's name, type and value."""
    attributes = letter.attributes.items()
    texts = [text for name, value in attributes for text in (name, value["DataType"], value["StringValue"])]
    return len(letter.text.encode()) + sum(len(text.encode()) for text in texts)


def _attributes(failure: Failure, kind: str, now_ms: int) -> dict[str, MessageAttributeValueTypeDef]:
    error = failure.error
    texts = {
        "ErrorKind": kind,
        "ErrorCode": error.code,
        "ErrorMessage": error.message,
        "RequestId": error.request_id,
        "SourceMessageId": failure.message_id,
    }
    numbers = {"FailedAt": now_ms, "ReceiveCount": failure.receive_count, "EventTime": failure.event_time_ms}
    # SQS refuses an empty value: an error without an answer has no RequestId.
    strings: dict[str, MessageAttributeValueTypeDef] = {
        name: {"DataType": "String", "StringValue": text} for name, text in texts.items() if text
    }
    return strings | _numbers(numbers)


def _entry(number: int, letter: _Letter) -> SendMessageBatchRequestEntryTypeDef:
    entry: SendMessageBatchRequestEntryTypeDef = {
        "Id": str(number),
        "MessageBody": letter.text,
        "MessageAttributes": letter.attributes,
        "DelaySeconds": letter.delay_seconds,
    }
    if letter.group:
        entry["MessageGroupId"] = letter.group
    return entry


def _numbers(values: Mapping[str, int]) -> dict[str, MessageAttributeValueTypeDef]:
    return {name: {"DataType": "Number", "StringValue": str(number)} for name, number in values.items()}
