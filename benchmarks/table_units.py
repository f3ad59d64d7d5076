"""Write and read units as DynamoDB counts them, from the calls that the embedded AWS has recorded."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from benchmarks.deployments import Deployment

WRITE_UNIT_BYTES = 1024
_READ_UNIT_BYTES = 4096
_WRITES = ("UpdateItem", "PutItem", "DeleteItem")

Item = Mapping[str, Mapping[str, str]]


@dataclass(frozen=True)
class Index:
    """The keys of a table's index, and the attributes that the index holds. None means all attributes."""

    keys: frozenset[str]
    projected: frozenset[str] | None

    def entry(self, item: Item) -> Item | None:
        """Return the attributes of an item that the index holds. None if the item is not in the index."""
        if not item.keys() >= self.keys:
            return None
        return {name: value for name, value in item.items() if self.projected is None or name in self.projected}

    def writes(self, before: Item, after: Item) -> int:
        """Count the index writes of a change: one to add, remove or change an entry, and two to change its key."""
        old, new = self.entry(before), self.entry(after)
        if old == new:
            return 0
        if old is None or new is None or all(old[key] == new[key] for key in self.keys):
            return 1
        return 2


@contextmanager
def counted(deployment: Deployment) -> Iterator[dict[str, float]]:
    """Count API requests, table requests and table units. The result is complete at the end of the block.

    A write costs one unit, even if its condition fails. Each change of an index, which the table's stream shows, costs
    one or two more units. An item of more than 1 KB is an error. The size of the result decides the cost of a read. The
    size of a query's result is measured by repeating the query at the end.
    """
    spent: dict[str, float] = {}
    table = deployment.client("dynamodb").describe_table(TableName=deployment.table_name)["Table"]
    keys = {key["AttributeName"] for key in table["KeySchema"]}
    scopes = ("LocalSecondaryIndexes", "GlobalSecondaryIndexes")
    indexes = [index_of(index, keys) for scope in scopes for index in table.get(scope, ())]
    stream = _Stream(deployment, table) if indexes else None
    since, requests_before = time.time(), len(deployment.rtc.requests)
    with deployment.recorded():
        yield spent
    spent["api_requests"] = len(deployment.rtc.requests) - requests_before
    changes = list(stream.changes()) if stream else []
    largest = max((size_of(after) for _, after in changes), default=0)
    if largest > WRITE_UNIT_BYTES:
        raise RuntimeError(
            f"an item has {largest} bytes, so a write costs more than the one counted unit: measure smaller items"
        )
    calls = list(_calls(deployment, since))
    spent["table_requests"] = len(calls)
    spent["write_units"] = sum(name in _WRITES for name, _ in calls)
    spent["write_units"] += sum(index.writes(*change) for index in indexes for change in changes)
    spent["read_units"] = sum(_read_units(deployment, *call) for call in calls if call[0] not in _WRITES)


def _calls(deployment: Deployment, since: float) -> Iterator[tuple[str, dict[str, Any]]]:
    for event in _recorded(deployment, since):
        request = json.loads(event["CloudTrailEvent"])["requestParameters"]
        if deployment.table_name in (request.get("TableName"), *request.get("RequestItems", ())):
            yield event["EventName"], request


def _read_units(deployment: Deployment, name: str, request: dict[str, Any]) -> float:
    match name:
        case "BatchGetItem":
            keys = request["RequestItems"][deployment.table_name]
            return len(keys["Keys"]) * _a_read(keys)
        case "GetItem":
            return _a_read(request)
        case "Query":
            given = deployment.client("dynamodb").query(**request)["Items"]
            return _a_read(request) * max(1, math.ceil(sum(map(size_of, given)) / _READ_UNIT_BYTES))
        case _:
            raise RuntimeError(f"the read units of {name} are not counted: add the operation to _read_units")


class _Stream:
    """The stream of a table, read from its present end."""

    def __init__(self, deployment: Deployment, table: Mapping[str, Any]) -> None:
        arn = table.get("LatestStreamArn")
        if arn is None:
            enabled = deployment.client("dynamodb").update_table(
                TableName=deployment.table_name,
                StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"},
            )
            arn = enabled["TableDescription"]["LatestStreamArn"]
        self._client = deployment.client("dynamodbstreams")
        (shard,) = self._client.describe_stream(StreamArn=arn)["StreamDescription"]["Shards"]
        self._iterator = self._client.get_shard_iterator(
            StreamArn=arn, ShardId=shard["ShardId"], ShardIteratorType="LATEST"
        )["ShardIterator"]

    def changes(self) -> Iterator[tuple[Item, Item]]:
        """Yield each changed item as it was before and after the change."""
        while True:
            answer = self._client.get_records(ShardIterator=self._iterator)
            self._iterator = answer["NextShardIterator"]
            if not answer["Records"]:
                return
            for record in answer["Records"]:
                change = record["dynamodb"]
                yield change.get("OldImage", {}), change.get("NewImage", {})


def index_of(description: Mapping[str, Any], table_keys: set[str]) -> Index:
    """Read the keys and the attributes of an index from the index's description."""
    keys = {key["AttributeName"] for key in description["KeySchema"]}
    projection = description["Projection"]
    is_all = projection["ProjectionType"] == "ALL"
    named = {*keys, *table_keys, *projection.get("NonKeyAttributes", ())}
    return Index(frozenset(keys), None if is_all else frozenset(named))


def _a_read(request: Mapping[str, Any]) -> float:
    return 1.0 if request.get("ConsistentRead") else 0.5


def size_of(item: Item) -> int:
    """Count the bytes of an item's names and values as DynamoDB does, with two digits in a byte."""
    return sum(
        len(name) + (len(value["N"]) // 2 + 2 if "N" in value else sum(len(text.encode()) for text in value.values()))
        for name, value in item.items()
    )


def _recorded(deployment: Deployment, since: float) -> Iterator[dict[str, Any]]:
    """Read the calls to DynamoDB from `since` on, newest first. The embedded AWS returns only 50 calls at a time."""
    client = deployment.aws.client("cloudtrail")
    query: dict[str, Any] = {
        "LookupAttributes": [{"AttributeKey": "EventSource", "AttributeValue": "dynamodb.amazonaws.com"}],
        "StartTime": since,
    }
    seen: set[str] = set()

    def replace_query(params: dict[str, Any], **_: object) -> None:
        params["body"] = json.dumps(query).encode()  # boto3 would round the times to seconds

    client.meta.events.register("before-call", replace_query)
    while events := [event for event in client.lookup_events()["Events"] if event["EventId"] not in seen]:
        yield from events
        seen.update(event["EventId"] for event in events)
        query["EndTime"] = events[-1]["EventTime"].timestamp() + 1e-6  # EventTime was rounded to microseconds
