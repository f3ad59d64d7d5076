"""Queries of CloudWatch Logs Insights, run by SQLite on log lines.

Embedded AWS reads no JSON fields and skips what it does not understand, so its results prove nothing. SQLite refuses a
field that no line has, and most text that is not of the query language. It would accept SQL that Insights refuses.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

# A log line, or a row of a result: values by field.
Row = Mapping[str, Any]

_TOKEN = re.compile(
    r"""(?P<text>"[^"]*")|/(?P<pattern>(?:\\.|[^/\\])+)/|bin\((?P<minutes>\d+)m\)|(?P<like>\blike\b)|(?P<bracket>[\[\]])"""
    r"""|(?P<word>\b(?:and|or|in|as|by|asc|desc|DISTINCT)\b|\w+(?=\())|(?P<field>@?[A-Za-z_][\w.]*)"""
)
_STAGES = {
    "fields": "SELECT *, {} FROM ({})",
    "filter": "SELECT * FROM ({1}) WHERE {0}",
    "sort": "SELECT * FROM ({1}) ORDER BY {0}",
    "limit": "SELECT * FROM ({1}) LIMIT {0}",
}


def insights(query: str, lines: Sequence[Row]) -> list[Row]:
    """Run a query on log lines, each with the fields of its JSON, `@timestamp` in Unix ms, and `@message`."""
    database = sqlite3.connect(":memory:")
    database.row_factory = sqlite3.Row
    database.create_function("regexp", 2, lambda pattern, text: bool(re.search(pattern, str(text))))
    database.create_function("ispresent", 1, lambda value: value is not None)
    database.create_function("toMillis", 1, lambda time_ms: time_ms)
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
    for stage in re.split(r"\|\s", query.strip()):  # no pattern on a page contains "| ", so a stage begins there
        command, _, rest = stage.strip().partition(" ")
        translated = _TOKEN.sub(_token, rest.replace("count_distinct(", "count(DISTINCT "))
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
        case "minutes":
            return f"([@timestamp] / {int(text) * 60_000} * {int(text) * 60_000})"
        case "like":
            return "REGEXP"
        case "bracket":
            return {"[": "(", "]": ")"}[text]
    return text if kind == "word" else f"[{text}]"
