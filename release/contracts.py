"""`python -m release.contracts` prints the digests of the schemas in contracts/, for a released version's folder."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

CONTRACTS = Path(__file__).parents[1] / "contracts"


def digests() -> str:
    """Return a line for each schema, with the digest and the name of the schema."""
    return "".join(f"{digest(path)}  {path.name}\n" for path in sorted(CONTRACTS.glob("*.schema.json")))


def digest(path: Path) -> str:
    """Return the SHA-256 of a schema without its descriptions, which may be reworded at any time."""
    rules = json.loads(path.read_text(), object_hook=_without_description)
    return hashlib.sha256(json.dumps(rules).encode()).hexdigest()


def _without_description(part: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in part.items() if name != "description"}


if __name__ == "__main__":
    sys.stdout.write(digests())
