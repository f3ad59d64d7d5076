"""What contracts/ promises, to hold against it what really goes in and comes out."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema

CONTRACTS = Path(__file__).parents[1] / "contracts"
EARLIER_VERSIONS = sorted(folder.name for folder in CONTRACTS.glob("earlier/*"))


def schema(name: str, version: str | None = None) -> dict[str, Any]:
    """Return a contract's schema: today's, or that of an earlier version."""
    folder = CONTRACTS / "earlier" / version if version else CONTRACTS
    read: dict[str, Any] = json.loads((folder / f"{name}.schema.json").read_text())
    return read


def has(name: str, version: str) -> bool:
    """Tell whether an earlier version had a contract."""
    return (CONTRACTS / "earlier" / version / f"{name}.schema.json").exists()


def breaks(value: object, contract: dict[str, Any]) -> list[str]:
    """Say where a value does not keep a contract."""
    return [f"{error.json_path}: {error.message}" for error in jsonschema.Draft7Validator(contract).iter_errors(value)]


def closed(contract: Any) -> Any:
    """Forbid what the contract does not name: readers must bear it, but we may not send it unsaid."""
    if isinstance(contract, list):
        return [closed(part) for part in contract]
    if not isinstance(contract, dict):
        return contract
    parts = {name: closed(part) for name, part in contract.items()}
    return parts | {"additionalProperties": False} if {"type", "properties"} <= parts.keys() else parts


def assert_kept(value: object, name: str) -> None:
    """Hold something that came out of the stack against its contract, and those of earlier versions."""
    assert breaks(value, closed(schema(name))) == []
    for version in EARLIER_VERSIONS:
        if has(name, version):
            assert breaks(value, schema(name, version)) == [], version


def variants(value: Any, contract: dict[str, Any]) -> list[Any]:
    """Vary a sample as its contract allows: without what is optional, and with every value of an enumeration."""
    changed = [value, *_changed(value, contract, contract)]
    return [variant for variant in changed if not breaks(variant, contract)]


def _changed(value: Any, part: dict[str, Any], whole: dict[str, Any]) -> Iterator[Any]:
    if "$ref" in part:
        part = whole["definitions"][part["$ref"].rpartition("/")[2]]
    for each in part.get("allOf", []):
        yield from _changed(value, each, whole)
    yield from part.get("enum", [])
    properties = {name: of_name for name, of_name in part.get("properties", {}).items() if name in value}
    for name, of_name in properties.items():
        yield {key: value[key] for key in value if key != name}
        for changed in _changed(value[name], of_name, whole):
            yield value | {name: changed}
