"""Rules that AWS enforces, but that cfn-lint and the embedded AWS do not check. Each test names its source.

The tests read the transformed template, in every combination of its optional parameters and in each supported region.
"""

import json
import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any

import pytest
from cfnlint.schema.manager import PROVIDER_SCHEMA_MANAGER

from receive_callback.aws import Service
from stop_segment.settings import read_settings as read_stop
from sweep_rooms.sweeper import read_settings as read_sweep
from tests.transformed import PARAMETERS, PLACES, REGIONS, Properties, Stack, longest, of_type, place, stacks, template

RESOURCES = template()["Resources"]
TYPES = sorted({resource["Type"] for resource in RESOURCES.values()})


def found(resource_type: str) -> Iterator[tuple[str, Stack, Properties]]:
    """Yield each resource of a type with every set of properties that it may be deployed with."""
    for logical_id in of_type(resource_type):
        for stack in stacks(logical_id):
            if (properties := stack.properties(logical_id)) is not None:
                yield logical_id, stack, properties


def strings(node: object) -> Iterator[str]:
    match node:
        case str():
            yield node
        case dict():
            for value in node.values():
                yield from strings(value)
        case list():
            for value in node:
                yield from strings(value)


def shape(node: object) -> object:
    """Return a node with its texts emptied, so that only its structure and its numbers are compared."""
    match node:
        case dict():
            return {name: shape(value) for name, value in node.items()}
        case list():
            return [shape(value) for value in node]
        case str():
            return ""
        case _:
            return node


class TestTheseTests:
    """The assumptions of the other tests."""

    @pytest.mark.parametrize("name", PARAMETERS)
    def test_no_longer_value_of_a_parameter_is_accepted(self, name: str) -> None:
        parameter, value = PARAMETERS[name], longest(name)
        assert value
        if pattern := parameter.get("AllowedPattern"):
            most = parameter.get("MaxLength", len(value))
            assert re.fullmatch(pattern, value)
            assert len(value) == most
            assert "MaxLength" in parameter or not re.fullmatch(pattern, value + "0")

    def test_every_condition_is_true_in_one_stack_and_false_in_another(self) -> None:
        unseen = {(name, holds) for name in template()["Conditions"] for holds in (True, False)}
        for stack in stacks(*RESOURCES):
            unseen -= {(name, stack.has(name)) for name, _ in unseen}
            if not unseen:
                return
        pytest.fail(f"no stack shows {unseen}")

    def test_a_resource_depends_on_no_other_parameters(self) -> None:
        """`stacks` varies only the parameters that a resource refers to: no other parameter changes the resource."""
        every = list(stacks(*RESOURCES))[::397]
        for logical_id in RESOURCES:
            alone = {json.dumps(shape(stack.properties(logical_id))) for stack in stacks(logical_id)}
            assert {json.dumps(shape(stack.properties(logical_id))) for stack in every} <= alone


def bus_rules() -> Iterator[tuple[str, Stack, Properties]]:
    """Yield the rules that send a bus's events to queues. A schedule has no bus: it invokes a function."""
    for logical_id, stack, rule in found("AWS::Events::Rule"):
        if "ScheduleExpression" not in rule and "Targets" in rule:
            yield logical_id, stack, rule


# SQS Developer Guide, "Amazon SQS policy structure": a queue has one policy, and a statement's resource is that queue.
# SetQueueAttributes refuses a statement about another queue with "Invalid value for the parameter Policy".
class TestQueues:
    def test_a_statement_of_a_queue_policy_is_about_that_queue_only(self) -> None:
        for logical_id, _, properties in found("AWS::SQS::QueuePolicy"):
            (queue,) = properties["Queues"]
            for statement in properties["PolicyDocument"]["Statement"]:
                assert statement["Resource"] == queue.replace(">", ".Arn>"), (logical_id, statement["Sid"])

    @pytest.mark.parametrize("queue", of_type("AWS::SQS::Queue"))
    def test_a_queue_has_one_policy(self, queue: str) -> None:
        policies = of_type("AWS::SQS::QueuePolicy")
        for stack in stacks(queue, *policies):
            of_it = [name for name in policies if f"<{queue}>" in (stack.properties(name) or {}).get("Queues", [])]
            assert len(of_it) == (stack.properties(queue) is not None), stack.values

    # SetQueueAttributes: "Only one server-side encryption option is supported per queue".
    def test_a_queue_has_exactly_one_kind_of_encryption(self) -> None:
        for logical_id, _, queue in found("AWS::SQS::Queue"):
            assert queue["SqsManagedSseEnabled"] is ("KmsMasterKeyId" not in queue), logical_id

    # EventBridge User Guide, "How EventBridge retries delivering events": it gives up at once without a permission.
    def test_a_rule_is_created_after_the_policies_that_let_it_send(self) -> None:
        policies = {queue: name for name, _, policy in found("AWS::SQS::QueuePolicy") for queue in policy["Queues"]}
        for logical_id, _, rule in bus_rules():
            targets = {
                arn.replace(".Arn", "")
                for target in rule["Targets"]
                for arn in (target["Arn"], target["DeadLetterConfig"]["Arn"])
            }
            assert {policies[queue] for queue in targets} <= set(RESOURCES[logical_id]["DependsOn"])

    def test_a_queue_accepts_events_of_its_own_rule_only(self) -> None:
        for _, stack, rule in bus_rules():
            arn = f"arn:{stack.place.partition}:events:{stack.place.region}:111122223333:rule/"
            bus = rule["EventBusName"]
            policies = [stack.properties(name) or {"Queues": []} for name in of_type("AWS::SQS::QueuePolicy")]
            for target in rule["Targets"]:
                (policy,) = [one for one in policies if target["Arn"].replace(".Arn", "") in one["Queues"]]
                (admits,) = [s for s in policy["PolicyDocument"]["Statement"] if s["Sid"] == "TakeBusEvents"]
                sources = admits["Condition"]["ArnEquals"]["aws:SourceArn"]
                assert sources == [f"{arn}{path}{rule['Name']}" for path in (f"{bus}/", "")]


# Names that all regions of an account share: CloudWatch User Guide, "Dashboards"; IAM User Guide, "IAM and quotas".
# All accounts share the names of buckets: S3 User Guide, "Bucket naming rules".
GLOBAL_NAMES = {
    "AWS::CloudWatch::Dashboard": "DashboardName",
    "AWS::IAM::Role": "RoleName",
    "AWS::IAM::ManagedPolicy": "ManagedPolicyName",
    "AWS::S3::Bucket": "BucketName",
}
# CloudFormation User Guide, "Name type": CloudFormation does not change a name that the template sets, so two stacks of
# a region must not set the same.
NAMES = GLOBAL_NAMES | {
    "AWS::CloudWatch::Alarm": "AlarmName",
    "AWS::DynamoDB::Table": "TableName",
    "AWS::Events::Rule": "Name",
    "AWS::Lambda::Function": "FunctionName",
    "AWS::Logs::LogGroup": "LogGroupName",
    "AWS::Scheduler::Schedule": "Name",
    "AWS::SecretsManager::Secret": "Name",
    "AWS::SNS::Topic": "TopicName",
    "AWS::SQS::Queue": "QueueName",
}


class TestNames:
    def test_a_name_that_all_regions_share_contains_the_region(self) -> None:
        names = [
            (stack.place.region, properties[name])
            for resource_type, name in GLOBAL_NAMES.items()
            for _, stack, properties in found(resource_type)
            if name in properties
        ]
        assert names
        assert [name for region, name in names if region not in name] == []

    def test_two_stacks_have_no_name_in_common(self) -> None:
        for resource_type, name in NAMES.items():
            for logical_id in of_type(resource_type):
                of_one = {(stack.properties(logical_id) or {}).get(name) for stack in stacks(logical_id, name="one")}
                of_two = {(stack.properties(logical_id) or {}).get(name) for stack in stacks(logical_id, name="two")}
                assert of_one & of_two <= {None}, logical_id


def test_a_role_names_each_action_and_each_resource() -> None:
    listed = set()
    for logical_id, _, role in found("AWS::IAM::Role"):
        for statement in (s for policy in role["Policies"] for s in policy["PolicyDocument"]["Statement"]):
            actions, resources = (
                [a] if isinstance(a, str) else a for a in (statement["Action"], statement["Resource"])
            )
            for action in actions:
                assert re.fullmatch(r"[a-z]+:[A-Z][A-Za-z]{4,}\*?", action), (logical_id, action)
                listed |= {action for resource in resources if re.search(r"^\*|:\*", resource)}
    assert listed == {"dynamodb:ListStreams"}


def test_the_table_can_be_restored_and_logs_expire() -> None:
    for _, _, table in found("AWS::DynamoDB::Table"):
        assert table["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": True}
    for logical_id, _, group in found("AWS::Logs::LogGroup"):
        assert group["RetentionInDays"] == 30, logical_id


# `make lint` checks the types and properties that CloudFormation has in each region.
class TestRegions:
    def test_the_supported_regions_cover_every_partition(self) -> None:
        assert {"cn-north-1", "cn-northwest-1", "ap-southeast-1", "us-east-1", "eu-central-1"} <= set(REGIONS)
        assert {place(region).partition for region in REGIONS} == {"aws", "aws-cn", "aws-us-gov"}

    # Getting Started with Amazon Web Services in China, "Amazon Lambda", lists the missing features. CloudFormation's
    # schemas for cn-north-1 have them nevertheless.
    def test_a_chinese_stack_uses_no_feature_that_lambda_lacks_there(self) -> None:
        assert "AWS::Lambda::Url" not in TYPES
        for logical_id, _, function in found("AWS::Lambda::Function"):
            assert not {"TracingConfig", "SnapStart"} & function.keys(), logical_id

    # AWS General Reference, "ARNs": the partition is aws, aws-cn or aws-us-gov. A service's principal ends in
    # amazonaws.com in all of them; hosts in China do not.
    @pytest.mark.parametrize("logical_id", RESOURCES)
    def test_every_arn_and_host_is_of_the_stack_s_partition(self, logical_id: str) -> None:
        for stack in stacks(logical_id):
            if (properties := stack.properties(logical_id)) is None:
                continue
            for text in strings(properties):
                assert set(re.findall(r"\barn:([^:]+):", text)) <= {stack.place.partition}
                if not re.fullmatch(r"[a-z]+\.amazonaws\.com", text):
                    assert set(re.findall(r"amazonaws\.[a-z]+(?:\.cn)?", text)) <= {stack.place.suffix}

    @pytest.mark.parametrize("somewhere", PLACES)
    def test_the_callback_url_is_of_its_region(self, somewhere: Any) -> None:
        stack = Stack({name: longest(name) for name in PARAMETERS}, somewhere)
        url = stack.evaluate(template()["Outputs"]["CallbackUrl"]["Value"])
        assert url == f"https://<CallbackApi>.execute-api.{somewhere.region}.{somewhere.suffix}/"

    @pytest.mark.parametrize("somewhere", PLACES)
    def test_the_callback_function_calls_the_endpoints_of_its_region(self, somewhere: Any) -> None:
        stack = Stack({name: longest(name) for name in PARAMETERS}, somewhere)
        function = stack.properties("ReceiveCallbackFunction") or {}
        variables = function["Environment"]["Variables"]
        key = {"AWS_REGION": somewhere.region, "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
        assert Service("sqs", "AmazonSQS", "1.0", variables | key).url == (
            f"https://sqs.{somewhere.region}.{somewhere.suffix}/"
        )


# CloudFormation's page on parameters: a Number is an integer or a float, and AllowedPattern is for texts only. A stack
# with a fraction in MaxConcurrency, MaxReceiveCount or SweepMinutes does not deploy: Lambda, SQS and EventBridge refuse
# it.
@pytest.mark.parametrize("name", [name for name, parameter in PARAMETERS.items() if parameter["Type"] == "Number"])
def test_functions_start_when_a_number_is_a_fraction(name: str) -> None:
    fraction = str(float(PARAMETERS[name]["MinValue"]) + 0.5)
    stack = Stack({name: longest(name) for name in PARAMETERS} | {"MaxConcurrency": "5", name: fraction}, PLACES[0])
    for logical_id, read in (("StopSegmentFunction", read_stop), ("SweepRoomsFunction", read_sweep)):
        function = stack.properties(logical_id) or {}
        variables = function["Environment"]["Variables"]
        if logical_id == "SweepRoomsFunction" and name == "SweepMinutes":
            continue  # no schedule has half a minute
        assert read({key: str(value) for key, value in variables.items()})


MOST_OF_A_NAME = 256  # characters of a generated name: no queue's URL and no table's ARN is longer


class TestSizes:
    # CloudFormation's schemas, maxLength: a deployment checks the evaluated value, and cfn-lint sees only its parts.
    @pytest.mark.parametrize("logical_id", RESOURCES)
    def test_no_text_is_too_long(self, logical_id: str) -> None:
        schema = PROVIDER_SCHEMA_MANAGER.get_resource_schema("us-east-1", RESOURCES[logical_id]["Type"]).schema
        most = {name: spec["maxLength"] for name, spec in schema["properties"].items() if "maxLength" in spec}
        for stack in stacks(logical_id, name="s" * 128):
            for name, value in (stack.properties(logical_id) or {}).items():
                if isinstance(value, str) and name in most and "<" not in value:
                    assert len(value) <= most[name], (name, value)

    # Lambda Developer Guide, "Lambda quotas": environment variables have 4 KB together.
    def test_an_environment_is_small_enough(self) -> None:
        for logical_id, _, function in found("AWS::Lambda::Function"):
            variables = json.dumps(function["Environment"]["Variables"])
            assert len(re.sub(r"<[\w.]+>", "r" * MOST_OF_A_NAME, variables)) <= 4096, logical_id


# The metrics that each service publishes, by dimension. SQS Developer Guide, "Available CloudWatch metrics for
# Amazon SQS"; Lambda Developer Guide, "Types of metrics"; API Gateway Developer Guide, "Monitor CloudWatch metrics for
# HTTP APIs".
PUBLISHED = {
    ("AWS/SQS", "QueueName"): (
        "AWS::SQS::Queue",
        {"ApproximateAgeOfOldestMessage", "ApproximateNumberOfMessagesVisible", "NumberOfMessagesSent"},
    ),
    ("AWS/Lambda", "FunctionName"): (
        "AWS::Lambda::Function",
        {"Duration", "Errors", "Invocations", "IteratorAge", "RecursiveInvocationsDropped", "Throttles"},
    ),
    ("AWS/ApiGateway", "ApiId"): ("AWS::ApiGatewayV2::Api", {"4xx", "5xx", "Count", "Latency"}),
}


# test_operations.py checks the alarms on the application's own metrics.
@pytest.mark.parametrize("logical_id", of_type("AWS::CloudWatch::Alarm"))
def test_an_alarm_watches_a_published_metric_of_a_deployed_resource(logical_id: str) -> None:
    alarm = RESOURCES[logical_id]["Properties"]
    if alarm["Namespace"] == "RtcSegmentStopper":
        return
    (dimension,) = alarm["Dimensions"]
    (watched,) = [name for name in RESOURCES if f'"{name}"' in json.dumps(dimension["Value"])]
    resource_type, metrics = PUBLISHED[alarm["Namespace"], dimension["Name"]]
    assert alarm["MetricName"] in metrics
    assert RESOURCES[watched]["Type"] == resource_type
    for stack in stacks(logical_id, watched):
        assert (stack.properties(logical_id) is None) >= (stack.properties(watched) is None)


def test_only_its_schedule_may_invoke_the_sweeper() -> None:
    permissions = [
        permission
        for _, _, permission in found("AWS::Lambda::Permission")
        if permission["Principal"] == "events.amazonaws.com"
    ]
    assert permissions
    for permission in permissions:
        assert permission["FunctionName"] == "<SweepRoomsFunction>"
        assert permission["SourceArn"] == "<SweepSchedule.Arn>"


class TestCallbacks:
    # API Gateway Developer Guide, "Throttle requests to your HTTP APIs": by default a stage has all that the
    # account has. "Amazon API Gateway quotas": the lowest limits are 2,500 per second and 1,250 at once, for all APIs.
    def test_a_stage_uses_at_most_half_of_the_account_s_limits(self) -> None:
        for _, _, stage in found("AWS::ApiGatewayV2::Stage"):
            settings = stage["DefaultRouteSettings"]
            assert 0 < settings["ThrottlingRateLimit"] <= 1_250
            assert 0 < settings["ThrottlingBurstLimit"] <= 625

    # API Gateway Developer Guide, "Lambda proxy integrations for HTTP APIs": the handler reads version 2.0.
    def test_the_function_receives_the_payload_version_that_it_reads(self) -> None:
        for _, _, integration in found("AWS::ApiGatewayV2::Integration"):
            assert integration["PayloadFormatVersion"] == "2.0"

    # API Gateway Developer Guide, "ARN reference": execute-api:region:account:api-id/stage/method/path.
    def test_the_api_may_invoke_its_function_through_its_route_only(self) -> None:
        for _, stack, permission in found("AWS::Lambda::Permission"):
            if permission["Principal"] == "events.amazonaws.com":
                continue
            arn = f"arn:{stack.place.partition}:execute-api:{stack.place.region}:111122223333:<CallbackApi>"
            route = stack.properties("CallbackRoute")
            assert route
            assert permission["FunctionName"] == "<ReceiveCallbackFunction>"
            _, path = route["RouteKey"].split()
            assert fnmatchcase(f"{arn}/$default/POST{path}", permission["SourceArn"])
            assert not fnmatchcase(f"{arn}/$default/POST{path}more", permission["SourceArn"])
            assert not fnmatchcase(arn.replace("<CallbackApi>", "another") + "/$default/POST/", permission["SourceArn"])
