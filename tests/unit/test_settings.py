"""The settings of the stop function, and those that it shares with others, are checked at start-up."""

import pytest

from segments.settings import SettingsError
from stop_segment.settings import Settings, read_settings
from tests.environments import STOP_SETTINGS
from tests.transformed import PARAMETERS, PLACES, Stack


def settings(**changes: str) -> Settings:
    return read_settings(STOP_SETTINGS | changes)


def test_every_setting_is_read() -> None:
    assert settings() == Settings(
        event_queue_url="https://sqs.example/events",
        dead_letter_queue_url="https://sqs.example/letters",
        segment_table_name="segments",
        rtc_endpoint="https://rtc.volcengineapi.com",
        rtc_region="cn-north-1",
        rtc_version="2020-12-01",
        rtc_credentials_secret_arn="arn:aws:secretsmanager:us-east-1:111122223333:secret:rtc",
        rtc_connect_timeout_seconds=2,
        rtc_read_timeout_seconds=5,
        requests_per_second=30,
        queries_per_second=8,
        max_receive_count=6,
        duplicate_window_ms=5_000,
        stale_after_ms=30_000,
        give_up_after_ms=3_600_000,
        failed_stop_queue_url="",
        answer_queue_url="",
        observes=False,
        sweep_every_ms=300_000,
        record_retention_seconds=604_800,
    )


@pytest.mark.parametrize(
    ("platform", "endpoint", "region", "version"),
    [
        ("volcengine", "https://rtc.volcengineapi.com", "cn-north-1", "2020-12-01"),
        ("volcengine-ap-singapore", "https://open-ap-singapore-1.volcengineapi.com", "ap-singapore-1", "2020-12-01"),
        ("byteplus", "https://open.byteplusapi.com", "ap-singapore-1", "2022-06-01"),
    ],
)
def test_a_platform_has_its_endpoint_region_and_version(
    platform: str, endpoint: str, region: str, version: str
) -> None:
    read = settings(RTC_PLATFORM=platform)
    assert (read.rtc_endpoint, read.rtc_region, read.rtc_version) == (endpoint, region, version)


def test_an_endpoint_replaces_that_of_the_platform() -> None:
    read = settings(RTC_ENDPOINT="https://rtc.example:8443")
    assert (read.rtc_endpoint, read.rtc_region) == ("https://rtc.example:8443", "cn-north-1")


@pytest.mark.parametrize("name", sorted(STOP_SETTINGS.keys() - {"RTC_ENDPOINT"}))
def test_a_missing_or_empty_setting_is_named(name: str) -> None:
    absent = {key: value for key, value in STOP_SETTINGS.items() if key != name}
    for environment in (absent, STOP_SETTINGS | {name: ""}):
        with pytest.raises(SettingsError, match=rf"^the environment variable {name} is missing or empty: set it$"):
            read_settings(environment)


@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("RTC_CONNECT_TIMEOUT_SECONDS", 1),
        ("RTC_READ_TIMEOUT_SECONDS", 1),
        ("RTC_QPS_LIMIT", 1),
        ("MAX_CONCURRENCY", 2),
        ("MAX_RECEIVE_COUNT", 1),
        ("DUPLICATE_WINDOW_SECONDS", 0),
        ("STALE_AFTER_SECONDS", 1),
        ("RECORD_RETENTION_DAYS", 2),
        ("GIVE_UP_AFTER_MINUTES", 0),
        ("SWEEP_MINUTES", 0),
    ],
)
@pytest.mark.parametrize(
    "bad", ["below", "-1", "five", " 5", "5\n", "0x5", "1_000", "\u0665", "²", "nan", "inf", "1e999"]
)
def test_an_invalid_number_is_named(name: str, least: int, bad: str) -> None:
    value = str(least - 1) if bad == "below" else bad
    with pytest.raises(SettingsError, match=rf"^{name} must be a number of at least {least}$"):
        settings(**{name: value})


# CloudFormation's page on parameters: a Number is an integer or a float, and becomes a text when it is used.
@pytest.mark.parametrize(
    ("name", "value", "field", "expected"),
    [
        ("GIVE_UP_AFTER_MINUTES", "0.5", "give_up_after_ms", 30_000),
        ("GIVE_UP_AFTER_MINUTES", "1e-9", "give_up_after_ms", 1),
        ("GIVE_UP_AFTER_MINUTES", "0.0", "give_up_after_ms", 0),
        ("DUPLICATE_WINDOW_SECONDS", ".25", "duplicate_window_ms", 250),
        ("SWEEP_MINUTES", "+5.", "sweep_every_ms", 300_000),
        ("RTC_QPS_LIMIT", "150.9", "requests_per_second", 30),
    ],
)
def test_a_fraction_is_accepted(name: str, value: str, field: str, expected: int) -> None:
    assert getattr(settings(**{name: value}), field) == expected


def test_the_minimum_of_a_setting_is_accepted() -> None:
    read = settings(DUPLICATE_WINDOW_SECONDS="0", STALE_AFTER_SECONDS="1", MAX_RECEIVE_COUNT="1", MAX_CONCURRENCY="2")
    assert (read.duplicate_window_ms, read.stale_after_ms, read.max_receive_count) == (0, 1_000, 1)


@pytest.mark.parametrize("platform", ["Volcengine", "aws", "volcengine "])
def test_an_unknown_platform_is_named_with_the_known_ones(platform: str) -> None:
    with pytest.raises(
        SettingsError, match=r"^RTC_PLATFORM must be one of volcengine, volcengine-ap-singapore, byteplus$"
    ):
        settings(RTC_PLATFORM=platform)


@pytest.mark.parametrize(
    ("limit", "functions", "requests_per_second", "queries_per_second"),
    [("150", "5", 30, 8), ("150", "40", 3, 1), ("100", "7", 14, 5), ("5", "5", 1, 8), ("2", "2", 1, 20)],
)
def test_functions_share_the_limits(
    limit: str, functions: str, requests_per_second: int, queries_per_second: int
) -> None:
    read = settings(RTC_QPS_LIMIT=limit, MAX_CONCURRENCY=functions)
    assert (read.requests_per_second, read.queries_per_second) == (requests_per_second, queries_per_second)
    assert read.requests_per_second * int(functions) <= int(limit)
    assert read.queries_per_second * int(functions) <= 40


@pytest.mark.parametrize(("limit", "functions"), [("4", "5"), ("1", "2"), ("150", "41"), ("1000", "1000")])
def test_a_limit_of_less_than_one_request_per_function_is_refused(limit: str, functions: str) -> None:
    with pytest.raises(SettingsError, match=r"^MAX_CONCURRENCY must be at most RTC_QPS_LIMIT and at most 40"):
        settings(RTC_QPS_LIMIT=limit, MAX_CONCURRENCY=functions)


class TestEndpoint:
    @pytest.mark.parametrize(
        ("url", "endpoint"),
        [
            ("https://open.volcengineapi.com/", "https://open.volcengineapi.com"),
            ("https://10.0.0.1:8443", "https://10.0.0.1:8443"),
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
            ("http://LOCALHOST:80/", "http://LOCALHOST:80"),
            ("http://[::1]:8080", "http://[::1]:8080"),
        ],
    )
    def test_https_may_go_anywhere_and_plain_http_to_the_loopback(self, url: str, endpoint: str) -> None:
        assert settings(RTC_ENDPOINT=url).rtc_endpoint == endpoint

    @pytest.mark.parametrize(
        "url",
        [
            "http://rtc.volcengineapi.com",
            "http://127.0.0.1.example.com",
            "http://127.0.0.1@example.com",
            "http://0.0.0.0",
        ],
    )
    def test_plain_http_goes_nowhere_else(self, url: str) -> None:
        with pytest.raises(SettingsError, match=r"^RTC_ENDPOINT must be https"):
            settings(RTC_ENDPOINT=url)

    @pytest.mark.parametrize(
        "url",
        [
            "rtc.volcengineapi.com",
            "https://",
            "https://:443",
            "https://example.com/rtc",
            "https://example.com?Action=x",
            "https://example.com:port",
            "https://example.com:99999",
            "https://[::1",
            "ftp://example.com",
        ],
    )
    def test_a_url_that_is_not_only_a_host_is_refused(self, url: str) -> None:
        with pytest.raises(SettingsError, match=r"^RTC_ENDPOINT must be a URL"):
            settings(RTC_ENDPOINT=url)


def test_the_mode_is_stop_or_observe() -> None:
    assert settings(MODE="observe").observes
    with pytest.raises(SettingsError, match="MODE must be one of stop, observe"):
        settings(MODE="watch")


def test_the_settings_in_the_tests_are_the_defaults_of_the_template() -> None:
    defaults = {name: str(parameter.get("Default", "")) for name, parameter in PARAMETERS.items()}
    function = Stack(defaults, PLACES[0]).properties("StopSegmentFunction")
    assert function
    variables = function["Environment"]["Variables"]
    created = {name for name, value in variables.items() if "<" in str(value)}  # such as the queues' URLs
    assert {name: str(variables[name]) for name in STOP_SETTINGS.keys() - created} == {
        name: value for name, value in STOP_SETTINGS.items() if name not in created
    }
