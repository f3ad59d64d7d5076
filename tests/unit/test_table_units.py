"""The benchmarks' count of index writes and bytes, for the template's indexes."""

import pytest

from benchmarks.table_units import Index, Item, index_of, size_of
from tests.segment_table import SHAPE

KEY = {"room": {"S": "661e#room-1"}, "task_id": {"S": "audio"}}
WATCHED = {**KEY, "watch": {"S": "1"}}
OPEN = {**WATCHED, "open_since": {"N": "1"}}
STOPPED = {**KEY, "outcome": {"S": "stopped"}}


@pytest.fixture(scope="module")
def indexes() -> dict[str, Index]:
    keys = {key["AttributeName"] for key in SHAPE["KeySchema"]}
    scopes = ("LocalSecondaryIndexes", "GlobalSecondaryIndexes")
    return {index["IndexName"]: index_of(index, keys) for scope in scopes for index in SHAPE[scope]}


@pytest.mark.parametrize(
    ("before", "after", "open_tasks", "watched_tasks"),
    [
        pytest.param({}, OPEN, 1, 1, id="a task is opened"),
        pytest.param(OPEN, STOPPED, 1, 1, id="it is closed"),
        pytest.param(OPEN, {**STOPPED, **WATCHED}, 1, 1, id="it is closed and still watched"),
        pytest.param(OPEN, {**OPEN, "open_since": {"N": "2"}}, 2, 1, id="it is opened again, with another key"),
        pytest.param(OPEN, {**OPEN, "business_id": {"S": "biz"}}, 1, 0, id="an attribute of one index changes"),
        pytest.param(OPEN, OPEN, 0, 0, id="nothing changes"),
        pytest.param(STOPPED, {**STOPPED, "outcome": {"S": "x"}}, 0, 0, id="it is in neither index"),
    ],
)
def test_index_writes_are_counted_as_dynamodb_charges_them(
    indexes: dict[str, Index], before: Item, after: Item, open_tasks: int, watched_tasks: int
) -> None:
    writes = {name: index.writes(before, after) for name, index in indexes.items()}
    assert writes == {"OpenTasks": open_tasks, "WatchedTasks": watched_tasks}


def test_an_item_has_the_bytes_of_its_names_and_values() -> None:
    assert size_of({"room": {"S": "音"}, "open_since": {"N": "1795327920123"}}) == 4 + 3 + 10 + 8
