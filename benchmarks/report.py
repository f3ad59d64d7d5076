"""The tables of the results, with each figure beside its target."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.costs import LOOKS_AN_HOUR, per_million, per_million_room_hours, per_million_slices, standing_still

Results = dict[str, Any]
Row = tuple[str, str, str]
"""A label, a figure's name in the results, and its target."""

_UNITS = {"write units": "write_units", "read units": "read_units"}
_SPENT = {
    "seconds": "function_seconds_per_1000",
    "invocations": "invocations_per_1000",
    "write units": "write_units_per_1000",
    "read units": "read_units_per_1000",
    "bytes of log": "log_bytes_per_1000",
}
_LOST: Row = ("still running, refused or dead", "lost", "0")
_LEFT: Row = ("left on the queue, to wait for its time-out", "not_done", "0")
_PER_EVENT: tuple[Row, ...] = (
    ("API requests", "api_requests_per_1000", ""),
    ("write units", "write_units_per_1000", ""),
    ("read units", "read_units_per_1000", ""),
    ("function-seconds", "function_seconds_per_1000", ""),
    _LOST,
    _LEFT,
)
# The title and the rows for each load that both the product and the peer get.
_BOTH: dict[str, tuple[str, Sequence[Row]]] = {
    "drain": (
        "A full queue of distinct stops, if the API answers after 200 ms",
        (
            ("stops", "stops", ""),
            ("stops a second", "stops_per_second", ">= 140, 5 x"),
            ("most requests in any second", "busiest_second", "<= 150"),
            ("function-seconds per 1,000 stops", "function_seconds_per_1000", ""),
            _LOST,
            _LEFT,
        ),
    ),
    "duplicates": (
        "Events of which 80 % are duplicates, per 1,000 events (target: 200 requests and writes)",
        _PER_EVENT,
    ),
    "storm": ("A storm: 100 moderation events for each of 50 rooms, per 1,000 events", _PER_EVENT),
    "latency": (
        "From message sent to request at the API",
        (
            ("messages a second", "messages_per_second", ""),
            *((f"{name}, ms", f"{name}_ms", "") for name in ("p50", "p95", "p99")),
            ("lost", "lost", "0"),
        ),
    ),
}


def print_report(results: Results, console: Console) -> None:
    """Print the tables of all measurements in the results."""
    for name, result in results.items():
        for table in _side_by_side(result, *_BOTH[name]) if name in _BOTH else _TABLES[name](result):
            console.print(table)


def number(value: float) -> str:
    """Write a figure with three significant digits, or as a whole number if the figure has more digits."""
    return f"{value:,.0f}" if value == int(value) or value >= 100 else f"{value:.3g}"


def _table(title: str, heads: Sequence[str], rows: Iterable[Iterable[str | float]]) -> Table:
    table = Table(title=title, title_justify="left")
    for place, head in enumerate(heads):
        table.add_column(head, justify="right" if place else "left")
    for row in rows:
        table.add_row(*(cell if isinstance(cell, str) else number(cell) for cell in row))
    return table


def _runs(title: str, columns: Mapping[str, str], runs: Iterable[Results], *names: str) -> Table:
    """Create a table with a row for each run, which holds the run's names and figures."""
    keys = (*names, *columns.values())
    return _table(title, ("",) * len(names) + (*columns,), ([run[key] for key in keys] for run in runs))


def _figures(title: str, columns: Mapping[str, Results], rows: Sequence[Row]) -> Table:
    """Create a table with a row for each figure, which holds the figure's label, values and target."""
    cells = ((label, *(column[name] for column in columns.values()), target) for label, name, target in rows)
    return _table(title, ("", *columns, "target"), cells)


def _side_by_side(load: Results, title: str, rows: Sequence[Row]) -> Iterator[Table]:
    ours, theirs = load["product"], load["peer"]

    def ratio(name: str) -> str:
        return f"{ours[name] / theirs[name]:.2f}" if theirs[name] else ""

    cells = ((label, ours[name], theirs[name], ratio(name), target) for label, name, target in rows)
    yield _table(title, ("", "product", "peer", "product : peer", "target"), cells)


def _costs(title: str, prices: Mapping[str, Mapping[str, float]]) -> Table:
    columns = list(prices.values())
    rows = [(label, *(f"{column[label]:.2f}" for column in columns)) for label in columns[0]]
    together = ("together, at most", *(f"{sum(column.values()):.2f}" for column in columns))
    return _table(title, ("US dollars", *prices), [*rows, together])


def _spending(load: Results) -> Iterator[Table]:
    names = ("product", "peer")
    runs = [{"kind": kind, "name": name, **load[name][kind]} for kind in load["product"] for name in names]
    yield _runs("Cost of 1,000 messages, far below the limit", _SPENT, runs, "kind", "name")
    prices = {kind: per_million(spent) for kind, spent in load["product"].items()}
    yield _costs("Cost of a million messages on AWS (target: stops <= 2.50)", prices)


def _environments(load: list[Results]) -> Iterator[Table]:
    columns = {
        "environments a slot": "environments_a_slot",
        "API answers after, s": "answer_after_seconds",
        "requests": "api_requests",
        "refused": "api_refusals",
        "most in any second": "busiest_second",
        "a second": "requests_per_second",
    }
    yield _runs("Slots whose environments take turns, full batches (target: <= 150 in any second)", columns, load)


def _in_process(load: Results) -> Iterator[Table]:
    columns = {
        "after messages": "messages",
        "ms a message": "ms_per_message",
        "processor ms": "processor_ms_per_message",
        "MB": "memory_mb",
    }
    runs = ({"name": name, **run} for name in load for run in load[name])
    yield _runs("Handler alone, no network (target: flat within 20 %)", columns, runs, "name")


def _start_up(load: Results) -> Iterator[Table]:
    columns = {
        "import": "import_ms",
        "its processor time": "import_processor_ms",
        "first call": "first_call_ms",
        "of the peer": "ratio",
    }
    functions = load["as_shipped"]
    peer_ms = functions["peer"]["import_processor_ms"]
    runs = (
        {"name": name, **run, "ratio": f"{run['import_processor_ms'] / peer_ms:.2f}"} for name, run in functions.items()
    )
    title = f"Start-up, as shipped ({load['python']}, ms; the ratio is of processor time)"
    yield _runs(title, columns, runs, "name")


def _slices(load: Results) -> Iterator[Table]:
    spent = load["spent"]
    prices = {"new": per_million_slices(spent["queued"]), "nothing new": per_million_slices(spent["known"])}
    news = f"{spent['queued']['invocations']:,} of {load['slices']:,}"
    yield _costs(f"A million slices in the callback function ({news} said something new)", prices)


def _room_ends(load: Results) -> Iterator[Table]:
    found = load["product"]
    columns = {"requests to the API": "api_requests", "to the table": "table_requests"} | _UNITS
    ends = {"the end": "end"} | columns
    yield _runs("Ends of one room, each with a new TaskId (target: flat)", ends, found["ends"])
    permanent = found["permanent"]
    title = (
        f"A permanent room after {permanent['tasks']:,} tasks that were stopped by name; its own item has "
        f"{permanent['room_item_bytes']:,} bytes (target: < 1,024)"
    )
    names = ("a start", "its stop by name", "the room's end")
    yield _runs(title, columns, ({"name": name, **permanent[name]} for name in names), "name")


def _sessions(load: Results) -> Iterator[Table]:
    columns = _UNITS | {f"of three sweeps, {name}": f"swept_{key}" for name, key in _UNITS.items()}
    title = "A session whose end is reported twice (target: at most 8 write units if its start is reported)"
    yield _runs(title, columns, load["product"], "session")


def _late(load: Results) -> Iterator[Table]:
    columns = {
        "stops": "stops",
        "seconds": "drained_seconds",
        "most GetSegmentTask in any second": "busiest_second",
        "stops a second": "stops_per_second",
        _LOST[0]: "lost",
    }
    runs = ({**run, "stops_per_second": run["stops"] / run["drained_seconds"]} for run in load["product"])
    yield _runs("A full queue of late stops (target: <= 40 GetSegmentTask in any second, 0 lost)", columns, runs)


def _sweep(load: Results) -> Iterator[Table]:
    mixes = load["product"]
    rows = (
        ("rooms", "rooms", ""),
        ("sweeps", "sweeps", ""),
        ("the longest, seconds", "longest_seconds", "<= 290"),
        ("requests", "questions", ""),
        ("most requests in any second", "busiest_second", "<= 30"),
        ("write units, the indexes' included", "write_units", "all alive: <= 100"),
        ("read units", "read_units", "all alive: <= 200"),
    )
    yield _figures("Sweeping rooms whose tasks may be running", mixes, rows)
    prices = {
        f"a million room hours, checked {LOOKS_AN_HOUR} times each": per_million_room_hours(mixes["all alive"]),
        "without watched rooms, a month": standing_still(mixes["nothing watched"]),
    }
    yield _costs("Cost of the sweeper on AWS (target: a million room hours <= 5)", prices)


def _sweep_rejected(load: Results) -> Iterator[Table]:
    run = load["product"]
    rows = (
        ("rounds", "sweeps", ""),
        ("the longest, seconds", "longest_seconds", ""),
        ("requests for each of the others, at least", "asked_at_least", "one each round"),
        ("longest time between two of them, seconds", "longest_gap_seconds", "a round and a sweep's start"),
        ("most requests in any second", "busiest_second", "<= 30"),
    )
    yield _figures(f"{run['rejected']:,} rooms of a deleted app before {run['healthy']} others", {"": run}, rows)


_TABLES: dict[str, Callable[[Any], Iterator[Table]]] = {
    "spending": _spending,
    "environments": _environments,
    "in_process": _in_process,
    "start_up": _start_up,
    "slices": _slices,
    "room_ends": _room_ends,
    "sessions": _sessions,
    "late": _late,
    "sweep": _sweep,
    "sweep_rejected": _sweep_rejected,
}
