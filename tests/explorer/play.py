"""A world in play: its actors, and the choices of what happens next.

Everything between two calls is the real code: the stopper, its rules, the table's conditions, the parser of messages.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Hashable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, is_dataclass, replace
from enum import Enum, auto
from functools import lru_cache, partial
from typing import Any

from segments.errors import Retryable
from segments.events import Event, Room, Task
from segments.stop_rules import Record
from stop_segment.arrivals import arrive
from stop_segment.stopper import Batch, Done, Stopper
from sweep_rooms.events import room_gone
from tests.explorer.scheduler import FAULT, FREE, PREEMPTION, Choice, Loop
from tests.explorer.worlds import World
from tests.unit.rtc_model import Message, Request, RtcService, Session, WatchedTable, make_stopper, make_sweeper, ms

LONGEST_INVOCATION_SECONDS = 240
QUESTIONS = ("get_segment_task", "room_exists")
READ_OF_A_PAGE = "_next_page"
READS_OF_THE_GLOBAL_INDEX = (READ_OF_A_PAGE, "open_tasks_from_the_global_index")
READS = ("read", "open_tasks", *READS_OF_THE_GLOBAL_INDEX, *QUESTIONS)


class How(Enum):
    """The ways in which a call ends."""

    WELL = auto()
    ANSWERED_LATER = auto()
    REFUSED = auto()
    ANSWER_LOST = auto()


class Step:
    """A call of an actor, which the scheduler lets happen or fail."""

    def __init__(self, function: Callable[..., Any], arguments: tuple[object, ...], loop: Loop) -> None:
        # A request arrives as `Turn.spend` with the request as its first argument.
        self.name = getattr(arguments[0] if callable(arguments[0]) else function, "__name__", "")
        self.go: asyncio.Future[How] = loop.create_future()
        self.answer: asyncio.Future[None] = loop.create_future()
        self.described = [text for argument in arguments if (text := described(argument))]
        self.result: object = None
        self._function = function
        self._arguments = arguments

    def __str__(self) -> str:
        return " ".join([self.name, *self.described])

    @property
    def is_done(self) -> bool:
        """Whether the call was made and only the answer is missing."""
        return self.go.done()

    @property
    def state(self) -> Hashable:
        # The repr of a callable or an iterator is an address in memory, which differs in every play.
        data = [repr(one) for one in self._arguments if not callable(one) and not isinstance(one, Iterator)]
        return tuple(data), self.name, self.is_done, repr(self.result)

    async def take(self) -> object:
        how = await self.go
        if how is How.REFUSED:
            raise Retryable("Refused", "the call failed")
        self.result = self._function(*self._arguments)
        if how is How.ANSWERED_LATER:
            await self.answer
        if how is How.ANSWER_LOST:
            raise Retryable("Lost", "the call's answer was lost")
        return self.result


@dataclass
class QueuedMessage:
    """A message on the queue."""

    name: str
    body: str
    sent_ms: int
    is_from_sweeper: bool = False
    received: int = 0
    under_way: int = 0
    is_done: bool = False

    def arrive(self) -> Event:
        """Parse the message as SQS last delivered it."""
        return _read(self.body, self.sent_ms, self.received)


@lru_cache
def _read(body: str, sent_ms: int, received: int) -> Event:
    attributes = {"SentTimestamp": str(sent_ms), "ApproximateReceiveCount": str(received)}
    record = {"messageId": "", "receiptHandle": "", "body": body, "attributes": attributes, "messageAttributes": {}}
    event = arrive(record).content
    assert isinstance(event, Event)
    return event


@dataclass(frozen=True)
class Report:
    """An outcome of a message, and the state when its invocation began."""

    event: Event
    done: Done
    began: Mark


@dataclass(frozen=True)
class Mark:
    """The state when an invocation began.

    Parameters
    ----------
    answers, starts
        The number of answers and of starts in the table.
    requests
        The number of requests until then.
    is_second_try
        Whether all messages of the invocation were received before, or are the sweeper's.
    """

    now_ms: int
    answers: int
    starts: int
    requests: int
    is_second_try: bool = False


class Actor:
    """A function environment that makes calls. It is idle or at work."""

    def __init__(self, name: str, play: Played) -> None:
        self.name = name
        self.steps: list[Step] = []
        self.began = play.mark()
        self._play = play
        self._trace: list[Hashable] = []
        self._working: asyncio.Task[None] | None = None

    @property
    def is_at_work(self) -> bool:
        return bool(self._working and not self._working.done())

    @property
    def memory(self) -> Hashable:
        """The state that an invocation leaves to the next one."""
        return None

    @property
    def state(self) -> Hashable:
        return self.memory, tuple(self._trace), tuple(step.state for step in self.steps)

    def work(self, work: Coroutine[Any, Any, None]) -> None:
        self.began = self._play.mark()
        self._trace = [self.began.now_ms, self.memory]
        self._working = self._play.loop.create_task(work)

    def check(self) -> None:
        """Raise the error that ended the actor's work, if any."""
        if self._working and self._working.done():
            self._working.result()
            self._trace = []

    def crash(self) -> None:
        """Stop at once, without running any `except` or `finally`."""
        self.steps.clear()

    async def in_thread(self, function: Callable[..., Any], *arguments: object) -> Any:
        step = Step(function, arguments, self._play.loop)
        self.steps.append(step)
        result: object = None
        try:
            result = await step.take()
        except Retryable as error:
            result = error.code
            raise
        finally:
            if step in self.steps:
                self.steps.remove(step)
            self._trace.append((str(step), repr(result), self._play.now_ms()))
        return result


class Environment(Actor):
    """An environment of the stop function."""

    def __init__(self, name: str, play: Played) -> None:
        super().__init__(name, play)
        self.batch: list[QueuedMessage] = []
        self._stopper = make_stopper(play.table, play.rtc, self.in_thread, play.now_ms)

    @property
    def memory(self) -> Hashable:
        return contents(self._stopper)

    @property
    def state(self) -> Hashable:
        return super().state, tuple(message.name for message in self.batch)

    def serve(self, batch: Sequence[QueuedMessage]) -> None:
        self.batch = list(batch)
        self.work(self._serve())
        tries = [message.received > 1 or message.is_from_sweeper for message in batch]
        self.began = replace(self.began, is_second_try=all(tries))

    def crash(self) -> None:
        super().crash()
        for message in self.batch:
            message.under_way -= 1

    async def _serve(self) -> None:
        self._play.table.begin_reading()
        batch = self._stopper.batch(lambda: 60)
        served = await asyncio.gather(*(self._serve_one(batch, message) for message in self.batch))
        acknowledged = [message for message, ended in zip(self.batch, served, strict=True) if ended is not None]
        await self.in_thread(acknowledge, [message.name for message in acknowledged])
        for message in acknowledged:
            message.is_done = True
        for message in self.batch:
            message.under_way -= 1
        self._play.reports.extend(report for ended in served for report in ended or ())
        self.batch = []

    async def _serve_one(self, batch: Batch, message: QueuedMessage) -> list[Report] | None:
        event = message.arrive()
        try:
            served = await batch.serve(event)
        except Retryable as error:
            self._play.story.append(f"{self.name}: {message.name} fails: {error.code}")
            return None
        reports = [Report(event, done, self.began) for done in served.done]
        ends = [f"{done.task_id or 'room'} {done.outcome}" for done in served.done]
        ends += [f"{task_id} fails" for task_id, _ in served.failed]
        self._play.story.append(f"{self.name}: {message.name} ends: {', '.join(ends)}")
        return reports if served.failure is None else None


class Sweeping(Actor):
    """An environment of the sweeper."""

    def __init__(self, name: str, play: Played) -> None:
        super().__init__(name, play)
        self._sweeper = make_sweeper(play.table, play.rtc, self.in_thread, play.send_room_gone, play.now_ms)

    def sweep(self) -> None:
        self.work(self._sweep())

    async def _sweep(self) -> None:
        with suppress(Retryable):
            await self._sweeper.sweep(lambda: 60)


def acknowledge(_: list[str]) -> None:
    """Represent the call that deletes the served messages from the queue."""


class Played:
    """A world in play: the `scheduler.Play` that the promises judge."""

    def __init__(self, world: World, loop: Loop, judge: Callable[[Played], Iterable[str]]) -> None:
        self.world = world
        self.loop = loop
        self.story: list[str] = []
        self._clock = world.clock
        self._now = 0
        self.table = WatchedTable(self.now_ms)
        self.rtc = RtcService(
            [Session(one.task, ms(one.starts), None if one.ends is None else ms(one.ends)) for one in world.sessions],
            self.now_ms,
            world.room,
        )
        self.messages = [QueuedMessage(described(one), one.body, ms(one.sent)) for one in world.messages]
        self.reports: list[Report] = []
        self.is_over = False
        self.allowed: Counter[str] = Counter()
        self.new_requests: list[tuple[Request, Mark]] = []
        self.new_reports: list[Report] = []
        self._judge = judge
        self._judged = (0, 0)
        self._crashed: list[Actor] = []
        self._environments = [Environment(name, self) for name in "AB"]
        self._sweepers = [Sweeping(name, self) for name in ("sweeper", "another sweeper")]
        self._swept = 0
        self._gone_ms: list[int] = []
        self._acting: Actor = self._environments[0]

    @property
    def _actors(self) -> list[Actor]:
        return [*self._environments, *self._sweepers]

    def now_ms(self) -> int:
        return ms(self._clock[self._now])

    def send_room_gone(self, room: Room, tasks: Sequence[Task], time_ms: int) -> bool:
        self._gone_ms.append(min(time_ms, self.now_ms()))
        name = f"RoomGone({','.join(task.task_id for task in tasks)}) of {_second(time_ms)}"
        self.messages.append(QueuedMessage(name, room_gone(room, tasks, time_ms), self.now_ms(), is_from_sweeper=True))
        return True

    def mark(self) -> Mark:
        return Mark(self.now_ms(), len(self.table.answers), len(self.table.starts), len(self.rtc.requests))

    def was_gone_long_enough(self, room: Room, since_ms: int) -> bool:
        """Whether the room was still gone a minute after this time, or the sweeper sent no event with this time."""
        if all(gone_ms != since_ms for gone_ms in self._gone_ms):
            return True
        if any(one == room and at_ms >= since_ms and exists for one, at_ms, exists in self.rtc.looks):
            return False
        looked_ms = [ms(second) for second in self._clock[: self._now + 1] if ms(second) >= since_ms + 60_000]
        return any(not self.rtc.room_existed(room, at_ms) for at_ms in looked_ms)

    def state(self) -> Hashable:
        return (
            self._now,
            self._swept,
            self._acting.name,
            contents(self.table.dynamo.items()),
            contents(self.table.dynamo.index),
            tuple(self.rtc.looks),
            tuple(session.stopped_ms for session in self.rtc.sessions),
            frozenset(environment.state for environment in self._environments),
            tuple(sweeper.state for sweeper in self._sweepers),
            tuple((message.name, message.received, message.under_way, message.is_done) for message in self.messages),
            self._evidence(),
        )

    def _evidence(self) -> Hashable:
        return (
            tuple(self.table.starts),
            tuple(self.table.answers),
            frozenset((request.task, request.decision.time_ms, request.ended is None) for request in self.rtc.requests),
            frozenset((report.event, report.done) for report in self.reports),
            frozenset(
                repr(new.get("outcome")) + repr(new.get("stop_event_time")) for _, new in self.table.dynamo.changes
            ),
        )

    def choices(self) -> list[Choice]:
        if self.is_over:
            return []
        found = [*self._steps(), *self._deliveries(), *self._sweeps(), *self._ticks(), *self._faults()]
        if not any(choice.cost == FREE for choice in found):
            found.append(Choice(self._finish))
        return sorted(found, key=lambda choice: choice.cost != FREE)

    def _steps(self) -> Iterator[Choice]:
        busy = bool(self._acting.steps)
        for actor in sorted(self._actors, key=lambda one: one is not self._acting):
            for number, step in enumerate(actor.steps):
                is_next = not number and (actor is self._acting or not busy)
                cost = FREE if is_next else PREEMPTION
                if step.is_done:
                    yield Choice(partial(self._answer, actor, step), cost)
                else:
                    yield Choice(partial(self._take, actor, step, How.WELL), cost)
                    if step.name in QUESTIONS:
                        yield Choice(partial(self._take, actor, step, How.ANSWERED_LATER), PREEMPTION)
                    if step.name in READS_OF_THE_GLOBAL_INDEX:
                        for late in self._ways_to_be_late():
                            yield Choice(partial(self._take_late, actor, step, late), PREEMPTION)

    def _ways_to_be_late(self) -> Iterator[frozenset[tuple[str, str]]]:
        """Yield the sets of items whose last changes the global index may lack: one item, all but one, or all."""
        behind = frozenset(self.table.dynamo.behind)
        yield from sorted(
            {late for key in behind for late in (frozenset({key}), behind - {key}, behind) if late}, key=sorted
        )

    def _deliveries(self) -> Iterator[Choice]:
        idle = [environment for environment in self._environments if not environment.batch]
        if len(idle) > 1 and idle[0].memory == idle[1].memory:
            idle.pop()  # the two are alike
        cost = PREEMPTION if self._acting.steps else FREE
        waiting = [message for message in self.messages if self._is_sent(message) and not message.is_done]
        waiting = [message for message in waiting if not message.under_way]
        for environment in idle:
            if self.world.batches and len(waiting) > 1:
                yield Choice(partial(self._deliver, environment, waiting), cost)
            for message in waiting:
                yield Choice(partial(self._deliver, environment, [message]), cost)
            for message in self.messages:
                if message.received and (message.under_way or message.is_done):
                    yield Choice(partial(self._deliver, environment, [message]), FAULT)

    def _is_sent(self, message: QueuedMessage) -> bool:
        return message.sent_ms <= self.now_ms()

    def _is_sweep_due(self) -> bool:
        due = [second for second in self.world.sweeps if second <= self._clock[self._now]]
        return len(due) > self._swept

    def _sweeps(self) -> Iterator[Choice]:
        first, second = self._sweepers
        if self._is_sweep_due() and not first.is_at_work:
            yield Choice(partial(self._sweep, first), PREEMPTION if self._acting.steps else FREE)
        if first.is_at_work and not second.is_at_work:
            yield Choice(partial(self._sweep, second), FAULT)

    def _ticks(self) -> Iterator[Choice]:
        is_time = all(message.is_done for message in self.messages) or self._clock[self._now] < self.world.served_by
        if self._now + 1 < len(self._clock) and is_time and not self._is_sweep_due():
            at_work = [actor for actor in self._actors if actor.is_at_work]
            next_ms = ms(self._clock[self._now + 1])
            if all(next_ms - actor.began.now_ms < 1000 * LONGEST_INVOCATION_SECONDS for actor in at_work):
                yield Choice(self._tick, PREEMPTION if at_work else FREE)

    def _faults(self) -> Iterator[Choice]:
        for actor in self._actors:
            for step in actor.steps:
                if not step.is_done and step.name != acknowledge.__name__:
                    yield Choice(partial(self._take, actor, step, How.REFUSED), FAULT)
                    if step.name not in READS:
                        yield Choice(partial(self._take, actor, step, How.ANSWER_LOST), FAULT)
            if actor.is_at_work:
                yield Choice(partial(self._crash, actor), FAULT)

    def _take(self, actor: Actor, step: Step, how: How) -> None:
        self._acting = actor
        number = len(self.story)
        step.go.set_result(how)
        self.loop.settle()
        results = {How.WELL: described(step.result), How.ANSWERED_LATER: f"{described(step.result)}, held up"}
        result = results.get(how, how.name.lower().replace("_", " "))
        self.story.insert(number, f"{actor.name}: {step}" + (f" -> {result}" if result else ""))

    def _take_late(self, actor: Actor, step: Step, late: frozenset[tuple[str, str]]) -> None:
        self.table.dynamo.is_late = late.__contains__
        self._take(actor, step, How.WELL)
        self.table.dynamo.is_late = lambda _: False
        self.story.append(f"-- the index was late for {', '.join(sorted(task_id for _, task_id in late))}")

    def _answer(self, actor: Actor, step: Step) -> None:
        self._acting = actor
        self.story.append(f"{actor.name}: receives the answer of {step}")
        step.answer.set_result(None)
        self.loop.settle()

    def _deliver(self, environment: Environment, messages: Sequence[QueuedMessage]) -> None:
        self._acting = environment
        for message in messages:
            message.received += 1
            message.under_way += 1
        self.story.append(f"{environment.name}: receives {', '.join(message.name for message in messages)}")
        environment.serve(messages)
        self.loop.settle()

    def _tick(self) -> None:
        before = self.now_ms()
        self._now += 1
        self.story.append(f"-- second {self._clock[self._now]}")
        for session in self.rtc.sessions:
            if before < session.started_ms <= self.now_ms():
                self.story.append(f"-- {session.task.task_id} starts")
        for occupied in self.world.room:
            if before < ms(occupied.ends) <= self.now_ms():
                self.story.append("-- the room is empty")
            if before < ms(occupied.starts) <= self.now_ms():
                self.story.append("-- a user is in the room")

    def _sweep(self, sweeper: Sweeping) -> None:
        self._acting = sweeper
        self._swept += sweeper is self._sweepers[0]
        self.story.append(f"{sweeper.name}: begins")
        sweeper.sweep()
        self.loop.settle()

    def _crash(self, actor: Actor) -> None:
        self.story.append(f"{actor.name}: crashes")
        actor.crash()
        self._crashed.append(actor)
        restarted: Actor
        if isinstance(actor, Environment):
            self._environments[self._environments.index(actor)] = restarted = Environment(actor.name, self)
        else:
            restarted = Sweeping(actor.name, self)
            self._sweepers = [restarted if one is actor else one for one in self._sweepers]
        if self._acting is actor:
            self._acting = restarted

    def _finish(self) -> None:
        self.is_over = True
        self.story.append("-- the end")

    def allow(self, what: str) -> None:
        """Count a broken promise that docs/design.md documents as an exception."""
        self.allowed[what] += 1

    def broken(self) -> list[str]:
        requests, reports = self._judged
        self.new_requests = [(request, self._acting.began) for request in self.rtc.requests[requests:]]
        self.new_reports = self.reports[reports:]
        self._judged = len(self.rtc.requests), len(self.reports)
        for actor in self._actors:
            actor.check()
        return list(self._judge(self))

    def end(self) -> None:
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self.loop.settle()


def described(value: object) -> str:
    """Describe a value in a few words."""
    match value:
        case Message():
            named = ",".join(value.task_ids)
            return f"{value.type}({named}) of {value.at}"
        case Event():
            return f"{value.type}({','.join(value.task_ids)}) of {_second(value.time_ms)}"
        case Task():
            return value.task_id
        case Record():
            known = {
                "started": value.started_at_ms,
                "open since": value.open_since_ms,
                "stop": value.stop_event_time_ms,
                "gone": value.gone_at_ms,
            }
            facts = [f"{name} {_second(time_ms)}" for name, time_ms in known.items() if time_ms is not None]
            return " ".join([*facts, value.outcome or ""]).strip() or "nothing"
        case dict():
            return ", ".join(f"{described(key)}: {described(held)}" for key, held in value.items()) or "nothing"
        case list() | tuple():
            return ",".join(described(one) for one in value)
        case Enum() | str():
            return str(value)
        case _ if is_dataclass(value):
            return " ".join(f"{name}={described(held) or held}" for name, held in vars(value).items())
        case int() if value < ms(0):
            return str(value)
        case _:
            return ""


def _second(time_ms: int) -> str:
    return f"{(time_ms - ms(0)) / 1000:g}"


def contents(value: object) -> Hashable:
    """Return the data that a value holds, to be compared. Objects that the value only uses are left out."""
    match value:
        case dict():
            return tuple(sorted((repr(key), contents(held)) for key, held in value.items()))
        case list() | tuple() | set():
            return tuple(contents(one) for one in value)
        case int() | str() | float() | None:
            return value
        case Stopper():
            return tuple(contents(held) for held in vars(value).values() if isinstance(held, dict | set | list))
        case _:
            return repr(value)
