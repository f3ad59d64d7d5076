"""Some of the histories of tests/unit/test_time_decides.py, on tables that are not ours.

The others are played on a stand-in. A result on both is less likely to be the mistake of one: these tables keep their
indexes themselves, but their global index is never late.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given

from sandbox.embedded_aws import EmbeddedAws
from segments.events import Event
from tests.second_opinion import moto_client
from tests.segment_table import create_segment_table
from tests.unit.rtc_model import History, World, is_to_be_stopped
from tests.unit.test_time_decides import calm_restarts, days_without_starts, is_heard_of, thorough


@pytest.fixture(scope="module", params=["moto", "embedded AWS"])
def client(request: pytest.FixtureRequest, aws: EmbeddedAws) -> Iterator[Any]:
    if request.param == "moto":
        with moto_client("dynamodb") as client:
            yield client
        return
    client = aws.client("dynamodb")
    yield client
    client.close()


def live(client: Any, history: History, sweeps: int = 0) -> World:
    """Play a history on its own table."""
    name = f"segments-{uuid4().hex}"
    create_segment_table(client, name)
    try:
        return World(history, client, name).live(sweeps)
    finally:
        client.delete_table(TableName=name)


@thorough(15)
@given(history=calm_restarts())
def test_every_task_that_ran_when_its_room_ended_is_stopped(client: Any, history: History) -> None:
    lost = [
        (session, event)
        for session in live(client, history).running
        for event in history.events
        if is_to_be_stopped(session, event, history.events, slices_may_hide=True)
    ]
    assert lost == []


@thorough(15)
@given(told=days_without_starts())
def test_no_session_outlives_its_room_by_more_than_two_sweeps(client: Any, told: tuple[History, list[Event]]) -> None:
    history, events = told
    assert [session for session in live(client, history, sweeps=2).running if is_heard_of(session, events)] == []
