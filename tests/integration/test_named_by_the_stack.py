"""The look-up of a bus or a topic that a stack only names, since AWS does not report a missing bus or topic."""

import json
from typing import Any
from uuid import uuid4

import pytest
from botocore.exceptions import ClientError

from sandbox.embedded_aws import EmbeddedAws
from tests.transformed import SOURCE
from tools.inspection import _alarm_topic, _outcome_bus
from tools.status import Named


@pytest.fixture
def bus(aws: EmbeddedAws) -> str:
    name = f"outcomes-{uuid4().hex}"
    aws.client("events").create_event_bus(Name=name)
    return name


def test_a_missing_bus_accepts_events_and_only_a_look_up_reports_it(aws: EmbeddedAws, bus: str) -> None:
    events = aws.client("events")
    entry = {"Source": "rtc-segment-stopper", "DetailType": "SegmentStopped", "Detail": "{}"}
    # AWS answered the same in a recording (localstack/localstack, test_put_events_nonexistent_event_bus).
    answer = events.put_events(Entries=[{**entry, "EventBusName": "gone"}])
    assert (answer["FailedEntryCount"], "EventId" in answer["Entries"][0]) == (0, True)
    assert _outcome_bus(events, bus) == Named()
    trouble = "gone cannot be found, so its events are dropped: ResourceNotFoundException"
    assert _outcome_bus(events, "gone") == Named(trouble)


def test_the_stack_s_rule_cannot_be_created_on_a_missing_bus(aws: EmbeddedAws, bus: str) -> None:
    """CloudFormation cannot create a rule on a missing bus. Embedded AWS refuses PutRule, but creates the resource."""
    source: Any = SOURCE
    rule = source["Resources"]["OutcomeBusRule"]
    assert (rule["Type"], rule["Condition"]) == ("AWS::Events::Rule", "PublishesOutcomes")
    properties = rule["Properties"]
    assert properties["EventBusName"] == {"Ref": "OutcomeEventBusName"}
    assert "Targets" not in properties
    wanted = {"Name": "proof", "EventPattern": json.dumps(properties["EventPattern"]), "State": properties["State"]}
    events = aws.client("events")
    assert events.put_rule(EventBusName=bus, **wanted)["RuleArn"]
    with pytest.raises(ClientError, match="ResourceNotFoundException"):
        events.put_rule(EventBusName="gone", **wanted)


def test_a_missing_topic_or_one_without_a_confirmed_subscription_is_reported(aws: EmbeddedAws) -> None:
    sns = aws.client("sns")
    arn = sns.create_topic(Name=f"alarms-{uuid4().hex}")["TopicArn"]
    assert (
        _alarm_topic(sns, arn + "-gone").trouble == "the topic cannot be found, so no alarm notifies anyone: NotFound"
    )
    assert _alarm_topic(sns, arn).trouble == "the topic has no confirmed subscription, so no alarm notifies anyone"
    queue = aws.client("sqs").create_queue(QueueName=f"on-call-{uuid4().hex}")["QueueUrl"]
    attributes = aws.client("sqs").get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]
    sns.subscribe(TopicArn=arn, Protocol="sqs", Endpoint=attributes["QueueArn"])
    assert _alarm_topic(sns, arn) == Named()
