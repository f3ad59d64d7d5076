"""The signature of an RTC server callback (documents 69820 and 75124 of the API)."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

NAMES = ("EventType", "EventData", "EventTime", "EventId", "AppId", "Version")
_NONCES = ("Nonce", "Noce")  # BytePlus writes the second name


class MalformedCallback(Exception):
    """A value that the signature covers is missing or is not a string. The message names the value."""


def sign(callback: Mapping[str, Any], key: str) -> str:
    """Return the signature that the RTC server gives a callback, in lower-case hex. Raises `MalformedCallback`.

    If the callback has the fields `Nonce` and `Noce`, the first string of the two is signed.
    """
    return _digest((*next(_readings(callback)), key))


def read_signed(callback: Mapping[str, Any], keys: Callable[[], Iterable[str]]) -> tuple[str, ...] | None:
    """Return the values that a callback's signature covers (NAMES, then the nonce), or None if no key fits.

    `keys` returns the callback secret keys, and is called only for a well-formed callback. The time that the check
    takes reveals nothing about the keys. Raises `MalformedCallback`.
    """
    readings, signature = list(_readings(callback)), callback.get("Signature")
    given = signature.encode(errors="surrogatepass") if isinstance(signature, str) else b""
    made = [(values, _digest((*values, key)).encode()) for key in keys() for values in readings]
    # A list, so that all digests are compared.
    return next(iter([values for values, digest in made if hmac.compare_digest(digest, given)]), None)


def _readings(callback: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """Yield the signed values with each nonce: a sender may write `Nonce` and `Noce`, and leave one of them empty."""
    for name in NAMES:
        if not isinstance(callback.get(name), str):
            raise MalformedCallback(f"the callback's {name} must be a string")
    nonces = [nonce for name in _NONCES if isinstance(nonce := callback.get(name), str)]
    if not nonces:
        raise MalformedCallback(f"the callback's {_NONCES[0]} must be a string")
    for nonce in nonces:
        yield (*(callback[name] for name in NAMES), nonce)


def _digest(values: Iterable[str]) -> str:
    # A lone surrogate cannot have been signed, and must not raise.
    strings = sorted(text.encode(errors="surrogatepass") for text in values)
    return hashlib.sha256(b"".join(strings)).hexdigest()
