"""Function environments as Lambda makes them."""

import importlib
import sys
from collections.abc import Mapping
from types import ModuleType

import pytest

# What template.yaml sets for the stop function where nobody gives a parameter.
STOP_SETTINGS = {
    "EVENT_QUEUE_URL": "https://sqs.example/events",
    "DEAD_LETTER_QUEUE_URL": "https://sqs.example/letters",
    "SEGMENT_TABLE_NAME": "segments",
    "RTC_PLATFORM": "volcengine",
    "RTC_API_VERSION": "",
    "RTC_ENDPOINT": "",
    "RTC_CREDENTIALS_SECRET_ARN": "arn:aws:secretsmanager:us-east-1:111122223333:secret:rtc",
    "RTC_CONNECT_TIMEOUT_SECONDS": "2",
    "RTC_READ_TIMEOUT_SECONDS": "5",
    "RTC_QPS_LIMIT": "150",
    "MAX_CONCURRENCY": "5",
    "MAX_RECEIVE_COUNT": "6",
    "DUPLICATE_WINDOW_SECONDS": "5",
    "STALE_AFTER_SECONDS": "300",
    "RECORD_RETENTION_DAYS": "7",
}


def import_handler(package: str, also: tuple[str, ...], variables: Mapping[str, str]) -> ModuleType:
    """Import a function's handler as if for the first time, with these environment variables.

    `also` names the other modules that read them when they are imported; the rest may be shared with other tests.
    """
    untraced = {"POWERTOOLS_TRACE_DISABLED": "1"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (untraced | dict(variables)).items():
            patch.setenv(name, value)
        for module in ("handler", *also):
            patch.delitem(sys.modules, f"{package}.{module}", raising=False)
        return importlib.import_module(f"{package}.handler")
