"""The callback's signature, against another computation of it and one that was made by hand with sha256sum."""

import hashlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receive_callback.signature import MalformedCallback, read_signed, sign

KEY = "callback-key"
SIGNED = ["EventType", "EventData", "EventTime", "EventId", "AppId", "Version", "Nonce"]
CALLBACK = {
    "EventType": "RoomDestroy",
    "EventData": '{"RoomId":"room-1"}',
    "EventTime": "2026-11-22T06:12:00Z",
    "EventId": "evt-1",
    "AppId": "661e",
    "Version": "2020-12-01",
    "Nonce": "4321",
}
# printf %s '2020-12-01' '2026-11-22T06:12:00Z' '4321' '661e' 'RoomDestroy' 'callback-key' 'evt-1' \
#   '{"RoomId":"room-1"}' | sha256sum
ABSENT = object()
BY_HAND = "a4df8f6c619eab2c53077f90356c20456c20416999a0672940fb3b5ed0d9078c"
TEXT = st.text(max_size=12) | st.text("aé\uffff😀", max_size=4)


def expected(strings: list[str]) -> str:
    """Take the smallest string, byte by byte, until no string is left; join them; hash."""
    rest = [string.encode() for string in strings]
    joined = b""
    while rest:
        least = min(rest, key=list)
        rest.remove(least)
        joined += least
    return hashlib.sha256(joined).hexdigest()


def is_signed(callback: dict[str, Any], keys: list[str]) -> bool:
    return read_signed(callback, lambda: keys) is not None


@given(st.lists(TEXT, min_size=7, max_size=7), TEXT)
def test_any_callback_is_signed_as_the_documents_tell(values: list[str], key: str) -> None:
    callback = dict(zip(SIGNED, values, strict=True))
    assert sign(callback, key) == expected([*values, key])
    assert is_signed(callback | {"Signature": expected([*values, key])}, [key])


def test_strings_are_sorted_by_bytes() -> None:
    # In UTF-16, as some languages sort, the emoji would come before U+FFFF; with a locale, é before z.
    callback = dict(zip(SIGNED, ["\uffff", "😀", "z", "é", "Z", "", "a"], strict=True))
    assert sign(callback, "key") == hashlib.sha256("Zakeyzé\uffff😀".encode()).hexdigest()


FORMS = {
    "as by hand": {},
    "with keys that nobody knows": {"BusinessId": "biz-1", "Extra": [1, None]},
    "as BytePlus spells the nonce": {"Nonce": ABSENT, "Noce": "4321"},
    "with both nonces, the first one signed": {"Noce": "0000"},
    "with both nonces, the second one signed": {"Nonce": "0000", "Noce": "4321"},
    "with both nonces, the first one empty": {"Nonce": "", "Noce": "4321"},
    "with both nonces, the second one empty": {"Noce": ""},
    "with both nonces, the first one null": {"Nonce": None, "Noce": "4321"},
    "with both nonces, the second one a number": {"Noce": 4321},
}


@pytest.mark.parametrize("changes", FORMS.values(), ids=FORMS)
def test_each_form_of_a_signed_callback_is_taken_and_read(changes: dict[str, Any]) -> None:
    callback = {name: value for name, value in (CALLBACK | changes).items() if value is not ABSENT}
    assert read_signed(callback | {"Signature": BY_HAND}, lambda: [KEY]) == tuple(CALLBACK.values())


@pytest.mark.parametrize("keys", [[KEY], [KEY, "old"], ["new", KEY]])
def test_any_of_the_keys_will_do(keys: list[str]) -> None:
    assert is_signed(CALLBACK | {"Signature": BY_HAND}, keys)


@pytest.mark.parametrize("keys", [[], [""], ["other"], [KEY + " "], [KEY.upper()]])
def test_no_other_key_will_do(keys: list[str]) -> None:
    assert not is_signed(CALLBACK | {"Signature": BY_HAND}, keys)


@pytest.mark.parametrize(
    "signature",
    [
        None,
        "",
        BY_HAND.upper(),
        BY_HAND[:-1],
        BY_HAND + "0",
        " " + BY_HAND,
        BY_HAND.encode().hex(),
        "é" * 64,
        "\ud800",
        int(BY_HAND, 16),
        True,
        [BY_HAND],
        {"Signature": BY_HAND},
    ],
)
def test_anything_else_is_no_signature(signature: object) -> None:
    assert not is_signed(CALLBACK | {"Signature": signature}, [KEY])


@pytest.mark.parametrize("name", SIGNED)
@pytest.mark.parametrize("value", ["absent", None, 4321, 1.5, True, ["x"], {"x": "y"}])
def test_a_signed_value_that_is_no_string_is_malformed(name: str, value: Any) -> None:
    callback = {key: other for key, other in CALLBACK.items() if key != name}
    if value != "absent":
        callback[name] = value
    with pytest.raises(MalformedCallback, match=f"^{name} must be a string$"):
        is_signed(callback | {"Signature": BY_HAND}, [KEY])


@given(st.sampled_from(SIGNED), TEXT)
def test_a_changed_value_breaks_the_signature(name: str, value: str) -> None:
    changed = CALLBACK | {name: value}
    same = expected([*changed.values(), KEY]) == BY_HAND
    assert is_signed(changed | {"Signature": BY_HAND}, [KEY]) is same


def test_the_digest_that_document_69820_shows_is_that_of_an_empty_event_id() -> None:
    # The page lists EventIdVal among the signed values, but its digest was made without it, and with `Noce`.
    values = [f"{name}Val" for name in ("EventType", "EventData", "EventTime", "EventId", "AppID", "Version", "Noce")]
    callback = dict(zip([*SIGNED[:-1], "Noce"], values, strict=True))
    shown = bytes([20, 170, 104, 20, 32, 203, 70, 171, 95, 29, 138, 214, 172, 154, 178, 31, 52, 30, 169, 219]).hex()
    assert sign(callback | {"EventId": ""}, "SecretKeyVal").startswith(shown)
    assert not sign(callback, "SecretKeyVal").startswith(shown)


def test_no_key_is_asked_for_a_callback_that_is_malformed() -> None:
    def keys() -> list[str]:
        raise AssertionError

    with pytest.raises(MalformedCallback):
        read_signed(CALLBACK | {"EventId": None}, keys)


def test_half_a_character_neither_signs_nor_raises() -> None:
    assert not is_signed(CALLBACK | {"EventId": "\ud800", "Signature": BY_HAND}, [KEY])
