"""The part of DynamoDB that `SegmentTable` uses, in memory: one table, its indexes and its conditions.

The explorer needs many thousands of tables, and an embedded AWS would be too slow. So this stand-in for the client
evaluates the real expressions of `SegmentTable`. The tests of tests/integration/test_ledger.py run on both clients.
Its local index is always up to date. Its global index may be late for any item.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

from botocore.exceptions import ClientError

from tests.segment_table import GLOBAL, LOCAL, keys_of, projected

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

Item = dict[str, dict[str, Any]]
_Condition = Callable[[Item, Mapping[str, str], Item], bool]

_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "=": lambda left, right: bool(left == right),
    "<": lambda left, right: bool(left < right),
    "<=": lambda left, right: bool(left <= right),
    ">": lambda left, right: bool(left > right),
    ">=": lambda left, right: bool(left >= right),
    "<>": lambda left, right: bool(left != right),
}


class MemoryDynamo:
    """A boto3 client of DynamoDB, as `SegmentTable` sees it.

    Attributes
    ----------
    changes
        Each update, with the item before and after it, as in the table's stream.
    index
        The items of the global index when it was last read.
    behind
        The changes that the global index lacks: the versions of each item, the oldest first. None: the item was
        deleted.
    is_late
        Whether the global index, when it is read, still lacks the changes of an item.
    """

    def __init__(self) -> None:
        self._items: dict[tuple[str, str], Item] = {}
        self.index: dict[tuple[str, str], Item] = {}
        self.changes: list[tuple[Item, Item]] = []
        self.behind: dict[tuple[str, str], list[Item | None]] = {}
        self.is_late: Callable[[tuple[str, str]], bool] = lambda _: False

    @property
    def client(self) -> DynamoDBClient:
        """This object, typed as the client for which it stands in."""
        return cast("DynamoDBClient", self)

    def put(self, *items: Item) -> None:
        """Put items, without a condition and without a change in the stream."""
        for item in items:
            self._set(_key(item), item)

    def items(self) -> list[Item]:
        """Return all items of the table."""
        return [self._items[key] for key in sorted(self._items)]

    def get_item(self, *, TableName: str, Key: Item, ConsistentRead: bool) -> dict[str, Any]:  # noqa: N803, ARG002
        assert ConsistentRead
        item = self._items.get(_key(Key))
        return {"Item": item} if item else {}

    def batch_get_item(self, RequestItems: dict[str, Any]) -> dict[str, Any]:  # noqa: N803 - boto3's names
        ((name, request),) = RequestItems.items()
        assert request["ConsistentRead"]
        keys = [_key(key) for key in request["Keys"]]
        assert len(set(keys)) == len(keys) <= 100
        return {"Responses": {name: [self._items[key] for key in keys if key in self._items]}, "UnprocessedKeys": {}}

    def query(
        self,
        *,
        TableName: str,  # noqa: N803, ARG002
        IndexName: str,  # noqa: N803
        KeyConditionExpression: str,  # noqa: N803
        ExpressionAttributeValues: Item,  # noqa: N803
        ConsistentRead: bool = False,  # noqa: N803
    ) -> dict[str, Any]:
        # Amazon DynamoDB Developer Guide, "Query": a global secondary index cannot be read strongly consistent.
        assert ConsistentRead == (IndexName in LOCAL)
        keys = keys_of(IndexName)
        holds = _condition(KeyConditionExpression)
        held = self._read_global(IndexName) if IndexName in GLOBAL else self.items()
        found = [
            item for item in held if all(key in item for key in keys) and holds(item, {}, ExpressionAttributeValues)
        ]
        return {"Items": sorted(found, key=lambda item: (_value(item[keys[1]]), _key(item)))}

    def delete_item(self, *, TableName: str, Key: Item) -> dict[str, Any]:  # noqa: N803, ARG002
        old = self._items.get(_key(Key))
        if old:
            self._set(_key(Key), None)
        return {}

    def _set(self, key: tuple[str, str], item: Item | None) -> None:
        self._items.pop(key, None)
        if item:
            self._items[key] = item
        self.behind.setdefault(key, []).append(item)

    def _read_global(self, name: str) -> list[Item]:
        for key, versions in list(self.behind.items()):
            while versions and not self.is_late(key):
                version = versions.pop(0)
                self.index.pop(key, None)
                if version:
                    self.index[key] = version
            if not versions:
                del self.behind[key]
        names = projected(name)
        return [
            {attribute: value for attribute, value in self.index[key].items() if names is None or attribute in names}
            for key in sorted(self.index)
        ]

    def update_item(
        self,
        *,
        TableName: str,  # noqa: N803, ARG002
        Key: Item,  # noqa: N803
        UpdateExpression: str,  # noqa: N803
        ExpressionAttributeNames: dict[str, str],  # noqa: N803
        ExpressionAttributeValues: Item | None = None,  # noqa: N803
        ConditionExpression: str = "",  # noqa: N803
        ReturnValues: str = "",  # noqa: N803
        ReturnValuesOnConditionCheckFailure: str = "",  # noqa: N803
    ) -> dict[str, Any]:
        item = self._items.get(_key(Key), {})
        values = ExpressionAttributeValues or {}
        if ConditionExpression and not _condition(ConditionExpression)(item, ExpressionAttributeNames, values):
            error: Any = {"Error": {"Code": "ConditionalCheckFailedException", "Message": ""}}
            if ReturnValuesOnConditionCheckFailure and item:
                error["Item"] = item
            raise ClientError(error, "UpdateItem")
        new = {**Key, **item}
        for verb, name, operand in _changes(UpdateExpression):
            _change(new, verb, ExpressionAttributeNames[name], operand, values)
        self._set(_key(Key), new)
        self.changes.append((item, new))
        returned = item if ReturnValues == "ALL_OLD" else new
        return {"Attributes": returned} if returned else {}


def _key(item: Item) -> tuple[str, str]:
    return item["room"]["S"], item["task_id"]["S"]


def _value(attribute: Mapping[str, Any]) -> Any:
    ((kind, value),) = attribute.items()
    return Decimal(value) if kind == "N" else value


@lru_cache
def _changes(expression: str) -> list[tuple[str, str, str]]:
    """Split an update expression into (verb, attribute, operand)."""
    clauses = re.split(r"\b(SET|REMOVE) ", expression)[1:]
    changes = []
    for verb, text in zip(clauses[::2], clauses[1::2], strict=True):
        for part in re.split(r", (?=#)", text.strip()):
            name, _, operand = part.partition(" = ")
            changes.append((verb, name, operand))
    return changes


def _change(item: Item, verb: str, name: str, operand: str, values: Item) -> None:
    if verb == "REMOVE":
        item.pop(name, None)
    elif once := re.fullmatch(r"if_not_exists\(#(\w+), (:\w+)\)", operand):
        item.setdefault(name, values[once[2]])
    else:
        item[name] = values[operand]


@lru_cache
def _condition(expression: str) -> _Condition:
    """Compile a condition: comparisons, attribute_exists, attribute_not_exists, AND before OR, and parentheses."""
    tokens = re.findall(r"attribute_(?:not_)?exists\([#\w]+\)|[()]|[<>=]+|[#:\w]+", expression)
    return _alternatives(iter([*tokens, ")"]))


def _alternatives(tokens: Iterator[str]) -> _Condition:
    alternatives: list[list[_Condition]] = [[]]
    while True:
        alternatives[-1].append(_term(next(tokens), tokens))
        match next(tokens):
            case "OR":
                alternatives.append([])
            case "AND":
                pass
            case _:
                return lambda *given: any(all(term(*given) for term in terms) for terms in alternatives)


def _term(token: str, tokens: Iterator[str]) -> _Condition:
    if token == "(":
        return _alternatives(tokens)
    if call := re.fullmatch(r"attribute_(not_)?exists\((.+)\)", token):
        return lambda item, names, _: (names.get(call[2], call[2]) in item) != bool(call[1])
    sign, operand = _COMPARE[next(tokens)], next(tokens)

    def holds(item: Item, names: Mapping[str, str], values: Item) -> bool:
        attribute = item.get(names.get(token, token))
        # Values of two types are neither ordered nor equal.
        return (
            attribute is not None
            and attribute.keys() == values[operand].keys()
            and sign(_value(attribute), _value(values[operand]))
        )

    return holds
