"""Reading, redriving, purging and restoring dead letters on their queue in SQS.

SQS cannot list a queue. A letter is read by receiving it, which hides it from other readers for a while. Letters that
are only read are given back::

    receive ... receive | give back                          look
    receive ... receive | send, delete ... | give back       redrive: letters not selected, or not sent
    receive ... receive | save, delete ... | give back       purge

If a program is killed, its letters appear again when their visibility time-out ends.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from botocore.exceptions import BotoCoreError, ClientError

from segments.batches import ENTRIES_A_CALL, parts
from tools.event_queue import read_depth
from tools.letters import DeadLetter, Message, read_letter, redriven

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sqs.type_defs import (
        BatchResultErrorEntryTypeDef,
        MessageAttributeValueTypeDef,
        SendMessageBatchRequestEntryTypeDef,
    )

_ATTRIBUTES_BYTES = 2_048  # the maximum for a letter, with the names of the attributes
_WAIT_SECONDS = 1  # with any wait time, SQS asks all its servers, so an empty answer means an empty queue
_SLOWEST_LETTERS_A_SECOND = 50  # delivered, taken back or deleted by a distant region
_SPARE_SECONDS = 10
MOST_IN_FLIGHT = 120_000  # above this limit of standard queues, SQS answers a long poll as if the queue were empty
_LONGEST_LEASE_SECONDS = 43_200  # SQS allows no more


class Interrupted(Exception):
    """The operator or the system asked the program to end."""


@dataclass(frozen=True)
class Reading:
    """The result of reading the queue.

    Parameters
    ----------
    letters
        Each letter once.
    hidden
        The approximate number of letters that another reader held when the reading began.
    complete
        Whether the queue was read to its end. False if letters arrived faster than they were read, or if too many
        letters are in flight and SQS delivers no more.
    """

    letters: Sequence[DeadLetter]
    hidden: int
    complete: bool


@dataclass(frozen=True)
class Tally:
    """The progress of a job.

    Parameters
    ----------
    done
        Letters that were moved and are off the dead-letter queue.
    refused
        Letters that SQS did not accept. These letters stay where they are.
    undeleted
        Letters that were sent or saved, but could not be deleted. These letters stay on the queue.
    reason
        The reason of the first letter that was refused or could not be deleted.
    """

    done: int = 0
    refused: int = 0
    undeleted: int = 0
    reason: str | None = None

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.done + other.done,
            self.refused + other.refused,
            self.undeleted + other.undeleted,
            self.reason or other.reason,
        )

    @property
    def total(self) -> int:
        """The number of letters that were handled."""
        return self.done + self.refused + self.undeleted


class DeadLetterQueue:
    """The letters of a dead-letter queue, held between `__enter__` and `__exit__`.

    Every method may raise `Interrupted` between two calls, and the errors of boto3. `__exit__` gives back the held
    letters.

    Parameters
    ----------
    client
        A boto3 SQS client.
    interrupted
        A function that returns whether a signal asked the program to end.
    """

    def __init__(self, client: SQSClient, url: str, interrupted: Callable[[], bool]) -> None:
        self._client = client
        self._url = url
        self._interrupted = interrupted
        self._held: dict[str, DeadLetter] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for part in parts(list(self._held.values())):
            # If the call fails, the visibility time-out ends by itself.
            with contextlib.suppress(ClientError, BotoCoreError):
                self._client.change_message_visibility_batch(
                    QueueUrl=self._url,
                    Entries=[
                        {"Id": str(number), "ReceiptHandle": letter.receipt_handle, "VisibilityTimeout": 0}
                        for number, letter in enumerate(part)
                    ],
                )

    def read(self, *, seconds_a_letter: float = 0.0) -> Reading:
        """Receive and hold every letter.

        Parameters
        ----------
        seconds_a_letter
            The time for the work on each letter. All letters stay hidden from other readers until the work is done.
        """
        depth = read_depth(self._client, self._url)
        waiting, hidden = depth.waiting, depth.in_work
        reading_seconds = _SPARE_SECONDS + waiting / _SLOWEST_LETTERS_A_SECOND
        lease_seconds = 2 * reading_seconds + waiting * seconds_a_letter
        deadline = time.monotonic() + reading_seconds
        while time.monotonic() < deadline:
            self._heed_interruption()
            messages = self._client.receive_message(
                QueueUrl=self._url,
                MaxNumberOfMessages=ENTRIES_A_CALL,
                VisibilityTimeout=min(_LONGEST_LEASE_SECONDS, round(lease_seconds)),
                WaitTimeSeconds=_WAIT_SECONDS,
                MessageAttributeNames=["All"],
                MessageSystemAttributeNames=["SentTimestamp"],
            ).get("Messages", [])
            # Keyed by id: SQS may deliver a letter twice, and then only the newer handle is valid.
            self._held |= {message["MessageId"]: read_letter(message) for message in messages}
            if not messages:
                complete = hidden + len(self._held) < MOST_IN_FLIGHT
                return Reading(list(self._held.values()), hidden, complete)
        return Reading(list(self._held.values()), hidden, complete=False)

    def redrive(self, letters: Sequence[DeadLetter], event_queue_url: str, per_second: int) -> Iterator[Tally]:
        """Send held letters to the event queue with their event times, and delete them. Yield after each call.

        A letter is deleted only after it was sent, so no letter is lost. A letter that is sent twice counts as a
        duplicate, because its event time stays the same.
        """
        turn = time.monotonic()
        for part in parts(letters, _bytes, min(ENTRIES_A_CALL, per_second)):
            time.sleep(max(0.0, turn - time.monotonic()))
            turn = time.monotonic() + len(part) / per_second
            self._heed_interruption()
            sent, reason = self._send(event_queue_url, [redriven(letter) for letter in part])
            yield self._delete([part[number] for number in sent]) + Tally(refused=len(part) - len(sent), reason=reason)

    def delete(self, letters: Sequence[DeadLetter]) -> Iterator[Tally]:
        """Delete held letters, and yield after each call."""
        for part in parts(letters):
            self._heed_interruption()
            yield self._delete(part)

    def restore(self, messages: Sequence[Message]) -> Iterator[Tally]:
        """Send purged letters to the dead-letter queue again, and yield after each call."""
        for part in parts(messages, _bytes):
            self._heed_interruption()
            sent, reason = self._send(self._url, part)
            yield Tally(done=len(sent), refused=len(part) - len(sent), reason=reason)

    def _send(self, queue_url: str, messages: Sequence[Message]) -> tuple[list[int], str | None]:
        """Send messages, and return the indexes of the accepted messages and the reason for the first refusal."""
        entries = [_entry(str(number), message) for number, message in enumerate(messages)]
        answer = self._client.send_message_batch(QueueUrl=queue_url, Entries=entries)
        return [int(entry["Id"]) for entry in answer.get("Successful", [])], _reason(answer.get("Failed", []))

    def _delete(self, letters: Sequence[DeadLetter]) -> Tally:
        if not letters:
            return Tally()
        answer = self._client.delete_message_batch(
            QueueUrl=self._url,
            Entries=[
                {"Id": str(number), "ReceiptHandle": letter.receipt_handle} for number, letter in enumerate(letters)
            ],
        )
        deleted = [letters[int(entry["Id"])] for entry in answer.get("Successful", [])]
        for letter in deleted:
            del self._held[letter.message_id]
        return Tally(done=len(deleted), undeleted=len(letters) - len(deleted), reason=_reason(answer.get("Failed", [])))

    def _heed_interruption(self) -> None:
        if self._interrupted():
            raise Interrupted


def _entry(name: str, message: Message) -> SendMessageBatchRequestEntryTypeDef:
    attributes = {key: _attribute(value) for key, value in message.attributes.items()}
    entry: SendMessageBatchRequestEntryTypeDef = {
        "Id": name,
        "MessageBody": message.body,
        "MessageAttributes": attributes,
    }
    return entry | {"MessageGroupId": message.group} if message.group else entry


def _attribute(value: str | int) -> MessageAttributeValueTypeDef:
    return {"DataType": "Number" if isinstance(value, int) else "String", "StringValue": str(value)}


def _reason(failed: Sequence[BatchResultErrorEntryTypeDef]) -> str | None:
    return f"{failed[0]['Code']}: {failed[0].get('Message', '')}" if failed else None


def _bytes(one: DeadLetter | Message) -> int:
    return len(one.body.encode()) + _ATTRIBUTES_BYTES
