"""The callback's signature, against another computation of it and one that was made by hand with sha256sum."""

import hashlib
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receive_callback import signature as of_callbacks
from receive_callback.signature import MalformedCallback, sign, signed_values

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
BY_HAND = "a4df8f6c619eab2c53077f90356c20456c20416999a0672940fb3b5ed0d9078c"
TEXT = st.text(max_size=12) | st.text("aé\uffff😀", max_size=4)


def expected(strings: list[str]) -> str:
    """Take the least string, byte by byte, until none is left; join them; hash."""
    rest = [string.encode() for string in strings]
    joined = b""
    while rest:
        least = min(rest, key=list)
        rest.remove(least)
        joined += least
    return hashlib.sha256(joined).hexdigest()


def is_signed(callback: dict[str, Any], keys: list[str]) -> bool:
    return of_callbacks.is_signed(signed_values(callback), callback.get("Signature"), keys)


def test_a_callback_is_signed_as_by_hand() -> None:
    assert sign(CALLBACK, KEY) == BY_HAND
    assert is_signed(CALLBACK | {"Signature": BY_HAND}, [KEY])


@given(st.lists(TEXT, min_size=7, max_size=7), TEXT)
def test_any_callback_is_signed_as_the_documents_tell(values: list[str], key: str) -> None:
    callback = dict(zip(SIGNED, values, strict=True))
    assert sign(callback, key) == expected([*values, key])
    assert is_signed(callback | {"Signature": expected([*values, key])}, [key])


def test_strings_are_sorted_by_bytes() -> None:
    # In UTF-16, as some languages sort, the emoji would come before U+FFFF; with a locale, é before z.
    callback = dict(zip(SIGNED, ["\uffff", "😀", "z", "é", "Z", "", "a"], strict=True))
    assert sign(callback, "key") == hashlib.sha256("Zakeyzé\uffff😀".encode()).hexdigest()


def test_the_order_of_the_keys_does_not_matter() -> None:
    names = list(CALLBACK)
    random.Random(7).shuffle(names)
    assert sign({name: CALLBACK[name] for name in names}, KEY) == BY_HAND


def test_other_keys_are_not_covered() -> None:
    assert is_signed(CALLBACK | {"Signature": BY_HAND, "BusinessId": "biz-1", "Extra": [1, None]}, [KEY])


def test_byteplus_spells_the_nonce_in_its_own_way() -> None:
    spelled = {name: value for name, value in CALLBACK.items() if name != "Nonce"} | {"Noce": "4321"}
    assert is_signed(spelled | {"Signature": BY_HAND}, [KEY])


def test_where_both_spellings_are_there_the_first_one_is_signed() -> None:
    assert is_signed(CALLBACK | {"Noce": "0000", "Signature": BY_HAND}, [KEY])
    assert not is_signed(CALLBACK | {"Nonce": "0000", "Noce": "4321", "Signature": BY_HAND}, [KEY])


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


def test_a_missing_signature_is_none() -> None:
    assert not is_signed(CALLBACK, [KEY])


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


def test_half_a_character_neither_signs_nor_raises() -> None:
    assert not is_signed(CALLBACK | {"EventId": "\ud800", "Signature": BY_HAND}, [KEY])
