"""The tables that are printed at the end, each figure beside its target."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.costs import LOOKS_AN_HOUR, per_million, per_million_room_hours, per_million_slices, standing_still

Results = dict[str, Any]
Row = tuple[str, Callable[[Results], float], str]
"""A label, what to take from a run, and what is asked of it."""


def print_report(results: Results, console: Console) -> None:
    """Print a table for every measurement in the results."""
    machine = results["machine"]
    console.print(f"\n{machine['cpu']}, {machine['cores']} cores, Python {machine['python']}, {machine['system']}")
    for name, make in _TABLES.items():
        if name in results:
            for table in make(results[name]):
                console.print(table)


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column(columns[0])
    for column in columns[1:]:
        table.add_column(column, justify="right")
    return table


def _side_by_side(title: str, load: Results, rows: list[Row]) -> Table:
    table = _table(title, "", "product", "peer", "product : peer", "asked")
    for label, figure, asked in rows:
        ours, theirs = figure(load["product"]), figure(load["peer"])
        table.add_row(label, number(ours), number(theirs), f"{ours / theirs:.2f}" if theirs else "", asked)
    return table


def number(value: float) -> str:
    """Write a figure with three digits, or all of its whole ones."""
    return f"{value:,.0f}" if value == int(value) or value >= 100 else f"{value:.3g}"


def _per_1000(key: str) -> Callable[[Results], float]:
    return lambda run: float(run[f"{key}_per_1000"])


def _sum(*keys: str) -> Callable[[Results], float]:
    return lambda run: float(sum(run[key] or 0 for key in keys))


_LOST: Row = ("still running, refused or dead", _sum("still_running", "api_refusals", "dead_letters"), "0")


def _spending(load: Results) -> Iterator[Table]:
    kinds = list(load["product"])
    spent = _table("Spent for 1,000 messages, far below the limit", "", "", *_SPENT)
    for kind in kinds:
        for name in ("product", "peer"):
            spent.add_row(kind, name, *(number(load[name][kind][f"{key}_per_1000"]) for key in _SPENT.values()))
    yield spent
    prices = {kind: per_million(load["product"][kind]) for kind in kinds}
    table = _table("What the product costs on AWS for a million messages, US dollars", "", *kinds)
    for label in prices["stops"]:
        table.add_row(label, *(f"{prices[kind][label]:.2f}" for kind in kinds))
    table.add_row("together, at most", *(f"{sum(prices[kind].values()):.2f}" for kind in kinds))
    yield table


_SPENT = {
    "seconds": "function_seconds",
    "invocations": "invocations",
    "write units": "write_units",
    "read units": "read_units",
    "bytes of log": "log_bytes",
}


def _drain(load: Results) -> Iterator[Table]:
    rows = _drain_rows(">= 140, 5 x", "<= 0.20 x")
    rows[4:4] = [
        ("write units per 1,000 stops", _per_1000("write_units"), "<= 0.50 x"),
        ("read units per 1,000 stops", _per_1000("read_units"), ""),
    ]
    yield _side_by_side("Draining a full queue of distinct stops, the API answering after 200 ms", load, rows)


def _paces(load: Results) -> Iterator[Table]:
    for product, peer in zip(load["product"], load["peer"], strict=True):
        title = f"The same, the API answering after {1000 * product['answer_after_seconds']:,.0f} ms"
        yield _side_by_side(title, {"product": product, "peer": peer}, _drain_rows("", ""))


def _drain_rows(rate: str, function_seconds: str) -> list[Row]:
    return [
        ("stops", _sum("stops"), ""),
        ("stops a second", _sum("stops_per_second"), rate),
        ("most requests in any second", _sum("busiest_second"), "<= 150"),
        ("function-seconds per 1,000 stops", _per_1000("function_seconds"), function_seconds),
        ("invocations per 1,000 stops", _per_1000("invocations"), ""),
        _LOST,
        ("left on the queue", _sum("not_done"), "0"),
        ("processors busy, %", lambda run: round(100 * (run["processors_busy"] or 0)), ""),
        ("the API double late by at most, ms", lambda run: round(run["double_late_ms"]), ""),
    ]


def _duplicates(load: Results) -> Iterator[Table]:
    yield _side_by_side(
        "Events of which 80 % are duplicates, per 1,000 events",
        load,
        [
            ("events", _sum("messages"), ""),
            ("API requests", _per_1000("api_requests"), "200"),
            ("write units", _per_1000("write_units"), "200"),
            ("read units", _per_1000("read_units"), ""),
            ("function-seconds", _per_1000("function_seconds"), ""),
            ("seconds to the end, for all", _sum("seconds"), ""),
            ("left on the queue, to wait for its time-out", _sum("not_done"), "0"),
            _LOST,
        ],
    )


def _storm(load: Results) -> Iterator[Table]:
    yield _side_by_side(
        "A storm: 100 moderation events for each of 50 rooms",
        load,
        [
            ("events", _sum("messages"), ""),
            ("API requests", _sum("api_requests"), ""),
            ("write units per 1,000 events", _per_1000("write_units"), ""),
            ("read units per 1,000 events", _per_1000("read_units"), ""),
            ("function-seconds per 1,000 events", _per_1000("function_seconds"), ""),
            ("seconds to the end", _sum("seconds"), ""),
            ("left on the queue, to wait for its time-out", _sum("not_done"), "0"),
            _LOST,
        ],
    )


def _latency(load: Results) -> Iterator[Table]:
    table = _table("From message sent to request at the API, ms", "messages a second", "", "p50", "p95", "p99", "lost")
    for name in ("product", "peer"):
        for run in load[name]:
            figures = [f"{run[key]:,.0f}" for key in ("p50_ms", "p95_ms", "p99_ms")]
            table.add_row(str(run["messages_per_second"]), name, *figures, str(run["lost"]))
    yield table


def _environments(load: list[Results]) -> Iterator[Table]:
    table = _table(
        "Slots whose environments take turns, full batches",
        *("environments a slot", "API answers after, ms", "requests", "refused", "most in any second", "asked"),
        "a second",
    )
    for run in load:
        figures = [run["api_requests"], run["api_refusals"], run["busiest_second"]]
        table.add_row(
            str(run["environments_a_slot"]),
            *map(number, (1000 * run["answer_after_seconds"], *figures)),
            "<= 150",
            number(run["requests_per_second"]),
        )
    yield table


def _in_process(load: Results) -> Iterator[Table]:
    table = _table(
        "Handler alone, no network (asked: flat within 20 %)",
        "after messages",
        "",
        "ms a message",
        "processor ms",
        "MB",
    )
    for name, marks in load.items():
        for mark in marks:
            figures = [f"{mark[key]:.2f}" for key in ("ms_per_message", "processor_ms_per_message")]
            table.add_row(f"{mark['messages']:,}", name, *figures, f"{mark['memory_mb']:.1f}")
    yield table


def _slices(load: Results) -> Iterator[Table]:
    before, now = load["before"], load["now"]
    prices = {
        "every slice queued": per_million_slices(before["queued"], before["served"]),
        "news": per_million_slices(now["queued"], now["served"]),
        "no news": per_million_slices(now["known"], None),
    }
    table = _table(
        f"A million slices on AWS, US dollars; of {load['slices']:,} slices {now['queued']['messages']:,} were news",
        "",
        *prices,
    )
    for label in prices["news"]:
        table.add_row(label, *(f"{price[label]:.2f}" for price in prices.values()))
    sums = {name: sum(price.values()) for name, price in prices.items()}
    table.add_row("together", *(f"{total:.2f}" for total in sums.values()))
    table.add_row("of the first", *(f"{total / sums['every slice queued']:.2f}" for total in sums.values()))
    yield table


def _room_ends(load: Results) -> Iterator[Table]:
    found = load["product"]
    columns = {"requests to the API": "api_requests", "to the table": "table_requests"} | _UNITS
    table = _table("Ends of one room, each with a new TaskId (asked: flat)", "the end", *columns)
    for run in found["ends"]:
        table.add_row(number(run["end"]), *(number(run[key]) for key in columns.values()))
    yield table
    permanent = found["permanent"]
    table = _table(
        f"A permanent room after {permanent['tasks']:,} tasks that were stopped by name; its own item has "
        f"{permanent['room_item_bytes']:,} bytes (asked: < 1,024)",
        *("", *columns),
    )
    for name in ("a start", "its stop by name", "the room's end"):
        table.add_row(name, *(number(permanent[name][key]) for key in columns.values()))
    yield table


_UNITS = {"write units": "write_units", "read units": "read_units"}


def _sessions(load: Results) -> Iterator[Table]:
    columns = _UNITS | {f"of three sweeps, {name}": f"swept_{key}" for name, key in _UNITS.items()}
    table = _table(
        "A room's session that ends twice (asked: told at most 8 write units, however many slices)", "", *columns
    )
    for run in load["product"]:
        table.add_row(run["session"], *(number(run[key]) for key in columns.values()))
    yield table


def _late(load: Results) -> Iterator[Table]:
    table = _table(
        "Draining a full queue of late stops",
        *("stops", "seconds", "stops a second", "most questions in any second", "asked"),
        "still running, refused or dead",
    )
    for run in load["product"]:
        seconds = run["drained_seconds"]
        figures = (run["stops"], seconds, run["stops"] / seconds, run["busiest_second"])
        table.add_row(*map(number, figures), "<= 40", number(_LOST[1](run)))
    pace = run["stops"] / run["drained_seconds"]
    table.add_row("20,000, at that pace", number(20_000 / pace))
    yield table


def _outage(load: Results) -> Iterator[Table]:
    outage = load["product"]
    table = _table(
        f"The API down for {outage['down_seconds']} s; dead letters {outage['dead_letters']}, still running "
        f"{outage['still_running']} (asked: 0)",
        *("", "messages", "of them requeued", "seconds to the stop, p50", "p99", "longest"),
    )
    for label, key in (("backlog, since the API is back", "backlog"), ("fresh, since they were sent", "fresh")):
        run = outage[key]
        table.add_row(label, *(number(run[name]) for name in ("messages", "requeued", "p50", "p99", "longest")))
    yield table


def _sweep_gone(load: Results) -> Iterator[Table]:
    mixes = load["product"]
    table = _table("Sweeping rooms whose tasks may be running", "", *mixes, "asked")
    for label, key, asked in _SWEPT:
        table.add_row(label, *(number(mix[key]) for mix in mixes.values()), asked)
    yield table


_SWEPT = (
    ("rooms", "rooms", ""),
    ("of them gone, untold", "gone", ""),
    ("sweeps", "sweeps", ""),
    ("the longest, seconds", "longest_seconds", "<= 290"),
    ("seconds, all sweeps", "function_seconds", ""),
    ("questions", "questions", ""),
    ("most questions in any second", "busiest_second", "<= 30"),
    ("messages sent", "messages", "as many as are gone"),
    ("stops", "stops", "as many as are gone"),
    ("still running of what is gone", "still_running", "0"),
    ("write units, the indexes' and those of the stops included", "write_units", "all alive: <= 100"),
    ("read units", "read_units", "all alive: <= 200"),
    ("bytes of log", "log_bytes", ""),
    ("the API double late by at most, ms", "double_late_ms", ""),
)


def _sweep(load: Results) -> Iterator[Table]:
    yield from _sweep_gone(load)
    prices = {
        f"a million room hours, looked at {LOOKS_AN_HOUR} times each": per_million_room_hours(load["product"]),
        "standing still, a month": standing_still(load["product"]),
    }
    table = _table("What the sweeper costs on AWS, US dollars (asked: a million room hours <= 5)", "", *prices)
    for label in next(iter(prices.values())):
        table.add_row(label, *(f"{price[label]:.2f}" for price in prices.values()))
    table.add_row("together, at most", *(f"{sum(price.values()):.2f}" for price in prices.values()))
    yield table


def _sweep_rejected(load: Results) -> Iterator[Table]:
    run = load["product"]
    table = _table(f"{run['rejected']:,} rooms of a deleted app before {run['healthy']} others", "", "", "asked")
    for label, key, asked in (
        ("rounds", "sweeps", ""),
        ("the longest, seconds", "longest_seconds", ""),
        ("questions about each of the others, at least", "asked_at_least", "one each round"),
        ("longest time between two of them, seconds", "longest_gap_seconds", "a round and a sweep's start"),
        ("most questions in any second", "busiest_second", "<= 30"),
    ):
        table.add_row(label, number(run[key]), asked)
    yield table


def _start_up(load: Results) -> Iterator[Table]:
    titles = {
        "as_shipped": "as shipped",
        "compiled_anew": "every module compiled anew",
        "compiled": "all bytecode at hand",
    }
    for mode, title in titles.items():
        functions = load[mode]
        table = _table(
            f"Start-up, {title} ({load['python']}, ms; the ratios are of processor time)",
            *("", "import", "its processor time", "of bare imports", "of the peer", "of itself compiled anew"),
            "first call",
        )
        for name, run in functions.items():
            took = run["import_processor_ms"]
            others = functions["bare imports"], functions["peer"], load["compiled_anew"][name]
            table.add_row(
                name,
                f"{run['import_ms']:.0f}",
                f"{took:.0f}",
                *(f"{took / other['import_processor_ms']:.2f}" for other in others),
                f"{run['first_call_ms']:.0f}" if "first_call_ms" in run else "",
            )
        yield table


_TABLES: dict[str, Callable[[Any], Iterator[Table]]] = {
    "spending": _spending,
    "drain": _drain,
    "paces": _paces,
    "duplicates": _duplicates,
    "storm": _storm,
    "latency": _latency,
    "environments": _environments,
    "in_process": _in_process,
    "start_up": _start_up,
    "slices": _slices,
    "room_ends": _room_ends,
    "sessions": _sessions,
    "late": _late,
    "outage": _outage,
    "sweep": _sweep,
    "sweep_gone": _sweep_gone,
    "sweep_rejected": _sweep_rejected,
}
