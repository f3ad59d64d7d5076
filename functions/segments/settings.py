"""The settings that several functions share. They are read from the environment and checked once, at start-up."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

_DAY_SECONDS = 86_400
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_PLATFORMS = {  # the endpoint and the region of the RTC API, and its version of StopSegment
    "volcengine": ("https://rtc.volcengineapi.com", "cn-north-1", "2020-12-01"),
    "volcengine-ap-singapore": ("https://open-ap-singapore-1.volcengineapi.com", "ap-singapore-1", "2020-12-01"),
    "byteplus": ("https://open.byteplusapi.com", "ap-singapore-1", "2022-06-01"),
}


class SettingsError(Exception):
    """A setting is missing or invalid. The message names the setting."""


@dataclass(frozen=True)
class SharedSettings:
    """Settings of functions that call the RTC API and use the table. template.yaml describes each parameter."""

    event_queue_url: str
    segment_table_name: str
    record_retention_seconds: int
    sweep_every_ms: int
    rtc_endpoint: str
    rtc_region: str
    rtc_version: str
    rtc_credentials_secret_arn: str
    rtc_connect_timeout_seconds: float
    rtc_read_timeout_seconds: float

    @property
    def call_seconds(self) -> float:
        """The maximum duration of a call of the API."""
        return self.rtc_connect_timeout_seconds + self.rtc_read_timeout_seconds


class Reader:
    """Reads settings from the environment. Every method raises `SettingsError`."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment

    def shared(self) -> dict[str, Any]:
        """Read the fields of `SharedSettings`."""
        endpoint, region, version = _PLATFORMS[self.choice("RTC_PLATFORM", tuple(_PLATFORMS))]
        return {
            "event_queue_url": self.text("EVENT_QUEUE_URL"),
            "segment_table_name": self.text("SEGMENT_TABLE_NAME"),
            "record_retention_seconds": self.amount("RECORD_RETENTION_DAYS", _DAY_SECONDS, least=2),
            "sweep_every_ms": self.amount("SWEEP_MINUTES", 60_000),
            "rtc_endpoint": _checked_endpoint(self._environment.get("RTC_ENDPOINT") or endpoint),
            "rtc_region": region,
            "rtc_version": version,
            "rtc_credentials_secret_arn": self.text("RTC_CREDENTIALS_SECRET_ARN"),
            "rtc_connect_timeout_seconds": self.number("RTC_CONNECT_TIMEOUT_SECONDS", least=1),
            "rtc_read_timeout_seconds": self.number("RTC_READ_TIMEOUT_SECONDS", least=1),
        }

    def text(self, name: str) -> str:
        """Read a text that is not empty."""
        value = self._environment.get(name, "")
        if not value:
            raise SettingsError(f"the environment variable {name} is missing or empty: set it")
        return value

    def choice(self, name: str, choices: Sequence[str]) -> str:
        """Read a word that must be one of `choices`."""
        word = self.text(name)
        if word not in choices:
            raise SettingsError(f"{name} must be one of {', '.join(choices)}")
        return word

    def number(self, name: str, *, least: int = 0) -> int:
        """Read a whole number of at least `least`. CloudFormation accepts fractions, which are rounded down."""
        return int(self._decimal(name, least))

    def amount(self, name: str, unit: int, *, least: int = 0) -> int:
        """Read an amount of at least `least`, such as 0.5 minutes, in a smaller unit. Only the amount 0 becomes 0."""
        value = self._decimal(name, least)
        return max(round(unit * value), int(value > 0))

    def _decimal(self, name: str, least: int) -> float:
        text = self.text(name)
        value = float(text) if _NUMBER.fullmatch(text) else math.nan
        if not least <= value < math.inf:
            raise SettingsError(f"{name} must be a number of at least {least}")
        return value


def _checked_endpoint(url: str) -> str:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host, parts = None, urlsplit("")
    if not host or parts.scheme not in ("https", "http") or parts.path not in ("", "/") or parts.query:
        raise SettingsError("RTC_ENDPOINT must be a URL with a scheme, a host and optionally a port")
    if parts.scheme == "http" and host not in _LOOPBACK:
        raise SettingsError("RTC_ENDPOINT must be https: plain http is allowed only for a loopback address")
    return f"{parts.scheme}://{parts.netloc}"
