import pytest

from segments import errors


@pytest.mark.parametrize("kind", [errors.StopError, errors.InvalidMessage, errors.Rejected, errors.Retryable])
def test_an_error_shows_all_that_it_was_told(kind: type[errors.StopError]) -> None:
    error = kind("Throttled", "the API is busy", "20261122REQUEST")
    assert (error.code, error.message, error.request_id) == ("Throttled", "the API is busy", "20261122REQUEST")
    assert str(error) == "Throttled: the API is busy"
    assert repr(error) == f"{kind.__name__}('Throttled', 'the API is busy', '20261122REQUEST')"


def test_an_error_without_an_answer_has_no_request_id() -> None:
    assert errors.StopError("Timeout", "too late").request_id is None
