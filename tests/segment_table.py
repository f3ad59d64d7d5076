"""The segment table's keys and indexes, read from template.yaml, so that no test repeats them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml


class _Loader(yaml.SafeLoader):
    """Reads a template, with None in place of CloudFormation's functions."""


_Loader.add_multi_constructor("!", lambda *_: None)
_TEMPLATE = yaml.load((Path(__file__).parents[1] / "template.yaml").read_text(), _Loader)  # noqa: S506 # it is safe
_PROPERTIES = _TEMPLATE["Resources"]["SegmentTable"]["Properties"]
SHAPE: dict[str, Any] = {
    name: _PROPERTIES[name]
    for name in (
        "BillingMode",
        "AttributeDefinitions",
        "KeySchema",
        "LocalSecondaryIndexes",
        "GlobalSecondaryIndexes",
    )
}
LOCAL, GLOBAL = (
    {index["IndexName"]: index for index in SHAPE[f"{scope}SecondaryIndexes"]} for scope in ("Local", "Global")
)


def create_segment_table(client: Any, name: str) -> None:
    """Create a segment table with the keys and indexes of template.yaml."""
    client.create_table(TableName=name, **SHAPE)


def keys_of(index_name: str | None) -> tuple[str, str]:
    """Name the partition key and the sort key of the table, or of an index."""
    schema = (LOCAL | GLOBAL)[index_name]["KeySchema"] if index_name else SHAPE["KeySchema"]
    partition, sort = (key["AttributeName"] for key in schema)
    return partition, sort


def projected(index_name: str) -> set[str] | None:
    """Name the attributes that a global index holds, or return None if it holds all of them."""
    projection = GLOBAL[index_name]["Projection"]
    if projection["ProjectionType"] == "ALL":
        return None
    return {*projection.get("NonKeyAttributes", ()), *keys_of(None), *keys_of(index_name)}
