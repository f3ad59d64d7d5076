"""The promises of docs/design.md. Each check yields a sentence for each way in which a history breaks its promise."""

from __future__ import annotations

from collections.abc import Iterator

from publish_outcome.outcomes import segment_stopped
from segments.events import EventType, Room, Task
from segments.ledger import LOOK_ITEM, ROOM_ITEM, room_item
from segments.stop_rules import Outcome, Record
from tests.explorer.play import Mark, Played, Report
from tests.unit.memory_dynamo import Item
from tests.unit.rtc_model import SETTINGS, Request, Session, is_to_be_stopped

# Cases of docs/design.md, "Known gaps", in its words.
UNSENT = (
    "an event younger than `StaleAfterSeconds` arrives late, and a newer session's `SegmentStarted` has not arrived"
)
DELAYED = "a request is delayed between the decision and the API's answer, and a new session begins meanwhile"
UNRECORDED = (
    "the function crashes, or cannot write, between the call and its record, and a new session begins or a newer end "
    "is answered before the next delivery"
)
UNSEEN = "a session begins within a minute of an older one's slice, and only slices report it"
REMEMBERED = "a slice arrives within a minute of another slice of its task"
SWEEP_ITEM = "#sweep"
CASES = (UNSENT, DELAYED, UNRECORDED, UNSEEN, REMEMBERED)


def judge(play: Played) -> Iterator[str]:
    """Check the last step, and at the end the whole history. Yields a sentence for each broken promise."""
    for request, began in play.new_requests:
        yield from no_wrong_stop(play, request, began)
        yield from one_answer_one_request(play, request, began)
    for report in play.new_reports:
        yield from reports_are_true(play, report)
    if play.is_over:
        yield from no_lost_stop(play)
        yield from the_record_is_true(play)
        yield from every_stop_is_reported(play)


def no_wrong_stop(play: Played, request: Request, began: Mark) -> Iterator[str]:
    """No event stops a session that started later, and the sweeper stops no session of an occupied room."""
    session, decision = request.ended, request.decision
    if session is None:
        return
    if session.started_ms <= decision.time_ms:
        if not play.was_gone_long_enough(session.task.room, decision.time_ms):
            yield "wrong stop: the room was empty only for a moment"
        return
    known = play.table.starts[: decision.starts_known]
    if session.started_ms > decision.looked_ms:
        play.allow(DELAYED)
    elif began.is_second_try or decision.looked_ms - decision.time_ms > SETTINGS.stale_after_ms:
        yield "wrong stop: the event was late"
    elif any(task == session.task and start >= session.started_ms for task, start in known):
        yield "wrong stop: the table knew the session's start"
    else:
        play.allow(UNSENT)


def one_answer_one_request(play: Played, request: Request, began: Mark) -> Iterator[str]:
    """An event whose answer was recorded before its invocation began makes no request."""
    time_ms = request.decision.time_ms
    answered = any(
        task == request.task and answered_ms >= time_ms for task, answered_ms in play.table.answers[: began.answers]
    )
    if answered:
        yield f"a second request: {request.action} for an event whose answer was recorded"


def reports_are_true(play: Played, report: Report) -> Iterator[str]:
    """Each outcome in the log means what docs/events.md says."""
    event, done = report.event, report.done
    task = Task(event.room, done.task_id or ROOM_ITEM)
    sessions = [session for session in play.rtc.sessions if session.task == task]
    answers = play.table.answers
    match done.outcome:
        case Outcome.STOPPED:
            made = play.rtc.requests[report.began.requests :]
            is_true = any(request.task == task and request.ended for request in made)
        case Outcome.ALREADY_STOPPED:
            now_ms = play.now_ms()
            is_true = not any(one.runs_at(now_ms) and one.was_to_run_at(event.time_ms) for one in sessions)
        case Outcome.SUPERSEDED:
            began_ms = report.began.now_ms
            is_true = any(
                one.started_ms > event.time_ms
                and (one.stopped_ms is None or one.stopped_ms >= began_ms or is_stopped_too_early(play, one))
                for one in sessions
            )
        case Outcome.DUPLICATE:
            since_ms = event.time_ms - SETTINGS.duplicate_window_ms
            is_true = any(one == task and answered_ms >= since_ms for one, answered_ms in answers)
        case Outcome.KNOWN:
            room = room_item(event.room)
            ends = [ended_ms for one, ended_ms in answers[: report.began.answers] if one == room]
            is_true = not any(ended_ms >= event.time_ms for ended_ms in ends)
            newer = [*answers, *play.table.starts]
            if not is_true and any(one == task and time_ms >= event.time_ms for one, time_ms in newer):
                is_true = True  # the session was stopped
            if not is_true and event.type is EventType.SEGMENT_REAL_TIME_DATA:
                is_true = True
                play.allow(REMEMBERED)
        case _:
            is_true = True
    if not is_true:
        yield f"untrue: the log says {done.outcome} of {event.type}"


def no_lost_stop(play: Played) -> Iterator[str]:
    """Every session that runs at the time of a stop event is stopped."""
    events = [message.event for message in play.world.messages]
    for session in play.rtc.sessions:
        if not session.runs_at(play.now_ms()):
            continue
        covering = [event for event in events if is_to_be_stopped(session, event, events)]
        window_ms = SETTINGS.duplicate_window_ms
        if any(0 < session.started_ms - event.time_ms <= window_ms for event in events if event.is_stop):
            covering = []
        reports = [event for event in events if not event.is_stop and session.task in event.tasks]
        is_known = any(event.time_ms >= session.started_ms for event in reports)
        if is_known and not play.rtc.room_existed(session.task.room, play.now_ms()):
            yield "an orphan: the room is gone, and a task that was reported still runs"
        record = play.table.read([session.task]).get(session.task)
        if covering and record and record.watch and record.stop_event_time_ms is not None and not record.is_open:
            play.allow(UNSEEN)
        elif covering:
            yield f"lost: {covering[0].type} should have stopped a session that still runs"


def the_record_is_true(play: Played) -> Iterator[str]:
    """A record holds the newest answer, and says `stopped` if the stack stopped the task. An open task's record is
    kept."""
    for item in play.table.dynamo.items():
        (task, record), *_ = play.table.read([task_of(item)]).items()
        if task.task_id in (LOOK_ITEM, SWEEP_ITEM):
            continue
        if task.task_id != ROOM_ITEM and ("watch" in item) is ("expires_at" in item):
            yield "untrue record: it has both `watch` and `expires_at`, or neither"
        answers = [time_ms for one, time_ms in play.table.answers if one == task]
        if record.stop_event_time_ms != max(answers, default=None):
            yield "untrue record: its answer is not the newest one"
        if task.task_id != ROOM_ITEM:
            yield from _the_task_s_record_is_true(play, task, record, item)


def _the_task_s_record_is_true(play: Played, task: Task, record: Record, item: Item) -> Iterator[str]:
    if record.is_open and "expires_at" in item:
        yield "untrue record: the task is open, and its record expires"
    newest_ms = max((time_ms for one, time_ms in play.table.starts if one == task), default=None)
    if record.open_since_ms is not None and record.open_since_ms < (record.started_at_ms or 0):
        yield "untrue record: the task is open since before its newest start"
    if newest_ms is not None and not record.covers(newest_ms) and not record.is_open:
        yield "untrue record: the task has started since its last stop, and is not open"
    # A start at the time of a stop belongs to the next session.
    if record.open_since_ms is not None and record.covers(record.open_since_ms + 1):
        yield "untrue record: the task is open, though its stop was answered"
    stops = [request for request in play.rtc.requests if request.task == task and request.ended]
    time_ms = record.stop_event_time_ms or 0
    if record.outcome == Outcome.STOPPED and not any(stop.decision.time_ms <= time_ms for stop in stops):
        yield "untrue record: stopped"
    ours = [stop for stop in stops if stop.ended and stop.ended.started_ms <= stop.decision.time_ms == time_ms]
    if record.outcome == Outcome.ALREADY_STOPPED and ours and reported_stopped(play, ours[0]):
        yield "untrue record: already_stopped, though this event's stop was answered"


def every_stop_is_reported(play: Played) -> Iterator[str]:
    """Every session that the stack stopped has an event on the bus, with the same outcome as in the log."""
    events = []
    for old, new in play.table.dynamo.changes:
        if segment_stopped(old, new, "bus"):
            events.append((new["task_id"]["S"], int(new["stop_event_time"]["N"]), new["outcome"]["S"]))
    for request in play.rtc.requests:
        session = request.ended
        if session is None:
            continue
        later = [one.started_ms for one in play.rtc.sessions if one.task == session.task and one is not session]
        until_ms = min((start for start in later if start > session.started_ms), default=play.now_ms() + 1)
        about = [
            outcome
            for task_id, time_ms, outcome in events
            if task_id == session.task.task_id and (session.started_ms <= time_ms < until_ms)
        ]
        if request.decision.time_ms < session.started_ms:
            continue
        if reported_stopped(play, request):
            if Outcome.STOPPED not in about:
                yield "unreported: the log says stopped, but no event on the bus does"
        elif not about:
            play.allow(UNRECORDED)


def is_stopped_too_early(play: Played, session: Session) -> bool:
    """Whether an event that is older than the session stopped the session."""
    return any(
        request.ended is session and request.decision.time_ms < session.started_ms for request in play.rtc.requests
    )


def reported_stopped(play: Played, request: Request) -> bool:
    """Whether the log says that this request's event stopped the task."""
    return any(
        report.done.outcome is Outcome.STOPPED
        and report.done.task_id == request.task.task_id
        and report.event.time_ms == request.decision.time_ms
        for report in play.reports
    )


def task_of(item: Item) -> Task:
    """Return the task of an item; the room's and the sweeper's items count as tasks, too."""
    return Task(Room(*item["room"]["S"].split("#")), item["task_id"]["S"])
