"""The runbook and the page of metrics agree with the template's alarms and dashboard, and with the code."""

import ast
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from aws_lambda_powertools.metrics import EphemeralMetrics
from cfnlint.decode import cfn_yaml

from segments import telemetry
from segments.errors import CredentialsRefused, InvalidMessage, SetupRefused
from segments.events import Event, EventType, Room
from segments.stop_rules import Outcome
from stop_segment import logs
from stop_segment.arrivals import Arrival
from stop_segment.failures import End, Failure
from tests.unit.test_docs import ROOT, section

PAGE = (ROOT / "docs" / "operations.md").read_text()
METRICS_PAGE = (ROOT / "docs" / "metrics.md").read_text()
CHINESE_PAGE = (ROOT / "docs" / "operations.zh-CN.md").read_text()
TEMPLATE: dict[str, Any] = cfn_yaml.load(str(ROOT / "template.yaml"))
RESOURCES: dict[str, Any] = TEMPLATE["Resources"]
NAMESPACE = "RtcSegmentStopper"
ENDS_SILENTLY = "NewDeadLettersAlarm"  # it ends while the letters stay: DeadLettersAlarm reports when they are gone
RING_WITHOUT_DATA = ("HeartbeatAlarm", "NoSweepAlarm")  # they report that something no longer happens
ALARMS = {name: r["Properties"] for name, r in RESOURCES.items() if r["Type"] == "AWS::CloudWatch::Alarm"}
CONSEQUENCE = r"(Some rooms|Rooms|Room ends|Tasks keep running|Slicing may)\b"
INSTRUCTION = r"(Check|Correct|Find|Fix|Put|Read)\b"


def runbook_of(alarm: str) -> str:
    """Return the heading that an alarm's description refers to."""
    found = re.search(r'\(docs/operations\.md, "([^"]+)"\)\.$', ALARMS[alarm]["AlarmDescription"])
    assert found, f"the description of {alarm} does not end in its section"
    return found[1]


@pytest.mark.parametrize("alarm", ALARMS)
def test_an_alarm_names_the_consequence_first_and_says_what_to_do(alarm: str) -> None:
    text = ALARMS[alarm]["AlarmDescription"].partition(' (docs/operations.md, "')[0]
    assert re.match(CONSEQUENCE, text)
    assert any(re.match(INSTRUCTION, sentence, re.IGNORECASE) for sentence in re.split(r"[:.] ", text)), text


@pytest.mark.parametrize("alarm", ALARMS)
def test_an_alarm_names_its_section_of_the_runbook_in_both_languages(alarm: str) -> None:
    heading = runbook_of(alarm)
    text = section(PAGE, heading, level=3)
    parts = ["**Meaning:**", "**Look first:**", "```sh", "**Do:**", "**The problem is over when**"]
    places = [text.find(part) for part in parts]
    assert -1 not in places, heading
    assert places == sorted(places)
    assert re.search(rf"^\|.*`{alarm}`.*\| \[{heading}\]", PAGE, re.MULTILINE)
    assert re.search(rf"^### .+\W{re.escape(heading)}\W$", CHINESE_PAGE, re.MULTILINE)


def test_every_section_of_the_runbook_has_an_alarm() -> None:
    sections = re.findall(r"^### (.+)$", PAGE.partition("\n## Alarms\n")[2], re.MULTILINE)
    assert sorted(sections) == sorted({runbook_of(alarm) for alarm in ALARMS})


@pytest.mark.parametrize("alarm", ALARMS)
def test_an_alarm_notifies_when_it_begins_and_when_it_ends(alarm: str) -> None:
    notify = {"Fn::If": ["Notifies", [{"Ref": "AlarmTopicArn"}], {"Ref": "AWS::NoValue"}]}
    assert ALARMS[alarm]["AlarmActions"] == notify
    assert ALARMS[alarm].get("OKActions") == (None if alarm == ENDS_SILENTLY else notify)
    assert ALARMS[alarm]["TreatMissingData"] == ("breaching" if alarm in RING_WITHOUT_DATA else "notBreaching")


class TestMetrics:
    @staticmethod
    def literals(function: str, calls: str) -> Iterator[str]:
        """Yield the metrics that the code of a function names in calls whose names match the pattern `calls`."""
        for path in sorted((ROOT / "functions" / function).glob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and re.search(rf"(?:^|\.)_?(?:{calls})$", ast.unparse(node.func)):
                    names = [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
                    # A refusal has its reason as another argument, of several words.
                    yield from [name for name in names if re.fullmatch(r"[A-Z][A-Za-z]+", name)]

    @staticmethod
    def reported(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
        """Let the stop function report every outcome and failure. Returns the emitted metrics with their units."""
        metrics = EphemeralMetrics(namespace=NAMESPACE, service="stack")
        for module in (logs, telemetry):
            monkeypatch.setattr(module, "metrics", metrics)
        arrival = Arrival("1", "", "", 0, content=InvalidMessage("NotJson", "the body is not JSON"))
        for outcome in Outcome:
            logs.log_outcome(arrival, "audio", outcome)
        gone = Event(EventType.ROOM_GONE, Room("661e", "room-1"), 0, ("audio",))
        logs.log_outcome(replace(arrival, content=gone), "audio", Outcome.STOPPED)
        failure = Failure(arrival, CredentialsRefused("InvalidAccessKey", "the API refuses the key"))
        barred = replace(failure, error=SetupRefused("ServiceNotFound", "the endpoint does not know the call"))
        for end in End:
            logs.log_failure(failure, end, sent=True)
            logs.log_failure(barred, end, sent=True)
        logs.log_unpublished(failure)
        logs.log_unanswered(failure, "the stack has no WorkflowArn")
        for name in (*TestMetrics.literals("stop_segment", "measure"), *TestMetrics.literals("segments", "measure")):
            telemetry.measure(name, 1)
        emitted = metrics.serialize_metric_set()
        (directive,) = emitted["_aws"]["CloudWatchMetrics"]
        assert directive["Namespace"] == NAMESPACE
        assert directive["Dimensions"] == [["service"]]
        return {metric["Name"]: metric["Unit"] for metric in directive["Metrics"]}

    @pytest.fixture
    def emitted(self, monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[str, str]]:
        """Return every metric that the code can emit: its unit, and the function that emits it."""
        stops = {name: (unit, "stop_segment") for name, unit in self.reported(monkeypatch).items()}
        others = {
            name: ("Seconds" if name.endswith("Seconds") else "Count", function)
            for function in ("receive_callback", "publish_outcome", "sweep_rooms")
            for name in self.literals(function, "add_metric|count|drop|Refusal")
        }
        return {**stops, **others}

    def test_the_scan_of_the_code_finds_known_metrics(self, emitted: dict[str, tuple[str, str]]) -> None:
        """The other tests of this file rely on the scan for metrics in the code."""
        some = {"AlreadyStopped", "NoOpenTasks", "Retried", "Exhausted", "CredentialsRefused", "TimeToStop", "TurnWait"}
        assert some | {"CallbackRefused", "CallbackMalformed", "CallbackQueued", "OutcomesNotPublished"} <= set(emitted)
        assert "ColdStart" not in emitted

    def test_the_page_lists_every_metric_and_no_other(self, emitted: dict[str, tuple[str, str]]) -> None:
        rows = re.findall(r"^\| `(\w+)` \| (Count|Milliseconds|Seconds) \| (\w+) \|", METRICS_PAGE, re.MULTILINE)
        # Powertools emits it with a second dimension.
        cold_start = {"ColdStart": ("Count", "stop_segment")}
        assert {name: (unit, function) for name, unit, function in rows} == emitted | cold_start

    def test_the_stack_is_the_only_dimension_of_a_metric(self) -> None:
        variables = TEMPLATE["Globals"]["Function"]["Environment"]["Variables"]
        assert variables["POWERTOOLS_SERVICE_NAME"] == {"Ref": "AWS::StackName"}
        assert variables["POWERTOOLS_METRICS_NAMESPACE"] == NAMESPACE
        code = "".join(path.read_text() for path in ROOT.glob("functions/*/*.py"))
        assert "add_dimension" not in code
        assert "set_default_dimensions" not in code

    def test_alarms_and_dashboard_show_metrics_that_are_emitted(self, emitted: dict[str, tuple[str, str]]) -> None:
        alarms = [alarm for alarm in ALARMS.values() if alarm["Namespace"] == NAMESPACE]
        widgets = [metric for metric in dashboard_metrics() if metric[0] == NAMESPACE]
        assert alarms
        assert widgets
        assert {alarm["MetricName"] for alarm in alarms} | {metric[1] for metric in widgets} <= set(emitted)
        assert all(a["Dimensions"] == [{"Name": "service", "Value": {"Ref": "AWS::StackName"}}] for a in alarms)
        assert {tuple(metric[2:4]) for metric in widgets} == {("service", "${AWS::StackName}")}


def dashboard() -> dict[str, Any]:
    body = RESOURCES["Dashboard"]["Properties"]["DashboardBody"]
    content: dict[str, Any] = json.loads(body["Fn::Sub"])
    return content


def dashboard_metrics() -> list[list[Any]]:
    return [metric for widget in dashboard()["widgets"] for metric in widget["properties"]["metrics"]]


def watched(namespace: str, dimension: str) -> set[str]:
    """Return the resources that have metrics of this namespace on the dashboard."""
    metrics = [metric for metric in dashboard_metrics() if metric[0] == namespace]
    assert {metric[2] for metric in metrics} <= {dimension}
    return {found for metric in metrics for found in re.findall(r"\$\{(\w+)", metric[3])}


def test_the_dashboard_shows_resources_that_every_stack_has() -> None:
    names = re.findall(r"\$\{([\w:.]+)\}", json.dumps(dashboard()))
    assert {name for name in names if "::" in name} <= {"AWS::Region", "AWS::StackName"}
    queues, functions = watched("AWS/SQS", "QueueName"), watched("AWS/Lambda", "FunctionName")
    assert {name.partition(".")[0] for name in names if "::" not in name} - {"Mode"} == queues | functions
    assert {RESOURCES[name]["Type"] for name in queues} == {"AWS::SQS::Queue"}
    assert {RESOURCES[name]["Type"] for name in functions} == {"AWS::Serverless::Function"}
    # A stack without callbacks or outcome events has the same dashboard.
    assert not [name for name in queues | functions if "Condition" in RESOURCES[name]]


def test_the_dashboard_has_no_gaps_and_no_overlaps() -> None:
    cells = [
        (x, y)
        for widget in dashboard()["widgets"]
        for x in range(widget["x"], widget["x"] + widget["width"])
        for y in range(widget["y"], widget["y"] + widget["height"])
    ]
    assert len(cells) == len(set(cells)) == 24 * (max(y for _, y in cells) + 1)


def test_the_page_explains_the_widgets_in_their_order() -> None:
    rows = re.findall(r"^\| ([^|`]+?) \|.*\|.*\|$", METRICS_PAGE.partition("## Metrics")[0], re.MULTILINE)
    titles = [widget["properties"]["title"] for widget in dashboard()["widgets"]]
    explained = [row for row in rows if row not in ("widget", "---")]
    assert len(explained) == len(titles)
    assert [title for title, row in zip(titles, explained, strict=True) if not title.startswith(row.rstrip("?"))] == []
