"""The callback's signature, compared with a second computation of it, and with one made by sha256sum."""

import hashlib
from typing import Any

import pytest
from hypothesis import example, given
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
ABSENT = object()
# printf %s '2020-12-01' '2026-11-22T06:12:00Z' '4321' '661e' 'RoomDestroy' 'callback-key' 'evt-1' \
#   '{"RoomId":"room-1"}' | sha256sum
BY_HAND = "a4df8f6c619eab2c53077f90356c20456c20416999a0672940fb3b5ed0d9078c"
TEXT = st.text(max_size=12) | st.text("aé\uffff😀", max_size=4)


def expected(strings: list[str]) -> str:
    """Compute the signature without the product's code: take the smallest string by bytes until none is left."""
    rest = [string.encode() for string in strings]
    joined = b""
    while rest:
        least = min(rest, key=list)
        rest.remove(least)
        joined += least
    return hashlib.sha256(joined).hexdigest()


def changed(changes: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in (CALLBACK | changes).items() if value is not ABSENT}


def is_signed(callback: dict[str, Any], keys: list[str]) -> bool:
    return read_signed(callback, lambda: keys) is not None


@given(st.lists(TEXT, min_size=7, max_size=7), TEXT)
# In UTF-16, as some languages sort, the emoji would come before U+FFFF; with a locale, é before z.
@example(["\uffff", "😀", "z", "é", "Z", "", "a"], "key")
def test_the_signature_is_the_hash_of_the_strings_sorted_by_bytes(values: list[str], key: str) -> None:
    callback = dict(zip(SIGNED, values, strict=True))
    assert sign(callback, key) == expected([*values, key])
    assert is_signed(callback | {"Signature": expected([*values, key])}, [key])


FORMS = {
    "as it is": {},
    "with unknown keys": {"BusinessId": "biz-1", "Extra": [1, None]},
    "as BytePlus spells the nonce": {"Nonce": ABSENT, "Noce": "4321"},
    "with both nonces, the first one signed": {"Noce": "0000"},
    "with both nonces, the second one signed": {"Nonce": "0000", "Noce": "4321"},
    "with both nonces, the first one empty": {"Nonce": "", "Noce": "4321"},
    "with both nonces, the second one empty": {"Noce": ""},
    "with both nonces, the first one null": {"Nonce": None, "Noce": "4321"},
    "with both nonces, the second one a number": {"Noce": 4321},
}


@pytest.mark.parametrize("changes", FORMS.values(), ids=FORMS)
def test_every_form_of_a_signed_callback_is_accepted_and_read(changes: dict[str, Any]) -> None:
    assert read_signed(changed(changes | {"Signature": BY_HAND}), lambda: [KEY]) == tuple(CALLBACK.values())


@pytest.mark.parametrize("keys", [[KEY, "old"], ["new", KEY]])
def test_a_callback_may_be_signed_with_any_of_the_keys(keys: list[str]) -> None:
    assert is_signed(CALLBACK | {"Signature": BY_HAND}, keys)


@pytest.mark.parametrize("keys", [[], [""], ["other"], [KEY + " "], [KEY.upper()]])
def test_a_callback_that_is_signed_with_another_key_is_refused(keys: list[str]) -> None:
    assert not is_signed(CALLBACK | {"Signature": BY_HAND}, keys)


@pytest.mark.parametrize(
    "signature",
    [None, "", BY_HAND.upper(), BY_HAND[:-1], BY_HAND + "0", "é" * 32, "\ud800", int(BY_HAND, 16), True, [BY_HAND]],
)
def test_a_signature_of_another_form_is_refused(signature: object) -> None:
    assert not is_signed(CALLBACK | {"Signature": signature}, [KEY])


def test_half_of_a_surrogate_pair_is_refused_without_a_crash() -> None:
    assert not is_signed(CALLBACK | {"EventId": "\ud800", "Signature": BY_HAND}, [KEY])


@pytest.mark.parametrize("name", SIGNED)
@pytest.mark.parametrize("value", [ABSENT, None, 4321, 1.5, True, ["x"], {"x": "y"}])
def test_a_signed_value_that_is_not_a_string_is_malformed_and_no_key_is_read(name: str, value: Any) -> None:
    def keys() -> list[str]:
        raise AssertionError

    with pytest.raises(MalformedCallback, match=f"^the callback's {name} must be a string$"):
        read_signed(changed({name: value, "Signature": BY_HAND}), keys)


def test_the_digest_in_document_69820_is_made_without_the_event_id() -> None:
    # The page lists EventIdVal among the signed values, but its digest was made without it, and with `Noce`.
    values = [f"{name}Val" for name in ("EventType", "EventData", "EventTime", "EventId", "AppID", "Version", "Noce")]
    callback = dict(zip([*SIGNED[:-1], "Noce"], values, strict=True))
    shown = bytes([20, 170, 104, 20, 32, 203, 70, 171, 95, 29, 138, 214, 172, 154, 178, 31, 52, 30, 169, 219]).hex()
    assert sign(callback | {"EventId": ""}, "SecretKeyVal").startswith(shown)
    assert not sign(callback, "SecretKeyVal").startswith(shown)
