"""Errors show their code and message, in a bounded number of bytes."""

import pytest

from segments import errors


@pytest.mark.parametrize("kind", [errors.StopError, errors.InvalidMessage, errors.Rejected, errors.Retryable])
def test_an_error_shows_its_code_message_and_request_id(kind: type[errors.StopError]) -> None:
    error = kind("Throttled", "the API is busy", "20261122REQUEST")
    assert (error.code, error.message, error.request_id) == ("Throttled", "the API is busy", "20261122REQUEST")
    assert str(error) == "Throttled: the API is busy"
    assert repr(error) == f"{kind.__name__}('Throttled', 'the API is busy', '20261122REQUEST')"


@pytest.mark.parametrize(("options", "has_letter"), [({}, False), ({"has_letter": True}, True)])
def test_an_unanswered_message_carries_its_answer_but_does_not_show_it(
    options: dict[str, bool], has_letter: bool
) -> None:
    error = errors.Unanswered("token", **options)
    assert (error.answer, error.has_letter) == ("token", has_letter)
    assert str(error) == "WorkflowNotAnswered: the message was processed, but its workflow could not be notified"


@pytest.mark.parametrize("text", ["x" * 10_000, "\u4e2d" * 10_000, "\U0001f600" * 10_000, "\ud800" * 10_000])
def test_code_message_and_request_id_have_a_maximum_of_bytes(text: str) -> None:
    error = errors.Rejected(text, text, text)
    sizes = [len(part.encode()) for part in (error.code, error.message, error.request_id or "")]
    assert sizes <= [256, 1_500, 256]
    assert all(part in text for part in (error.code, error.message)) or "\ud800" in text
