"""The number of messages on a queue, and their retention time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient


@dataclass(frozen=True)
class Depth:
    """The approximate number of messages on a queue.

    Parameters
    ----------
    waiting
        Messages that can be received now.
    in_work
        Messages that a function has received, or that wait for their next try.
    retention_seconds
        The time for which SQS keeps a message.
    """

    waiting: int
    in_work: int
    retention_seconds: int

    @property
    def total(self) -> int:
        """The number of all messages, waiting or in work."""
        return self.waiting + self.in_work


def read_depth(client: SQSClient, queue_url: str) -> Depth:
    """Read the depth of a queue from SQS."""
    attributes = client.get_queue_attributes(
        QueueUrl=queue_url,
        AttributeNames=[
            "ApproximateNumberOfMessages",
            "ApproximateNumberOfMessagesNotVisible",
            "ApproximateNumberOfMessagesDelayed",
            "MessageRetentionPeriod",
        ],
    )["Attributes"]
    return Depth(
        waiting=int(attributes["ApproximateNumberOfMessages"]),
        in_work=int(attributes["ApproximateNumberOfMessagesNotVisible"])
        + int(attributes["ApproximateNumberOfMessagesDelayed"]),
        retention_seconds=int(attributes["MessageRetentionPeriod"]),
    )
