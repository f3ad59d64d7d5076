"""The demo sends every sample in events/ through the sandbox, and shows the outcomes in a table."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from sandbox.faults import INTERNAL_ERROR
from sandbox.program import progress, run
from sandbox.room_life import ROOM_ID, life_table, live
from sandbox.stack import APP_ID, ROOT, Sandbox, sandbox, wait_for
from sandbox.tables import FOR_PEOPLE, colored, known, new_table
from segments.events import Room
from tools.rooms import Item, read_room

EARLIER_MS = 1_795_327_000_000  # before the samples' times, which are on 2026-11-22


@dataclass(frozen=True)
class Scene:
    """A sample event, and the expected outcome.

    Parameters
    ----------
    running
        The tasks that run when the sample is sent, as (room, task).
    end
        The outcomes of the sample's tasks, or the ErrorKind of its dead letter.
    requests
        The expected number of StopSegment requests.
    """

    sample: str
    end: str
    requests: int = 0
    running: tuple[tuple[str, str], ...] = ()
    started_ms: int | None = None
    note: str = ""


FIRST = (
    Scene("late-room-ended", "superseded", 0, (("room-5", "audio"),), note="from yesterday; today's goes on"),
    Scene("room-ended", "stopped", 1, (("room-1", "audio"),), EARLIER_MS),
    Scene("room-ended-two-tasks", "stopped stopped", 2, (("room-2", "audio"), ("room-2", "screen"))),
    Scene("moderation-violation", "stopped", 1, (("room-3", "audio"),)),
    Scene("already-gone", "already_stopped", 1),
    Scene("segment-started", "known", 0, (("room-6", "audio"),)),
    Scene("room-ended-no-tasks", "no_open_tasks"),
    Scene("rtc-callback-segment-real-time-data", "known", 0, (("room-8", "audio"),), EARLIER_MS),
    Scene("rtc-callback-other", "ignored"),
    Scene("eventbridge", "stopped", 1, (("room-9", "audio"),), EARLIER_MS),
    Scene("sns", "stopped", 1, (("room-10", "audio"),), EARLIER_MS),
    Scene("bad-not-json", "invalid_message"),
    Scene("bad-id", "invalid_message"),
    Scene("bad-event-type", "invalid_message"),
    Scene("bad-app", "rejected", 1),
    Scene("api-down", "requeued", 1, (("room-15", "audio"),), note="the API is down: tried later"),
)
THEN = (
    Scene("room-ended", "duplicate", 0, note="the same message again"),
    Scene("room-ended-all-tasks", "stopped", 1, note="names no task: all known tasks"),
    Scene("rtc-callback-room-destroy", "stopped", 1),
)

# The rows that the picture on the front page shows.
IN_SHORT = ("late-room-ended", "room-ended", "room-ended-all-tasks", "bad-event-type", "api-down")


@dataclass(frozen=True)
class Row:
    """The outcome of a scene."""

    scene: Scene
    ends: list[str]
    requests: int
    items: list[Item]
    letter: dict[str, Any] | None

    @property
    def as_expected(self) -> bool:
        """Whether the scene ended as expected."""
        return " ".join(self.ends) == self.scene.end and self.requests == self.scene.requests


def main(picture: Console | None = None, short: Console | None = None) -> int:
    """Run the demo, and return 0 if every scene ended as expected.

    Parameters
    ----------
    picture
        A console that also gets the tables, but no text that differs between runs.
    short
        A console that gets the rows of `IN_SHORT`.
    """
    console = Console(highlight=False)
    with progress(console) as report, sandbox(app_ids={APP_ID}, report=report) as box:
        box.rtc.fail(INTERNAL_ERROR, task=(APP_ID, "room-15", "audio"))
        rows = [*_play(box, FIRST, report), *_play(box, THEN, report)]
        report(f"Sending the callbacks of room {ROOM_ID} ...")
        life = live(box)
        report("Waiting for the outcome bus ...")
        modes = ", ".join(sorted({line["mode"] for line in box.log_lines() if "mode" in line}))
        ended = [end for row in rows for end in row.ends] + [end for _, result in life for end in result.ends]
        published = _wait_for_outcome_events(box, ended)
    tables = Group(_table(rows), "", _letters_table(rows), "", life_table(life))
    console.print("", tables, "")
    if picture:
        picture.print(tables)
    if short:
        short.print(_table([row for row in rows if row.scene.sample in IN_SHORT]))
    console.print(f"The stack ran in the mode `{modes}`.")
    console.print(f"The outcome bus received an event for each stop: {published} SegmentStopped events.\n")
    failed = [row.scene.sample for row in rows if not row.as_expected]
    failed += [step.title for step, result in life if result != step.expected]
    if failed:
        console.print(f"[red]not as expected: {', '.join(failed)}[/red]")
    else:
        console.print("Everything ended as it should. Both servers are stopped.")
        console.print("Next: make sandbox keeps the stack running, and prints commands to try.")
    return 1 if failed else 0


def _wait_for_outcome_events(box: Sandbox, ends: Sequence[str]) -> int:
    stops = sum(end in ("stopped", "already_stopped") for end in ends)
    received: list[Any] = []

    def all_received() -> bool:
        received.extend(event for event in box.outcome_events() if event["detail-type"] == "SegmentStopped")
        return len(received) >= stops

    wait_for(all_received, "an outcome event for every stop")
    return len(received)


def _play(box: Sandbox, scenes: Sequence[Scene], report: Callable[[str], None]) -> list[Row]:
    for scene in scenes:
        for room_id, task_id in scene.running:
            box.rtc.start_task(APP_ID, room_id, task_id, start_time_ms=scene.started_ms)
    already = len(box.rtc.requests)
    bodies = [_body(scene.sample) for scene in scenes]
    message_ids = box.send(bodies)
    ends = _wait_for_ends(box, dict(zip(message_ids, (scene.sample for scene in scenes), strict=True)), report)
    letters = {letter["Attributes"]["SourceMessageId"]: letter for letter in box.dead_letters()}
    requests = [r for r in box.rtc.requests[already:] if r.action == "StopSegment" and r.body]
    rows = []
    for scene, body, message_id in zip(scenes, bodies, message_ids, strict=True):
        rooms = {room_id for room_id, _ in scene.running} or {_room_of(body)}
        letter = letters.get(message_id)
        if letter and letter["Body"] != body:
            raise RuntimeError(f"the body of the dead letter of {scene.sample} differs: read the stop function's log")
        rows.append(
            Row(
                scene,
                ends[message_id],
                sum(1 for request in requests if request.body and request.body.get("RoomId") in rooms),
                [item for room_id in sorted(rooms) for item in _read_room(box, room_id)],
                letter,
            )
        )
    return rows


def _wait_for_ends(box: Sandbox, samples: Mapping[str, str], report: Callable[[str], None]) -> dict[str, list[str]]:
    """Wait for the outcomes of all messages. `samples` holds the name of each message's sample by message id."""
    shown = ""

    def all_ended() -> dict[str, list[str]]:
        nonlocal shown
        ends = _ends(box, samples)
        left = [samples[message_id] for message_id, found in ends.items() if not found]
        trying = f"; {left[0]} is tried again later" if len(left) == 1 else ""
        text = f"Sending events/: {len(ends) - len(left)} of {len(ends)} have ended{trying} ..."
        if text != shown:
            report(text)
        shown = text
        return {} if left else ends

    return wait_for(all_ended, "every message's end in the log", seconds=120)


def _body(sample: str) -> str:
    text = (ROOT / "events" / f"{sample}.json").read_text()
    body: str = json.loads(text)["Records"][0]["body"]
    return body


def _room_of(body: str) -> str:
    try:
        content = json.loads(body)
    except ValueError:
        return ""
    inside = content.get("detail") or json.loads(content.get("EventData") or content.get("Message") or "{}")
    return str(content.get("RoomId") or inside.get("RoomId", ""))


def _ends(box: Sandbox, message_ids: Iterable[str]) -> dict[str, list[str]]:
    ends: dict[str, list[str]] = {message_id: [] for message_id in message_ids}
    for line in box.log_lines():
        if line.get("outcome", "retried") != "retried" and line.get("message_id") in ends:
            ends[line["message_id"]].append(line["outcome"])
    return ends


def _read_room(box: Sandbox, room_id: str) -> list[Item]:
    items, _ = read_room(box.client("dynamodb"), box.outputs["SegmentTableName"], Room(APP_ID, room_id))
    return items


def _table(rows: Sequence[Row]) -> Table:
    table = new_table("Outcome of each event", "sent", "ended as", "API\ncalls", "records afterwards")
    for row in rows:
        ends = colored(row.ends)
        if not row.as_expected:
            ends.append(f"\nexpected {row.scene.end}, {row.scene.requests} requests", "red")
        sent = Text(row.scene.sample)
        if row.scene.note:
            sent.append(f"\n  {row.scene.note}", "dim")
        table.add_row(sent, ends, str(row.requests), known(row.items), end_section=row.scene is FIRST[-1])
    return table


def _letters_table(rows: Sequence[Row]) -> Table:
    table = new_table("The dead letters", "sent", "reason")
    for row in rows:
        if row.letter:
            values = row.letter["Attributes"]
            times = "once" if values["ReceiveCount"] == "1" else f"{values['ReceiveCount']} times"
            reason = Text.assemble((values["ErrorCode"], FOR_PEOPLE), f", tried {times}\n", values["ErrorMessage"])
            table.add_row(row.scene.sample, reason)
    return table


if __name__ == "__main__":
    sys.exit(run(main))
