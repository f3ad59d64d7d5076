"""The vocabulary of the end-to-end tests: rooms, the ends of messages, and the stack's output."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from sandbox.faults import Fault
from sandbox.rtc_gateway import ApiRequest
from sandbox.rtc_tasks import TaskKey
from sandbox.stack import Sandbox, wait_for
from segments.times import now_ms as now_ms
from tests.contracts import assert_kept

APP_ID = "661e"
ROOM_ITEM = "#room"
CONTRACTS_OF_EVENTS = {"SegmentStopped": "segment-stopped", "SegmentStopFailed": "segment-stop-failed"}


def rfc3339(unix_ms: int) -> str:
    time_of_day = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=unix_ms)
    return time_of_day.isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass(frozen=True)
class Letter:
    """A dead letter."""

    body: str
    attributes: Mapping[str, str]


class Observer:
    """A sandbox and all of its output. Queues deliver a message only once, so the observer keeps every message."""

    def __init__(self, box: Sandbox) -> None:
        self.box = box
        self._letters: dict[str, Letter] = {}
        self._outcome_events: list[dict[str, Any]] = []

    def resource(self, logical_id: str) -> str:
        """Return the physical id of one of the stack's resources."""
        return self.box.resource(logical_id)

    def lines(self, message_id: str) -> list[dict[str, Any]]:
        """Return the stop function's log lines about a message."""
        return [line for line in self.box.log_lines() if line.get("message_id") == message_id]

    def receives(self, message_id: str) -> int:
        """Return how often the stop function has received a message so far."""
        return max((line["receive_count"] for line in self.lines(message_id)), default=0)

    def ends(self, message_ids: Collection[str]) -> dict[str, list[str]]:
        """Wait for the end of messages, and return the outcomes of each message's last receive, sorted."""
        try:
            return wait_for(lambda: self._ends(message_ids), f"the end of {len(message_ids)} messages", seconds=90)
        except TimeoutError as error:
            raise TimeoutError(f"{error}; {self._progress(message_ids)}") from None

    def _progress(self, message_ids: Collection[str]) -> str:
        """Describe how many messages have not ended, and what may be the reason."""
        logged = {line["message_id"]: line for line in self.box.log_lines() if line.get("message_id") in message_ids}
        missing = [message_id for message_id in message_ids if logged.get(message_id, {}).get("outcome") is None]
        troubles = [line for line in self.box.aws.log.read_text(errors="replace").splitlines() if "WARNING" in line]
        return f"{len(missing)} are not logged as ended; {self.box.undone()} are on the queue; {troubles[-5:]}"

    def _ends(self, message_ids: Collection[str]) -> dict[str, list[str]]:
        last: dict[str, dict[int, list[str]]] = {message_id: {} for message_id in message_ids}
        for line in self.box.log_lines():
            if "outcome" in line and line.get("message_id") in last:
                last[line["message_id"]].setdefault(line["receive_count"], []).append(line["outcome"])
        ends = {
            message_id: sorted(receives[max(receives)]) if receives else ["retried"]
            for message_id, receives in last.items()
        }
        return {} if any("retried" in outcomes for outcomes in ends.values()) else ends

    def end_of(self, body: str) -> list[str]:
        """Send a message, wait for its end, and return its outcomes."""
        (message_id,) = self.box.send([body])
        return self.ends([message_id])[message_id]

    def retried(self, message_id: str) -> dict[str, Any]:
        """Wait until a message has failed and will be tried again, and return the log line with the reason."""

        def line_of_retry() -> dict[str, Any]:
            lines = [line for line in self.lines(message_id) if line.get("outcome") == "retried"]
            return lines[-1] if lines else {}

        return wait_for(line_of_retry, "a message to be retried")

    def letters(self) -> dict[str, Letter]:
        """Return the dead letters so far, by the id of the original message, and check them against their contract."""
        for taken in self.box.dead_letters():
            if taken["MessageAttributes"]:
                assert_kept(taken["MessageAttributes"], "dead-letter-attributes")
            attributes = taken["Attributes"]
            self._letters[attributes.get("SourceMessageId", "")] = Letter(taken["Body"], attributes)
        return self._letters

    def letter(self, message_id: str) -> Letter:
        """Return the dead letter of a message."""
        wait_for(lambda: message_id in self.letters(), "a dead letter")
        return self._letters[message_id]

    def outcome_events(self) -> list[dict[str, Any]]:
        """Return the events of the outcome bus so far, and check them against their contracts."""
        for event in self.box.outcome_events():
            assert_kept(event, CONTRACTS_OF_EVENTS[event["detail-type"]])
            self._outcome_events.append(event)
        return self._outcome_events

    def all_logs(self) -> str:
        """Return every line in every log group."""
        logs = self.box.client("logs")
        groups = [
            group["logGroupName"]
            for page in logs.get_paginator("describe_log_groups").paginate()
            for group in page["logGroups"]
        ]
        events = logs.get_paginator("filter_log_events")
        return "\n".join(
            event["message"]
            for group in groups
            for page in events.paginate(logGroupName=group)
            for event in page["events"]
        )

    def everything_written(self) -> str:
        """Return all output as text: logs, records, dead letters and outcome events."""
        written = [self.box.aws.log.read_text(errors="replace"), self.all_logs()]
        written += [str(self.box.records()), str(self.letters()), str(self.outcome_events())]
        return "\n".join(written)

    @contextlib.contextmanager
    def without_permission(self, role_logical_id: str, sid: str) -> Iterator[None]:
        """Remove a statement from a role's policy, and put it back at the end."""
        iam = self.box.client("iam")
        role = self.resource(role_logical_id)
        (policy,) = iam.list_role_policies(RoleName=role)["PolicyNames"]
        document = iam.get_role_policy(RoleName=role, PolicyName=policy)["PolicyDocument"]
        others = [statement for statement in document["Statement"] if statement["Sid"] != sid]
        if len(others) == len(document["Statement"]):
            raise ValueError(f"{role_logical_id} has no statement {sid}")
        reduced = json.dumps({**document, "Statement": others})
        iam.put_role_policy(RoleName=role, PolicyName=policy, PolicyDocument=reduced)
        try:
            yield
        finally:
            iam.put_role_policy(RoleName=role, PolicyName=policy, PolicyDocument=json.dumps(document))

    def renew_function(self, logical_id: str, **variables: str) -> None:
        """Make a function start in new environments, which have empty caches, with `variables` added to its own."""
        client, name = self.box.client("lambda"), self.resource(logical_id)
        current = client.get_function_configuration(FunctionName=name)["Environment"]["Variables"]
        environment = {"Variables": {**current, "RENEWED": uuid4().hex, **variables}}
        client.update_function_configuration(FunctionName=name, Environment=environment)
        client.get_waiter("function_updated_v2").wait(FunctionName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 60})


@contextlib.contextmanager
def failing(box: Sandbox, fault: Fault, task: TaskKey | None = None) -> Iterator[None]:
    """Make the RTC API fail, for one task or for every request."""
    box.rtc.fail(fault, task=task)
    try:
        yield
    finally:
        box.rtc.heal()


@contextlib.contextmanager
def key_refused(box: Sandbox) -> Iterator[None]:
    """Make the RTC API refuse every key."""
    known_keys, box.rtc.secrets = box.rtc.secrets, {}
    try:
        yield
    finally:
        box.rtc.secrets = known_keys


class Role:
    """A role of the stack, assumed as its function assumes it."""

    def __init__(self, observer: Observer, logical_id: str) -> None:
        self._aws = observer.box.aws
        role = observer.box.client("iam").get_role(RoleName=observer.resource(logical_id))["Role"]
        assumed = observer.box.client("sts").assume_role(RoleArn=role["Arn"], RoleSessionName="e2e")
        self._credentials: Mapping[str, str] = assumed["Credentials"]
        self._clients: dict[str, Any] = {}

    def client(self, service: str) -> Any:
        if service not in self._clients:
            self._clients[service] = self._aws.client(service, self._credentials)
        return self._clients[service]


class Room:
    """A room that only one test uses."""

    def __init__(self, observer: Observer, room_id: str) -> None:
        self.id = room_id
        self._observer = observer
        self._box = observer.box

    def start(self, *task_ids: str, at_ms: int | None = None) -> None:
        """Start tasks at the RTC API."""
        for task_id in task_ids:
            self._box.rtc.start_task(APP_ID, self.id, task_id, start_time_ms=at_ms)

    def is_running(self, task_id: str) -> bool:
        return self._box.rtc.is_running(APP_ID, self.id, task_id)

    def event(self, event_type: str, **values: object) -> str:
        """Write a message about the room."""
        return json.dumps({"EventType": event_type, "AppId": APP_ID, "RoomId": self.id, **values})

    def end_of(self, event_type: str, **values: object) -> list[str]:
        """Send a message about the room, wait for its end, and return its outcomes."""
        return self._observer.end_of(self.event(event_type, **values))

    def requests(self, action: str | None = "StopSegment") -> list[ApiRequest]:
        """Return the RTC API's requests about the room, of one action, or of all if it is None."""
        return self._box.rtc.requests_for(APP_ID, self.id, action=action)

    @property
    def stopped(self) -> list[str]:
        """The task ids in the requests to stop tasks of the room, sorted."""
        return sorted(request.task[2] for request in self.requests())

    @property
    def records(self) -> dict[str, dict[str, Any]]:
        """The room's records, by task_id."""
        room = f"{APP_ID}#{self.id}"
        return {task_id: item for (of_room, task_id), item in self._box.records().items() if of_room == room}

    def outcomes(self, count: int) -> list[str]:
        """Wait until `count` outcomes of the room are logged, and return them, sorted."""

        def logged() -> list[str]:
            lines = [line for line in self._box.log_lines() if line.get("room_id") == self.id and "outcome" in line]
            return sorted(line["outcome"] for line in lines) if len(lines) >= count else []

        return wait_for(logged, f"{count} outcomes")

    def outcome_events(self, count: int) -> list[dict[str, Any]]:
        """Wait until `count` outcome events of the room have arrived, and return them."""

        def come() -> list[dict[str, Any]]:
            events = [event for event in self._observer.outcome_events() if event["detail"].get("RoomId") == self.id]
            return events if len(events) >= count else []

        return wait_for(come, f"{count} outcome events")
