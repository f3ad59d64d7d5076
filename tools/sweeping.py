"""The sweeper's progress: the number of watched rooms, and the time that a room waits for its check."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from segments.events import Room
from segments.ledger import SWEEP_ITEM, task_of
from tools.rooms import read_fields, read_watched

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

MOST_ITEMS = 100_000  # 12 MB of the index, which are read within seconds
_ROUNDS = "round_began_at", "last_round_began_at"


@dataclass(frozen=True)
class Sweeping:
    """The sweeper's records. Times are Unix ms, None is unknown.

    Parameters
    ----------
    rooms
        The number of watched rooms.
    counts_all
        Whether `rooms` counts all watched rooms. At most MOST_ITEMS items of the index are read.
    last_room
        The last watched room, in the order of the checks.
    open_since_ms
        When the oldest open task was opened.
    place
        The last checked room.
    round_began_at_ms, last_round_began_at_ms
        When the current round through the watched rooms began, and when the previous round began.
    """

    rooms: int
    counts_all: bool = True
    last_room: Room | None = None
    open_since_ms: int | None = None
    place: Room | None = None
    round_began_at_ms: int | None = None
    last_round_began_at_ms: int | None = None

    @property
    def round_ms(self) -> int | None:
        """The duration of the last whole round."""
        if self.round_began_at_ms is None or self.last_round_began_at_ms is None:
            return None
        return self.round_began_at_ms - self.last_round_began_at_ms

    @property
    def all_asked_since_ms(self) -> int | None:
        """The latest known time since which every room that was watched at that time has been checked."""
        if self.place is None or self.last_room is None:
            return None
        # The rooms after the place have waited since the previous round.
        return self.round_began_at_ms if self.place >= self.last_room else self.last_round_began_at_ms


def read_sweeping(client: DynamoDBClient, table_name: str) -> Sweeping:
    """Read the index of the watched tasks and the sweeper's item."""
    rooms, counts_all, last_room, open_since_ms = 0, True, None, None
    for number, item in enumerate(read_watched(client, table_name)):
        if number == MOST_ITEMS:
            counts_all = False
            break
        room = task_of(item).room
        rooms += room != last_room
        last_room = room
        if "open_since" in item:
            opened_ms = int(item["open_since"]["N"])
            open_since_ms = opened_ms if open_since_ms is None else min(open_since_ms, opened_ms)
    own = read_fields(client, table_name, SWEEP_ITEM)
    began, last_began = (int(own[name]["N"]) if name in own else None for name in _ROUNDS)
    place = Room(*own["place"]["S"].split("#")) if "place" in own else None
    return Sweeping(rooms, counts_all, last_room, open_since_ms, place, began, last_began)
