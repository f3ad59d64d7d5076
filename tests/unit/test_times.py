from datetime import UTC, datetime

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from segments.times import (
    EARLIEST_MS,
    LATEST_MS,
    read_attribute_ms,
    read_callback_ms,
    read_ms,
    read_stored_ms,
    to_rfc3339,
    utc,
)
from tests.contracts import breaks, schema
from tests.examples import examples

T = 1_795_327_920_123
NO_TIME = "the time must be an existing date and time with an offset, in RFC 3339"
NO_ATTRIBUTE = "the time must be Unix ms, or an existing date and time with an offset, in RFC 3339"
EARLY = "the time must not be before 2018, when the RTC service did not exist"
NEVER_SET = ["0001-01-01T00:00:00Z", "0001-01-01T00:00:00+08:00", "1970-01-01T00:00:00Z", "1970-01-21T18:42:07.920Z"]
NO_SUCH_TIMES = [
    "2026-02-29T00:00:00Z",
    "2026-04-31T00:00:00Z",
    "2026-13-01T00:00:00Z",
    "2026-00-01T00:00:00Z",
    "0000-01-01T00:00:00Z",
    "2026-11-22T24:00:00Z",
    "2026-11-22T25:00:00Z",
    "2026-11-22T06:60:00Z",
    "2026-12-31T23:59:60Z",  # the last leap second was before 2018
    "2026-11-22T06:12:61Z",
    "2026-11-22T06:12:00+24:00",
]
OTHER_FORMS = [
    "",
    "2026-11-22T06:12Z",
    "2026-11-22T06:12:00",
    "2026-11-22 06:12:00Z",
    "2026-11-22T06:12:00Z\n",
    " 2026-11-22T06:12:00Z",
    "2026-11-22T06:12:00.Z",
    "2026-11-22T06:12:00,5Z",
    "2026-11-22T06:12:00z",
    "2026-11-22T06:12:00+0800",
    "20261122T061200Z",
    "2026-W47-7T06:12:00Z",
    "\uff12026-11-22T06:12:00Z",
    "2026-11-22T06:12:00+08:00:00",
    "2026-11-22T06:12:00+00:60",
    "2026-11-22T06:12:00." + "1" * 44 + "Z",  # 65 characters
    str(T),
]
TIMES = {
    "2026-11-22T06:12:00Z": T - 123,
    "2026-11-22T06:12:00.1Z": T - 23,
    "2026-11-22T06:12:00.123456789Z": T,
    "2026-11-22T06:12:00." + "1" * 43 + "Z": T - 12,  # 64 characters
    "2026-11-22T14:12:00.123+08:00": T,
    "2026-11-22T00:42:00.123-05:30": T,
    "2026-11-22T06:12:00.123-00:00": T,
    "2024-02-29T00:00:00Z": 1_709_164_800_000,
    "2018-01-01T00:00:00Z": EARLIEST_MS,
    "2017-12-31T16:00:00-08:00": EARLIEST_MS,
    "9999-12-31T23:59:59.999Z": LATEST_MS,
    "9999-12-31T23:59:59-23:59": LATEST_MS,
}
TEXTS = st.text(st.characters(codec=None) | st.sampled_from("0123456789-:.TZ+ "), max_size=40)
DATES = st.builds(
    "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}{}{}".format,
    st.integers(0, 9999),
    *[st.integers(0, most) for most in (13, 32, 25, 61, 61)],
    st.sampled_from(["", ".0", ".123456789", "." + "9" * 70]),
    st.sampled_from(["Z", "+08:00", "-23:59", "+23:59", "+24:00", "+0800", ""]),
)


@pytest.mark.parametrize(("text", "unix_ms"), TIMES.items())
def test_a_time_is_read_with_its_offset_and_cut_to_milliseconds(text: str, unix_ms: int) -> None:
    assert [read_ms(text), read_attribute_ms(text), read_callback_ms(text)] == [unix_ms] * 3


@pytest.mark.parametrize("text", [*NO_SUCH_TIMES, *OTHER_FORMS])
def test_a_text_that_is_not_an_existing_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=NO_TIME):
        read_ms(text)


@pytest.mark.parametrize("text", [*NEVER_SET, "2017-12-31T23:59:59.999Z", "2018-01-01T07:59:59+08:00"])
def test_a_time_before_the_service_existed_is_refused(text: str) -> None:
    for read in (read_ms, read_attribute_ms):
        with pytest.raises(ValueError, match=EARLY):
            read(text)
    assert read_callback_ms(text) is None


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        *((text, EARLY) for text in ("0", "-1000", "1795327920", str(EARLIEST_MS - 1))),
        *((text, NO_ATTRIBUTE) for text in ("", "1" * 16, "1" * 5000, "\u0661", "1.5e3", "NaN", "+5", f"{T}.0")),
    ],
)
def test_an_attribute_without_a_possible_time_is_refused(text: str, rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        read_attribute_ms(text)


@pytest.mark.parametrize(("number", "unix_ms"), [(str(T), T), ("999999999999999", LATEST_MS)])
def test_an_attribute_may_be_in_unix_ms(number: str, unix_ms: int) -> None:
    assert read_attribute_ms(number) == unix_ms


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-22T14:12:00.123+0800",
        "2026-11-22T14:12:00.123+08",
        "2026-11-22T14:12:00.123456789+0800",
        "2026-11-22T 06:12:00.123Z",
        "2026-11-22T 14:12:00.123456789+08:00",
        "2026-11-22 06:12:00.123z",
        "2026-11-22t06:12:00.123 Z",
        " 2026-11-22T06:12:00.123Z\n",
    ],
)
def test_the_time_of_a_callback_may_have_any_form_of_iso_8601(text: str) -> None:
    assert read_callback_ms(text) == T


@pytest.mark.parametrize("bad", [*NO_SUCH_TIMES, "", "2026-11-22T06:12:00", "soon", str(T), T, None, True, [], {}, 1.5])
def test_the_unreadable_time_of_a_callback_is_ignored(bad: object) -> None:
    assert read_callback_ms(bad) is None


@pytest.mark.parametrize("unix_ms", [EARLIEST_MS, T, LATEST_MS])
def test_a_stored_time_is_read(unix_ms: int) -> None:
    assert read_stored_ms(str(unix_ms)) == unix_ms


@pytest.mark.parametrize(
    "number", [str(EARLIEST_MS - 1), str(LATEST_MS + 1), "-62135625600000", "1.5", "1E+125", "9" * 38, None]
)
def test_a_stored_number_that_is_no_possible_time_is_ignored(number: str | None) -> None:
    assert read_stored_ms(number) is None


@settings(max_examples=examples(300))
@given(TEXTS | DATES)
@example("2026-11-22T06:12:00Z")
def test_every_time_that_the_reader_accepts_has_the_form_of_the_contract(text: str) -> None:
    """The contract checks only the form. The reader checks that the time exists and is not too early."""
    event = {"EventType": "RoomEnded", "AppId": "661e", "RoomId": "room-1", "EventTime": text}
    try:
        read_ms(text)
    except ValueError:
        return
    assert breaks(event, schema("event")) == []


@settings(max_examples=examples(300))
@given(TEXTS | DATES | st.integers().map(str))
def test_every_time_that_is_read_can_be_written_and_read_again(text: str) -> None:
    for read in (read_ms, read_attribute_ms, read_callback_ms, read_stored_ms):
        try:
            unix_ms = read(text)
        except ValueError:
            continue
        if unix_ms is not None:
            assert EARLIEST_MS <= unix_ms <= LATEST_MS
            assert read_ms(to_rfc3339(unix_ms)) == read_attribute_ms(str(unix_ms)) == unix_ms


@given(st.integers())
@example(-62_135_683_140_000)
@example(10**30)
def test_every_number_can_be_written_as_a_possible_time(unix_ms: int) -> None:
    assert EARLIEST_MS <= read_ms(to_rfc3339(unix_ms)) <= LATEST_MS


def test_a_time_is_written_in_utc() -> None:
    assert utc(T) == datetime(2026, 11, 22, 6, 12, 0, 123_000, tzinfo=UTC)
    assert to_rfc3339(T) == "2026-11-22T06:12:00.123Z"
    assert to_rfc3339(T - 123) == "2026-11-22T06:12:00.000Z"
