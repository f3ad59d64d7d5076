"""Trims botocore's data to the services that a function calls, without documentation.

Reading all data would take 14 % of a cold start. Usage: `python3 trim.py FOLDER SERVICE ...`
"""

import gzip
import json
import shutil
import sys
from pathlib import Path
from typing import Any


def trim(folder: Path, services: set[str]) -> None:
    """Trim the `data` folder of a botocore package."""
    for path in folder.iterdir():
        if path.is_dir() and path.name not in services:
            shutil.rmtree(path)
    hosts = set()
    for packed in folder.rglob("*.json.gz"):
        content = _undocumented(json.loads(gzip.decompress(packed.read_bytes())))
        hosts.add(content.get("metadata", {}).get("endpointPrefix"))
        _write(packed.with_suffix(""), content)
        packed.unlink()
    endpoints = folder / "endpoints.json"
    known = json.loads(endpoints.read_text())
    for partition in known["partitions"]:
        partition["services"] = {name: part for name, part in partition["services"].items() if name in hosts}
    _write(endpoints, known)


def _undocumented(node: Any) -> Any:
    if isinstance(node, list):
        return [_undocumented(part) for part in node]
    if isinstance(node, dict):
        # A shape may have a member called documentation, too; that one is an object.
        kept = {name: part for name, part in node.items() if name != "documentation" or not isinstance(part, str)}
        return {name: _undocumented(part) for name, part in kept.items()}
    return node


def _write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, separators=(",", ":")))


if __name__ == "__main__":
    trim(Path(sys.argv[1]), set(sys.argv[2:]))
