"""The signature of an RTC server callback (documents 69820 and 75124 of the API)."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Mapping
from typing import Any

_SIGNED = ("EventType", "EventData", "EventTime", "EventId", "AppId", "Version")
_NONCES = ("Nonce", "Noce")  # the second is how BytePlus spells it


class MalformedCallback(Exception):
    """A value that the signature covers is missing or is not a string. The message names it."""


def sign(callback: Mapping[str, Any], key: str) -> str:
    """Return the signature that the RTC server gives a callback, in lower-case hex.

    Parameters
    ----------
    callback
        The callback's JSON object.
    key
        The callback secret key.

    Raises
    ------
    MalformedCallback
        A signed value is missing or is not a string.
    """
    return _digest(signed_values(callback), key)


def signed_values(callback: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what the signature covers, without the key.

    Raises
    ------
    MalformedCallback
        A signed value is missing or is not a string.
    """
    nonce = next((name for name in _NONCES if name in callback), _NONCES[0])
    values = []
    for name in (*_SIGNED, nonce):
        value = callback.get(name)
        if not isinstance(value, str):
            raise MalformedCallback(f"{name} must be a string")
        values.append(value)
    return tuple(values)


def is_signed(signed: tuple[str, ...], signature: object, keys: Iterable[str]) -> bool:
    """Tell whether any of the keys has made a callback's signature, in a time that tells nothing of the keys.

    Parameters
    ----------
    signed
        What the signature must cover: `signed_values`.
    """
    given = signature.encode(errors="surrogatepass") if isinstance(signature, str) else b""
    matches = [hmac.compare_digest(_digest(signed, key).encode(), given) for key in keys]
    return any(matches)


def _digest(values: Iterable[str], key: str) -> str:
    # A lone surrogate cannot have been signed, but must not raise either.
    strings = sorted(text.encode(errors="surrogatepass") for text in (*values, key))
    return hashlib.sha256(b"".join(strings)).hexdigest()
