"""Every answer of the API has exactly one class, which docs/operations.md shows in both languages."""

import itertools
import json
import re
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from segments.api_answers import BECOMES, CODES, Answer, Row, Whose, row_of, whose_status
from segments.errors import CredentialsRefused, Rejected, Retryable, SetupRefused

DOCS = Path(__file__).parents[2] / "docs"
PATTERNS = [pattern for row in CODES for pattern in row.codes.split()]
NUMBERS = [number for row in CODES for number in row.numbers.split()]

statuses = st.integers(100, 599)
codes = st.sampled_from(PATTERNS).flatmap(lambda pattern: st.text().map(lambda rest: pattern.replace("*", rest)))
numbers = st.sampled_from(NUMBERS).flatmap(lambda number: st.sampled_from([number, int(number)]))
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
errors = st.fixed_dictionaries(
    {}, optional={"Code": codes | anything, "CodeN": numbers | anything, "Message": st.text() | anything}
)
metadata = st.fixed_dictionaries({}, optional={"RequestId": st.text() | anything, "Error": errors | anything})
bodies = st.fixed_dictionaries({}, optional={"ResponseMetadata": metadata | anything, "Result": anything})
texts = (bodies | anything).map(json.dumps) | st.text()


@given(status=statuses, text=texts)
@example(status=200, text="[" * 100_000)
@example(status=403, text="")
def test_every_answer_has_one_cause_and_the_error_class_of_that_cause(status: int, text: str) -> None:
    answer = Answer.read(status, text)
    error = answer.failure()
    assert type(error) is BECOMES[answer.row.whose]
    assert error.code
    assert (error.code + error.message + (error.request_id or "")).isprintable()
    assert len(error.message) <= 500
    assert max(len(error.code), len(error.request_id or "")) <= 128


@given(status=statuses, code=codes, number=st.none() | numbers | anything)
def test_a_known_code_decides_over_the_status_and_the_number(status: int, code: str, number: object) -> None:
    error = {"Code": code, "CodeN": number}
    answer = Answer(status, {"ResponseMetadata": {"RequestId": "r-1", "Error": error}})
    found = row_of(answer.error_code)
    assert found
    assert answer.row.whose is found.whose


@given(status=statuses, text=st.text() | anything.map(json.dumps))
def test_no_answer_from_another_server_gives_up_a_message(status: int, text: str) -> None:
    error = Answer.read(status, text).failure()
    assert isinstance(error, Retryable)
    assert not isinstance(error, CredentialsRefused | SetupRefused)


@given(number=numbers, code=st.text().filter(lambda code: not row_of(code)))
def test_the_number_decides_if_the_code_is_unknown(number: object, code: str) -> None:
    answer = Answer(400, {"ResponseMetadata": {"RequestId": "r-1", "Error": {"Code": code, "CodeN": number}}})
    assert answer.row.whose in {row.whose for row in CODES if str(number) in row.numbers.split()}


@pytest.mark.parametrize("pattern", PATTERNS)
def test_no_row_of_codes_hides_a_later_row(pattern: str) -> None:
    found = row_of(pattern)
    assert found
    assert pattern in found.codes.split()


def test_no_number_has_two_rows() -> None:
    assert len(NUMBERS) == len(set(NUMBERS))


def test_only_errors_in_the_application_or_the_message_are_given_up() -> None:
    assert {whose for whose, error in BECOMES.items() if issubclass(error, Rejected)} == {Whose.APP, Whose.MESSAGE}
    assert BECOMES.keys() == set(Whose)


@pytest.mark.parametrize(
    ("row", "word"),
    [
        *[(row, "the key in the secret") for row in CODES if row.whose is Whose.KEY],
        *[(row, "the account") for row in CODES if row.whose is Whose.ACCOUNT],
        *[(row, "RtcEndpoint") for row in CODES if row.whose is Whose.DEPLOYMENT],
    ],
)
def test_the_error_message_names_what_must_be_fixed(row: Row, word: str) -> None:
    code = row.codes.split()[0]
    answer = Answer(403, {"ResponseMetadata": {"Error": {"Code": code, "Message": "So says the server."}}})
    message = answer.failure().message
    assert word in message
    assert ("So says the server." in message) == (row.whose is not Whose.KEY)  # it may quote the signature


@pytest.mark.parametrize("page", ["operations.md", "operations.zh-CN.md"])
def test_the_runbook_has_the_same_table(page: str) -> None:
    documented: dict[str, set[str]] = {}
    for line in (DOCS / page).read_text().splitlines():
        cells = [set(re.findall(r"`([^`]+)`", cell)) for cell in line.split("|")]
        if len(cells) == 6 and cells[1] & set(Whose) and cells[3] & {"rejected", "retried"}:
            (whose,) = cells[1] & set(Whose)
            assert ("rejected" in cells[3]) == issubclass(BECOMES[Whose(whose)], Rejected)
            documented[whose] = cells[2]
    assert documented.keys() == set(Whose)
    for row in CODES:
        assert set(row.codes.split()) <= documented[row.whose]
    for status, from_api in itertools.product(range(400, 600), (True, False)):
        names = {f"Http{status}", f"Http{status // 100}xx"}
        assert names & documented[whose_status(status, from_api=from_api)], (status, from_api)
    named = {name for name in set().union(*documented.values()) if not name.startswith("Http")}
    assert named == {*PATTERNS, "UnreadableAnswer"}
