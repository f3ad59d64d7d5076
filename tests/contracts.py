"""The schemas of contracts/, with which tests check real input and output."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema

from release.contracts import CONTRACTS

EARLIER_VERSIONS = sorted(folder.name for folder in CONTRACTS.glob("earlier/*"))


def path_of(name: str, version: str | None = None) -> Path:
    """Return the file of a contract: today's file, or the file of an earlier version if the contract has changed."""
    today, kept = (folder / f"{name}.schema.json" for folder in (CONTRACTS, CONTRACTS / "earlier" / (version or "")))
    return kept if kept.exists() else today


def schema(name: str, version: str | None = None) -> dict[str, Any]:
    """Return today's schema of a contract, or the schema of an earlier version."""
    read: dict[str, Any] = json.loads(path_of(name, version).read_text())
    return read


def digests(version: str) -> dict[str, str]:
    """Return the contracts that an earlier version had, each with its digest."""
    path = CONTRACTS / "earlier" / version / "digests.txt"
    lines = path.read_text().splitlines() if path.exists() else []
    return {name.removesuffix(".schema.json"): digest for digest, name in (line.split() for line in lines)}


def breaks(value: object, contract: dict[str, Any]) -> list[str]:
    """List the places where a value breaks a contract."""
    return [f"{error.json_path}: {error.message}" for error in jsonschema.Draft7Validator(contract).iter_errors(value)]


def closed(contract: Any) -> Any:
    """Forbid unknown fields: readers must accept unknown fields, but the stack must not send any."""
    if isinstance(contract, list):
        return [closed(part) for part in contract]
    if not isinstance(contract, dict):
        return contract
    parts = {name: closed(part) for name, part in contract.items()}
    return parts | {"additionalProperties": False} if {"type", "properties"} <= parts.keys() else parts


def assert_kept(value: object, name: str) -> None:
    """Check an output of the stack against today's contract and against the contracts of earlier versions."""
    assert breaks(value, closed(schema(name))) == []
    for version in EARLIER_VERSIONS:
        if name in digests(version):
            assert breaks(value, schema(name, version)) == [], version


def variants(value: Any, contract: dict[str, Any]) -> list[Any]:
    """Vary a sample as its contract allows: without each optional field, and with every value of an enumeration."""
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
