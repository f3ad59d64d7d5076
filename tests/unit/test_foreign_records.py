"""No record in the table makes a function raise, even if another program wrote it.

Events are served one at a time. The keys of the indexes always have their own type: DynamoDB refuses others.
"""

import contextlib
import json

from hypothesis import example, given, settings
from hypothesis import strategies as st

from publish_outcome.outcomes import Unpublishable, segment_stopped
from segments.errors import StopError
from segments.events import HEARTBEAT_ROOM_ID, HEARTBEAT_TASK_ID, Event, EventType, Room
from segments.ledger import LOOK_ITEM, ROOM_ITEM
from segments.stop_rules import RunningTask
from sweep_rooms.checks import GONE_AGAIN_MS
from tests.unit.memory_dynamo import Item
from tests.unit.test_sweeper import AUDIO, HOUR_MS, ROOM, SWEEP_MS, T, World, run
from tools import rooms

# As DynamoDB writes them: up to 38 digits, and an exponent if they do not suffice.
NUMBERS = st.sampled_from(
    [
        *("0", "-1", "1.5", "-0.5", "5", "1795327920", str(T), str(T + HOUR_MS), str(T - HOUR_MS), "9" * 38),
        *("-62135625600000", "253402300800000", "1E+125", "-9.9999999999999999999999999999999999999E+125", "1E-130"),
    ]
)
TEXTS = st.sampled_from(
    ["", "x", "RoomEnded", "Heartbeat", "Nonsense", "stopped", "already_stopped", "\u4e2d", "a#b#c"]
)
OTHERS = st.sampled_from(
    [{"BOOL": True}, {"NULL": True}, {"B": b"\x00"}, {"SS": ["a"]}, {"NS": ["1", "2.5"]}, {"BS": [b"a"]}]
) | st.sampled_from([{"L": [{"S": "x"}]}, {"M": {"k": {"N": "1"}}}, {"L": []}, {"M": {}}])
NUMBER, TEXT = NUMBERS.map(lambda number: {"N": number}), TEXTS.map(lambda text: {"S": text})
ANY = NUMBER | TEXT | OTHERS
ATTRIBUTES = {
    "open_since": NUMBER,
    "watch": TEXT | st.just({"S": "1"}),
    **dict.fromkeys(
        [
            *("stop_event_time", "stopped_at", "started_at", "gone_at", "expires_at", "outcome", "request_id"),
            *("event_type", "event_id", "business_id", "unknown"),
        ],
        ANY,
    ),
}
ITEM = st.fixed_dictionaries({}, optional=ATTRIBUTES)
SWEEP = st.fixed_dictionaries({}, optional={"lease_until": ANY, "place": ANY, "round_began_at": ANY})
ROOM_KEYS = st.sampled_from(["661e#room-1", "661e", "#", "a#b#c", "661e#"])
EVENTS = [
    Event(EventType.SEGMENT_STARTED, ROOM, T, ("audio",)),
    Event(EventType.SEGMENT_REAL_TIME_DATA, ROOM, T, ("audio",)),
    Event(EventType.ROOM_ENDED, ROOM, T),
    Event(EventType.MODERATION_VIOLATION, ROOM, T, ("audio",)),
    Event(EventType.ROOM_DESTROY, ROOM, T - 2 * HOUR_MS, is_second_try=True),
    Event(EventType.ROOM_GONE, ROOM, T, ("audio",)),
    Event(EventType.HEARTBEAT, Room("661e", HEARTBEAT_ROOM_ID), T, (HEARTBEAT_TASK_ID,)),
]


def keyed(item: Item, task_id: str, room: str = "661e#room-1") -> Item:
    return {**item, "room": {"S": room}, "task_id": {"S": task_id}}


def serve(world: World, event: Event) -> None:
    with contextlib.suppress(StopError):  # a documented end: the message is tried again
        world.served(event)


@settings(max_examples=100, deadline=None)
@given(ITEM, ITEM, ITEM, SWEEP, ROOM_KEYS, st.booleans(), st.lists(st.sampled_from(EVENTS), min_size=1, max_size=4))
@example({"open_since": {"N": "1.5"}, "watch": {"S": "1"}}, {}, {}, {}, "661e#room-1", False, EVENTS)
@example({}, {"stop_event_time": {"N": str(T)}, "event_type": {"S": "Nonsense"}}, {}, {}, "#", True, EVENTS)
def test_no_record_in_the_table_makes_a_function_raise(
    task: Item, room: Item, look: Item, sweep: Item, foreign_room: str, is_there: bool, events: list[Event]
) -> None:
    world = World(max_task_ms=HOUR_MS)
    world.running[AUDIO] = RunningTask(T - HOUR_MS, 0, 2)
    world.rooms = {ROOM} if is_there else set()
    world.dynamo.put(
        keyed(task, "audio"),
        keyed(room, ROOM_ITEM),
        keyed(look, LOOK_ITEM),
        keyed(task | {"watch": {"S": "1"}}, "audio", foreign_room),
        keyed(sweep, "sweep", "#sweep"),
    )
    for event in events:
        serve(world, event)
    for after_ms in (0, SWEEP_MS + GONE_AGAIN_MS):
        world.now_ms += after_ms
        run(world.sweeper().sweep(lambda: 60))
    for sent_room, task_ids, time_ms in world.sent:
        serve(world, Event(EventType.ROOM_GONE, sent_room, time_ms, tuple(task_ids)))
    for item in world.dynamo.items():
        json.dumps(rooms.to_json(rooms._item(item)))
    for old, new in [*world.dynamo.changes, ({}, keyed(task, "audio")), (keyed(task, "audio"), keyed(room, ROOM_ITEM))]:
        with contextlib.suppress(Unpublishable):
            segment_stopped(old, new, "bus")
