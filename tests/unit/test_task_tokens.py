"""A workflow that waits with a task token is notified when its message ends. tests/explorer tries the histories."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest

from segments.errors import InvalidMessage, Rejected
from segments.events import MOST_TOKEN_CHARACTERS, Event, EventType, Room, parse_event, task_token
from segments.stop_rules import Outcome
from stop_segment.arrivals import Arrival, arrive
from stop_segment.failures import Failure
from stop_segment.stopper import Done
from stop_segment.workflow_answers import (
    MOST_CAUSE_CHARACTERS,
    MOST_ERROR_CHARACTERS,
    MOST_OUTPUT_BYTES,
    failed,
    failed_before,
    served_well,
)
from tests.contracts import breaks, closed, schema
from tests.explorer.waiting import BODY, TOKEN, Copy, How, T, Waited, Waiting, function_environment

pytestmark = pytest.mark.filterwarnings("ignore:No application metrics to publish")
EVENT = Event(EventType.ROOM_ENDED, Room("661e", "room-1"), T, ("audio",), "evt-1", "biz-1", task_token=TOKEN)


def output_of(answer: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(answer)
    assert (content["TaskToken"], content["SourceMessageId"]) == (TOKEN, "m-1")
    assert breaks(content["Output"], closed(schema("workflow-output"))) == []
    output: dict[str, Any] = content["Output"]
    return output


class TestAnswers:
    def test_an_output_has_the_outcome_of_each_task(self) -> None:
        done = [Done("audio", Outcome.STOPPED, "R-1"), Done("screen", Outcome.DUPLICATE)]
        assert output_of(served_well("m-1", EVENT, done)) == {
            "EventType": "RoomEnded",
            "AppId": "661e",
            "RoomId": "room-1",
            "EventTime": "2026-11-22T06:12:00.123Z",
            "EventId": "evt-1",
            "BusinessId": "biz-1",
            "Tasks": [
                {"TaskId": "audio", "Outcome": "stopped", "RequestId": "R-1"},
                {"TaskId": "screen", "Outcome": "duplicate"},
            ],
        }

    def test_an_output_has_an_empty_list_of_tasks_if_the_room_has_no_open_task(self) -> None:
        bare = replace(EVENT, event_id=None, business_id=None, task_ids=())
        output = output_of(served_well("m-1", bare, [Done(None, Outcome.NO_OPEN_TASKS)]))
        assert (output["Outcome"], output["Tasks"]) == ("no_open_tasks", [])
        assert not output.keys() & {"EventId", "BusinessId"}

    @pytest.mark.parametrize("count", [0, 1, 800, 10_000])
    def test_an_output_is_not_longer_than_step_functions_allows(self, count: int) -> None:
        done = [Done(f"{number:0128}", Outcome.ALREADY_STOPPED, "2" * 40) for number in range(count)]
        output = output_of(served_well("m-1", EVENT, done))
        assert len(json.dumps(output)) <= MOST_OUTPUT_BYTES < 262_144
        assert len(output["Tasks"]) + output.get("TasksLeftOut", 0) == count
        assert ("TasksLeftOut" in output) is (count > 800)
        assert len(output["Tasks"]) >= min(count, 500)

    @pytest.mark.parametrize(("more", "left_out"), [(0, None), (1, 1)])
    def test_an_output_of_exactly_the_maximum_is_whole(self, more: int, left_out: int | None) -> None:
        size = len(json.dumps(output_of(served_well("m-1", EVENT, [Done("audio", Outcome.STOPPED, "2")]))))
        done = [Done("audio", Outcome.STOPPED, "2" * (MOST_OUTPUT_BYTES - size + 1 + more))]
        assert output_of(served_well("m-1", EVENT, done)).get("TasksLeftOut") == left_out

    # SendTaskFailure, Step Functions API Reference: error at most 256 characters, cause at most 32,768.
    def test_an_error_is_not_longer_than_step_functions_allows(self) -> None:
        said = {"ErrorKind": "rejected", "ErrorCode": "N" * 300, "ErrorMessage": "x" * 40_000, "SourceMessageId": "m-1"}
        content = json.loads(failed_before(Arrival("m-2", "h", "{}", T, attributes=said, content=EVENT)))
        assert len(content["Error"]) == MOST_ERROR_CHARACTERS == 256
        assert len(content["Cause"]) == MOST_CAUSE_CHARACTERS == 32_768
        assert content["Cause"].startswith("rejected: xxx")
        assert (content["TaskToken"], content["SourceMessageId"]) == (TOKEN, "m-1")

    def test_an_error_is_that_of_the_dead_letter(self) -> None:
        failure = Failure(Arrival("m-1", "h", "{}", T, content=EVENT), Rejected("NoApp", "no such app"))
        content = json.loads(failed(failure, "rejected"))
        assert (content["Error"], content["Cause"]) == ("NoApp", "rejected: no such app")
        assert content["SourceMessageId"] == "m-1"

    def test_an_answer_to_a_copy_without_the_attributes_of_a_letter_is_empty(self) -> None:
        content = json.loads(failed_before(Arrival("m-2", "h", "{}", T, content=EVENT)))
        assert (content["Error"], content["Cause"], content["SourceMessageId"]) == ("", ": ", "m-2")


class TestReading:
    @pytest.mark.parametrize("token", ["x", '\u2028\ud800 "\\', "x" * MOST_TOKEN_CHARACTERS])
    def test_a_token_may_hold_any_characters(self, token: str) -> None:
        body = json.dumps({"EventType": "RoomEnded", "AppId": "661e", "RoomId": "room-1", "TaskToken": token})
        event = parse_event(body, T)
        assert event is not None
        assert event.task_token == token == task_token(body)
        assert token not in repr(event)

    @pytest.mark.parametrize("token", ["", "x" * (MOST_TOKEN_CHARACTERS + 1), 7, [], {}])
    def test_a_token_of_another_form_is_refused_and_cannot_be_answered(self, token: object) -> None:
        body = json.dumps({"EventType": "RoomEnded", "AppId": "661e", "RoomId": "room-1", "TaskToken": token})
        with pytest.raises(InvalidMessage, match=r"message\.TaskToken"):
            parse_event(body, T)
        assert task_token(body) is None

    def test_a_token_in_an_envelope_is_read_but_not_in_a_callback(self) -> None:
        detail = {"AppId": "661e", "RoomId": "room-1", "TaskToken": TOKEN}
        bus = {"detail-type": "RoomEnded", "detail": detail}
        topic = {"Type": "Notification", "Message": json.dumps(bus)}
        callback = {"EventType": "RoomDestroy", "EventData": json.dumps(detail), "AppId": "661e", "TaskToken": TOKEN}
        assert [task_token(json.dumps(envelope)) for envelope in (bus, topic, callback)] == [TOKEN, TOKEN, None]

    @pytest.mark.parametrize("body", ["", "[]", "null", "{}", '{"TaskToken": null}'])
    def test_a_message_without_a_token_has_none(self, body: str) -> None:
        assert task_token(body) is None


@pytest.fixture(scope="module")
def module() -> Iterator[ModuleType]:
    with function_environment() as made:
        yield made


def live(module: ModuleType, world: Waiting, *failing: tuple[int, How], **settings: object) -> Waited:
    """Deliver a message and its copies until none is left; these calls of the first deliveries fail."""
    waited, ways = Waited(world, module, settings), iter(failing)
    while waited.waiting:
        waited.deliver(waited.waiting[0], next(ways, None))
    return waited


@pytest.mark.parametrize(("end", "letters"), [("stops", 0), ("rejects", 1)])
def test_without_a_workflow_arn_no_token_is_answered(module: ModuleType, end: str, letters: int) -> None:
    waited = live(module, Waiting("", [end]), answer_queue_url="")
    assert (len(waited.answers), len(waited.letters)) == (0, letters)


def test_a_message_without_a_token_needs_no_call(module: ModuleType) -> None:
    assert live(module, Waiting("", ["stops"], json.dumps(json.loads(BODY) | {"TaskToken": None}))).calls == 0


@pytest.mark.parametrize("url", ["answers", ""])
@pytest.mark.parametrize("ends", [["stops"], ["rejects"], ["is down"]])
def test_no_log_line_holds_a_token(module: ModuleType, ends: list[str], url: str) -> None:
    log = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module.logger.registered_handler, "stream", log)
        module.logger.setLevel("DEBUG")
        live(module, Waiting("", ends), (2, How.REFUSED), (1, How.REFUSED), (2, How.ANSWER_LOST), answer_queue_url=url)
        module.logger.setLevel("CRITICAL")
    assert "661e" in log.getvalue()
    assert TOKEN[:16] not in log.getvalue()


def test_a_message_with_the_mark_but_without_a_token_is_processed() -> None:
    body = json.dumps(json.loads(BODY) | {"TaskToken": None})
    assert not arrive(Copy(body, T, (("GivenUp", "true"),)).record).is_given_up
