"""The pages agree with the template, the Makefile, the samples and the schema, and with their translations."""

import importlib.util
import inspect
import json
import re
import subprocess
import tomllib
from collections import Counter
from pathlib import Path
from textwrap import dedent
from typing import Any

import jsonschema
import pytest
from cfnlint.decode import cfn_yaml

from segments.envelopes import unwrap
from segments.errors import InvalidMessage
from segments.events import parse_event
from stop_segment.arrivals import Arrival, arrive
from stop_segment.failures import End
from tests.contracts import assert_kept, breaks, schema
from tests.mutants.__main__ import PACKAGES
from tests.mutants.survivors import Mutant, explained

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PARAMETERS_PAGE = (ROOT / "docs" / "parameters.md").read_text()
EVENTS_PAGE = (ROOT / "docs" / "events.md").read_text()
FOLDERS = ("docs", "benchmarks", "contracts", "deploy", "examples", "tests/explorer", "tests/mutants")
PAGES = sorted([*ROOT.glob("*.md"), *(page for folder in FOLDERS for page in ROOT.glob(f"{folder}/**/*.md"))])
PAGES_IN_TWO_LANGUAGES = [page for page in PAGES if page.with_suffix(".zh-CN.md").exists()]
TEMPLATE = cfn_yaml.load(str(ROOT / "template.yaml"))
SCHEMA = schema("event")
TESTS = {name for path in ROOT.glob("tests/**/*.py") for name in re.findall(r"def (test_\w+)\(", path.read_text())}

SAMPLES = {path.name: json.loads(path.read_text()) for path in sorted(ROOT.glob("events/*.json"))}
BAD_SAMPLES = [name for name in SAMPLES if name.startswith("bad-") and name != "bad-app.json"]
GOOD_SAMPLES = [name for name in SAMPLES if name not in BAD_SAMPLES]
IGNORED_SAMPLES = ["rtc-callback-other.json"]


def table_rows(text: str) -> dict[str, list[str]]:
    """Return the cells of every table row that begins with a name in code font, by that name."""
    rows = re.findall(r"^\| `([^`]+)`(.*)\|$", text, re.MULTILINE)
    return {name: [cell.strip() for cell in rest.split("|")[1:]] for name, rest in rows}


def section(text: str, heading: str, level: int = 2) -> str:
    """Return the text between a heading and the next one of its level or above."""
    end = rf"^#{{2,{level}}} "
    found = re.search(rf"^{'#' * level} {re.escape(heading)}\n(.*?)(?={end}|\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, f"there is no section {heading!r}"
    return found[1]


def blocks(text: str, language: str) -> list[str]:
    found = re.finditer(rf"^( *)```{language}\n(.*?)^\1```$", text, re.MULTILINE | re.DOTALL)
    return [dedent(match[2]) for match in found]


def anchors(page: Path) -> list[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]


def sample(name: str) -> Arrival:
    (record,) = SAMPLES[name]["Records"]
    return arrive(record)


def destinations(page: Path, text: str) -> Counter[tuple[str, int]]:
    """Count the targets of a text's links: the page, in either language, and the position of the heading."""
    found: Counter[tuple[str, int]] = Counter()
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, anchor = link.partition("#")
        linked = page.parent / path if path else page
        place = anchors(linked).index(anchor) if anchor else -1
        found[str(linked).replace(".zh-CN.md", ".md"), place] += 1
    return found


def form(page: Path) -> dict[str, Any]:
    """Return the parts that a page and its translation have in common."""
    text = page.read_text()
    prose = re.sub(r"^( *)```.*?^\1```$", "", text, flags=re.MULTILINE | re.DOTALL)
    rows = re.findall(r"^(\| *(`[^`]+`)?.*)$", prose, re.MULTILINE)
    return {
        "headings": [len(marks) for marks in re.findall(r"^(#+) ", text, re.MULTILINE)],
        "commands": [re.sub(r" *#.*|<[^>]+>", "", block) for block in blocks(text, "sh")],
        "programs": blocks(text, "python"),
        "outputs": blocks(text, "text"),
        "documents": blocks(text, "json"),
        "queries": blocks(text, "insights"),
        "arrows": [block.count("-->") for block in blocks(text, "mermaid")],
        "rows": [(name, destinations(page, row)) for row, name in rows],
        "links": destinations(page, prose),
        "names": {" ".join(name.split()) for name in re.findall(r"`([^`]+)`", prose)},
    }


@pytest.mark.parametrize("page", PAGES_IN_TWO_LANGUAGES, ids=lambda page: page.name)
def test_a_translated_page_has_the_same_parts_as_the_english_one(page: Path) -> None:
    expected, found = form(page), form(page.with_suffix(".zh-CN.md"))
    for part, value in expected.items():
        assert found[part] == value, part


@pytest.mark.parametrize("page", PAGES_IN_TWO_LANGUAGES, ids=lambda page: page.name)
def test_a_chinese_page_links_to_chinese_pages_and_marks_the_english_ones(page: Path) -> None:
    chinese = page.with_suffix(".zh-CN.md")
    for label, target, behind in re.findall(r"\[([^\]]*)\]\(([^)\s#]+\.md)[^)]*\)(.{0,3})", chinese.read_text()):
        if label != "English" and not target.endswith(".zh-CN.md"):
            assert not (page.parent / target).with_suffix(".zh-CN.md").exists(), target
            assert behind[1:] == "英文", target


@pytest.mark.parametrize("name", ["README.md", "README.zh-CN.md"])
def test_readme_has_at_most_150_lines(name: str) -> None:
    assert len((ROOT / name).read_text().splitlines()) <= 150


def test_the_parameters_page_lists_every_parameter_with_its_default_and_its_values() -> None:
    rows = table_rows(section(PARAMETERS_PAGE, "Parameters"))
    assert set(rows) == set(TEMPLATE["Parameters"])
    for name, parameter in TEMPLATE["Parameters"].items():
        default, values, *_ = rows[name]
        assert default == (f"`{parameter['Default']}`" if parameter["Default"] != "" else "empty")
        if "AllowedValues" in parameter:
            assert values == ", ".join(f"`{value}`" for value in parameter["AllowedValues"])
        elif parameter["Type"] == "Number":
            assert values == f"{parameter['MinValue']:,} to {parameter['MaxValue']:,}"
        else:
            assert values in ("a name", "a date", "an id", "an ARN", "an https URL")


def test_the_parameters_page_lists_every_output_and_no_other() -> None:
    assert set(TEMPLATE["Outputs"]) == set(table_rows(section(PARAMETERS_PAGE, "Outputs")))


def test_the_security_page_lists_the_permissions_of_every_role() -> None:
    roles = {name for name, resource in TEMPLATE["Resources"].items() if resource["Type"] == "AWS::IAM::Role"}
    permissions = section((ROOT / "docs" / "security.md").read_text(), "Permissions")
    assert {name for name in table_rows(permissions) if name.endswith("Role")} == roles


def test_the_contract_lists_every_error_kind() -> None:
    kinds = {end.value for end in End if end.is_dead_letter}
    assert kinds <= set(table_rows(section(EVENTS_PAGE, "Dead letters")))


def test_the_contributing_guide_lists_every_make_command_and_no_other() -> None:
    commands = set(re.findall(r"^([a-z-]+):.*(?:##|#:) ", (ROOT / "Makefile").read_text(), re.MULTILINE))
    rows = table_rows(section((ROOT / "CONTRIBUTING.md").read_text(), "Set up"))
    assert {name.removeprefix("make ") for name in rows} == commands


def test_the_metadata_for_the_application_repository_agrees_with_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    metadata = TEMPLATE["Metadata"]["AWS::ServerlessRepo::Application"]
    expected = {"Name": project["name"], "SemanticVersion": project["version"], "SpdxLicenseId": project["license"]}
    assert {name: metadata[name] for name in expected} == expected
    assert TEMPLATE["Outputs"]["Version"]["Value"] == project["version"]
    assert f"--semantic-version {project['version']} " in (ROOT / "CONTRIBUTING.md").read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_make_command_that_a_page_names_exists(page: Path) -> None:
    text = page.read_text()
    code = "\n".join([*re.findall(r"`([^`\n]+)`", text), *blocks(text, "sh")])
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"^make ([a-z-]+)", code, re.MULTILINE)) <= targets


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_has_its_target(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", page.read_text()):
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), target
        assert not anchor or anchor in anchors(linked), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_test_that_a_page_names_exists(page: Path) -> None:
    assert set(re.findall(r"`(test_\w+)`", page.read_text())) <= TESTS


@pytest.mark.parametrize("mutant", sorted(explained()), ids=lambda mutant: mutant.place)
def test_every_explained_mutant_changes_code_that_exists(mutant: Mutant) -> None:
    module, *names = mutant.place.split(".")
    package = next(package for package in PACKAGES if importlib.util.find_spec(f"{package}.{module}"))
    found: Any = importlib.import_module(f"{package}.{module}")
    for name in names:
        found = getattr(found, name)
    assert mutant.before in " ".join(inspect.getsource(found).split())


BLOCKS_THAT_SET_LAST = [
    pytest.param(block, id=f"{page.stem} {number}")
    for page in PAGES
    for number, block in enumerate(blocks(page.read_text(), "sh"))
    if re.search(r" set .*--yes", block) and not re.match(r"\S+ (-m tools )?set ", block)
]


@pytest.mark.parametrize("block", BLOCKS_THAT_SET_LAST)
def test_a_block_of_commands_changes_no_parameter_after_a_failure(block: str, tmp_path: Path) -> None:
    """Run the block with an `aws` that fails, as it does when a file is missing."""
    note = 'case " $*" in *" set "*) touch changed;; esac'
    for name, script in {"aws": "exit 254", "python": note, "stopper": note}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    path = f"{tmp_path}:/usr/bin:/bin"
    subprocess.run(["/bin/sh", "-c", block], cwd=tmp_path, env={"PATH": path}, capture_output=True, check=False)
    assert not (tmp_path / "changed").exists()


def test_the_index_of_docs_links_to_every_page() -> None:
    index = (ROOT / "docs" / "README.md").read_text()
    assert [
        page.name for page in ROOT.glob("docs/*.md") if page.name != "README.md" and f"({page.name})" not in index
    ] == []


def test_the_contract_lists_every_sample_and_no_other() -> None:
    assert set(table_rows(section(EVENTS_PAGE, "Samples"))) == set(SAMPLES)


@pytest.mark.parametrize("key", [("properties", "EventType", "enum"), ("properties",)], ids=["EventType", "fields"])
def test_the_contract_names_every_field_and_event_type_of_the_schema(key: tuple[str, ...]) -> None:
    names: Any = SCHEMA
    for step in key:
        names = names[step]
    assert [name for name in names if f"`{name}`" not in EVENTS_PAGE] == []


@pytest.mark.parametrize("text", blocks(EVENTS_PAGE, "json"))
def test_every_example_of_the_contract_keeps_it(text: str) -> None:
    example = json.loads(text)
    if "Statement" in example:  # the sender's policy, which tests/e2e/test_ways_in.py uses
        return
    if example.get("source") == "rtc-segment-stopper":
        assert_kept(
            example,
            {"SegmentStopped": "segment-stopped", "SegmentStopFailed": "segment-stop-failed"}[example["detail-type"]],
        )
    else:
        assert parse_event(text, sent_ms=0) is not None


@pytest.mark.parametrize(
    ("sample", "event", "now", "writes"),
    [
        ("docs/events.md", r"event = \{(.*?)\}", "datetime.now(UTC).isoformat()", "2026-11-22T06:12:00.123456+00:00"),
        (
            "examples/senders/send.mjs",
            r"const event = \{(.*?)\}",
            "new Date().toISOString()",
            "2026-11-22T06:12:00.123Z",
        ),
        (
            "examples/senders/send.go",
            r"event := map\[string\]string\{(.*?)\}",
            "time.Now().UTC().Format(time.RFC3339Nano)",
            "2026-11-22T06:12:00.1Z",
        ),
        (
            "examples/senders/Sender.java",
            r"var event = Map.of\((.*?)\n +\);",
            "Instant.now().toString()",
            "2026-11-22T06:12:00.123456789Z",
        ),
    ],
)
def test_a_sender_s_sample_sends_an_event_that_keeps_the_schema(sample: str, event: str, now: str, writes: str) -> None:
    found = re.search(event, (ROOT / sample).read_text(), re.DOTALL)
    assert found
    lines = [line.strip().rstrip(",") for line in found[1].strip().splitlines()]
    fields = dict(re.findall(r'^"?(\w+)"?[:,]\s+(.+)$', "\n".join(lines), re.MULTILINE))
    assert len(fields) == len(lines)
    sent = {name: writes if value == now else json.loads(value) for name, value in fields.items()}
    assert set(sent) <= set(SCHEMA["properties"])
    jsonschema.Draft7Validator(SCHEMA).validate(sent)
    assert parse_event(json.dumps(sent), sent_ms=2**53) is not None


@pytest.mark.parametrize("name", GOOD_SAMPLES)
def test_a_good_sample_keeps_the_contract(name: str) -> None:
    arrival = sample(name)
    content = unwrap(arrival.body)
    if name in IGNORED_SAMPLES:
        assert content is None
        assert arrival.content is None
        return
    assert content is not None
    assert breaks(content, SCHEMA) == []
    assert arrival.event


@pytest.mark.parametrize("name", BAD_SAMPLES)
def test_a_bad_sample_breaks_the_contract(name: str) -> None:
    arrival = sample(name)
    assert isinstance(arrival.content, InvalidMessage)
    try:
        content = unwrap(arrival.body)
    except InvalidMessage:
        return
    assert content is not None
    assert breaks(content, SCHEMA) != []
