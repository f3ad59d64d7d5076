"""A bus or a topic that a stack only names is looked up, because AWS does not report its absence."""

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


def test_a_bus_that_does_not_exist_takes_events_and_only_asking_for_it_tells(aws: EmbeddedAws, bus: str) -> None:
    events = aws.client("events")
    entry = {"Source": "rtc-segment-stopper", "DetailType": "SegmentStopped", "Detail": "{}"}
    # As AWS was recorded to answer (localstack/localstack, test_put_events_nonexistent_event_bus).
    answer = events.put_events(Entries=[{**entry, "EventBusName": "gone"}])
    assert (answer["FailedEntryCount"], "EventId" in answer["Entries"][0]) == (0, True)
    assert _outcome_bus(events, bus) == Named()
    trouble = "gone cannot be found, so its events are dropped: ResourceNotFoundException"
    assert _outcome_bus(events, "gone") == Named(trouble)


def test_the_stacks_own_rule_cannot_be_made_on_a_bus_that_does_not_exist(aws: EmbeddedAws, bus: str) -> None:
    """So CloudFormation cannot deploy the stack. Embedded AWS refuses PutRule, but makes the resource all the same."""
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


def test_a_topic_without_a_confirmed_subscription_notifies_nobody(aws: EmbeddedAws) -> None:
    sns = aws.client("sns")
    arn = sns.create_topic(Name=f"alarms-{uuid4().hex}")["TopicArn"]
    assert (
        _alarm_topic(sns, arn + "-gone").trouble == "the topic cannot be found, so no alarm notifies anyone: NotFound"
    )
    assert _alarm_topic(sns, arn).trouble == "it has no confirmed subscription, so no alarm notifies anyone"
    queue = aws.client("sqs").create_queue(QueueName=f"on-call-{uuid4().hex}")["QueueUrl"]
    attributes = aws.client("sqs").get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]
    sns.subscribe(TopicArn=arn, Protocol="sqs", Endpoint=attributes["QueueArn"])
    assert _alarm_topic(sns, arn) == Named()
