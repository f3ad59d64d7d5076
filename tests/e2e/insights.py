"""Queries of CloudWatch Logs Insights, run by SQLite on log lines.

Embedded AWS knows no JSON fields and leaves out what it does not understand, which would prove nothing. SQLite refuses
a field that no line has and most that is not of the language; it would let SQL pass that Insights does not know.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

# A log line, or a row of a result: values by field.
Row = Mapping[str, Any]

_MS: Mapping[str, int] = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_TOKEN = re.compile(
    r"""(?P<text>"[^"]*")|/(?P<pattern>(?:\\.|[^/\\])+)/|bin\((?P<bin>\d+[smhd])\)|(?P<like>\blike\b)"""
    r"""|(?P<list>[\[\]])|(?P<word>\b(?:and|or|in|as|by|asc|desc)\b|\w+(?=\())|(?P<field>@?[A-Za-z_][\w.]*)"""
)
_STAGES = {
    "fields": "SELECT *, {} FROM ({})",
    "filter": "SELECT * FROM ({1}) WHERE {0}",
    "sort": "SELECT * FROM ({1}) ORDER BY {0}",
    "limit": "SELECT * FROM ({1}) LIMIT {0}",
}


class _Values:
    """The values of a group that are not missing."""

    def __init__(self) -> None:
        self._values: list[Any] = []
        self._percent = 0

    def step(self, value: Any, percent: int = 0) -> None:
        self._percent = percent
        self._values += [] if value is None else [value]


class _Percentile(_Values):
    def finalize(self) -> Any:
        return sorted(self._values)[round(self._percent / 100 * (len(self._values) - 1))] if self._values else None


class _CountDistinct(_Values):
    def finalize(self) -> int:
        return len(set(self._values))


def insights(query: str, lines: Sequence[Row]) -> list[Row]:
    """Run a query on log lines: of each the fields of its JSON, `@timestamp` in Unix ms, and `@message`."""
    database = sqlite3.connect(":memory:")
    database.row_factory = sqlite3.Row
    database.create_function("regexp", 2, lambda pattern, text: bool(re.search(pattern, str(text))))
    database.create_function("ispresent", 1, lambda value: value is not None)
    database.create_function("toMillis", 1, lambda time_ms: time_ms)
    database.create_aggregate("pct", 2, _Percentile)
    database.create_aggregate("count_distinct", 1, _CountDistinct)
    fields = list(dict.fromkeys(field for line in lines for field in line))
    database.execute(f"CREATE TABLE lines ({', '.join(f'[{field}]' for field in fields)})")
    database.executemany(
        f"INSERT INTO lines VALUES ({', '.join('?' * len(fields))})",  # noqa: S608 - as many as there are fields
        ([_plain(line.get(field)) for field in fields] for line in lines),
    )
    return [dict(row) for row in database.execute(_sql(query))]


def _plain(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, list | dict) else value


def _sql(query: str) -> str:
    sql = "SELECT * FROM lines"
    for stage in re.split(r"\|\s", query.strip()):  # no pattern of a page holds "| ": a stage begins at one
        command, _, rest = stage.strip().partition(" ")
        translated = _TOKEN.sub(_token, rest)
        if command == "stats":
            figures, _, keys = translated.partition(" by ")
            group = f"GROUP BY {re.sub(r' as [^ ,]+', '', keys)}" if keys else ""
            sql = f"SELECT {', '.join(filter(None, (figures, keys)))} FROM ({sql}) {group}"  # noqa: S608 - a page's
        else:
            sql = _STAGES[command].format(translated, sql)
    return sql


def _token(found: re.Match[str]) -> str:
    kind, text = str(found.lastgroup), found[str(found.lastgroup)]
    match kind:
        case "text":
            return f"'{text[1:-1]}'"
        case "pattern":
            return f"'{text}'"
        case "bin":
            return f"([@timestamp] / {int(text[:-1]) * _MS[text[-1]]} * {int(text[:-1]) * _MS[text[-1]]})"
        case "like":
            return "REGEXP"
        case "list":
            return {"[": "(", "]": ")"}[text]
    return text if kind == "word" else f"[{text}]"
