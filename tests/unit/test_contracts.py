"""The schemas of contracts/. No change of a schema breaks senders or readers of an earlier version."""

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from release.contracts import CONTRACTS, digest
from segments.errors import InvalidMessage
from segments.events import Event, parse_event
from tests.contracts import EARLIER_VERSIONS, breaks, closed, digests, path_of, schema, variants

ROOT = Path(__file__).parents[2]
NAMES = sorted(path.name.removesuffix(".schema.json") for path in CONTRACTS.glob("*.schema.json"))
OUT = [name for name in NAMES if name != "event"]
SAMPLES = {path.name: json.loads(path.read_text()) for path in sorted(CONTRACTS.glob("samples/*.json"))}
SENT_MS = 1_795_328_000_000


def sample(name: str) -> Any:
    return SAMPLES[f"{name}.json"]


def earlier(names: list[str]) -> list[tuple[str, str]]:
    """List the contracts of these names that earlier versions had, each with its version."""
    return [(version, name) for version in EARLIER_VERSIONS for name in names if name in digests(version)]


NARROWED = {
    (refused["version"], refused["what"]): refused for refused in json.loads((CONTRACTS / "narrowed.json").read_text())
}
MESSAGES = {
    (version, message["what"]): message
    for version in EARLIER_VERSIONS
    for message in json.loads((CONTRACTS / "earlier" / version / "messages.json").read_text())
}
KEPT = [pytest.param(message, id=": ".join(key)) for key, message in MESSAGES.items() if key not in NARROWED]


def meaning(event: Event | None) -> dict[str, Any] | None:
    if event is None:
        return None
    return {
        "type": event.type.value,
        "app_id": event.room.app_id,
        "room_id": event.room.room_id,
        "task_ids": list(event.task_ids),
        "time_ms": event.time_ms,
        "event_id": event.event_id,
        "business_id": event.business_id,
    }


@pytest.mark.parametrize("name", NAMES)
def test_a_schema_names_its_draft_and_itself(name: str) -> None:
    contract = schema(name)
    assert contract["$schema"] == "http://json-schema.org/draft-07/schema#"
    assert contract["$id"] == f"urn:rtc-segment-stopper:{name}"
    jsonschema.Draft7Validator.check_schema(contract)


@pytest.mark.parametrize("name", NAMES)
def test_a_sample_has_every_field_of_its_contract(name: str) -> None:
    assert breaks(sample(name), closed(schema(name))) == []
    assert set(schema(name)["properties"]) == set(sample(name))


def test_every_released_version_has_its_earlier_contracts() -> None:
    released = re.findall(r"^## \[([0-9.]+)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert set(EARLIER_VERSIONS) == set(released)


@pytest.mark.parametrize("version", EARLIER_VERSIONS)
def test_the_contracts_of_an_earlier_version_are_unchanged(version: str) -> None:
    for name, kept in digests(version).items():
        assert digest(path_of(name, version)) == kept, name


@pytest.mark.parametrize("message", KEPT)
def test_a_message_to_an_earlier_version_keeps_its_meaning(message: dict[str, Any]) -> None:
    means = meaning(parse_event(message["body"], SENT_MS, message.get("redriven")))
    # A message without a time has that of its arrival, until a later version finds a better one in its envelope.
    if means and message["means"]["time_ms"] == SENT_MS:
        means["time_ms"] = max(means["time_ms"], SENT_MS)
    assert means == message["means"]


@pytest.mark.parametrize("refused", NARROWED.values(), ids=lambda refused: refused["what"])
def test_a_message_that_is_no_longer_accepted_has_its_documented_error(refused: dict[str, Any]) -> None:
    message = MESSAGES[refused["version"], refused["what"]]
    with pytest.raises(InvalidMessage) as raised:
        parse_event(message["body"], SENT_MS, message.get("redriven"))
    assert str(raised.value) == refused["error"]


@pytest.mark.parametrize(("version", "name"), earlier(["event"]))
def test_every_event_of_an_earlier_contract_is_still_accepted(version: str, name: str) -> None:
    for event in variants(sample(name), schema(name, version)):
        assert breaks(event, schema(name)) == [], event
        assert parse_event(json.dumps(event), SENT_MS), event


@pytest.mark.parametrize(("version", "name"), earlier(OUT))
def test_readers_of_an_earlier_contract_can_read_every_output(version: str, name: str) -> None:
    for value in variants(sample(name), schema(name)):
        assert breaks(value, schema(name, version)) == [], value


def test_the_examples_of_the_workflow_page_are_valid() -> None:
    page = (ROOT / "docs" / "workflows.md").read_text()
    event, output = (json.loads(text) for text in re.findall(r"^```json\n(.*?)^```", page, re.MULTILINE | re.DOTALL))
    assert parse_event(json.dumps({"EventType": "RoomEnded"} | event), SENT_MS)
    assert breaks(output, closed(schema("workflow-output"))) == []
