"""The request limit of a slot of the event source mapping, which two environments serve in turn."""

import contextlib
import itertools
import json

from sandbox.embedded_aws import EmbeddedAws
from sandbox.environments import environment
from sandbox.rtc_double import RtcDouble
from tests.environments import ACCEPTED, sqs_record, stop_variables

SHARE = 150 // 5
ENVIRONMENTS = 2
BATCHES = 6


def test_slot_keeps_to_its_share_of_the_limit_when_environments_take_turns(aws: EmbeddedAws) -> None:
    with RtcDouble(secrets=ACCEPTED, answer_after_seconds=0.02) as rtc, contextlib.ExitStack() as stack:
        variables = stop_variables(aws, rtc.url)
        several = [stack.enter_context(environment("StopSegmentFunction", variables)) for _ in range(ENVIRONMENTS)]
        for number, made in zip(range(BATCHES), itertools.cycle(several), strict=False):
            event = {"EventType": "RoomEnded", "AppId": "661e", "TaskId": "audio"}
            bodies = [json.dumps(event | {"RoomId": f"room-{number}-{place}"}) for place in range(10)]
            batch = {"Records": [sqs_record(body) for body in bodies]}
            assert made.invoke(batch) == {"batchItemFailures": []}
        assert len(rtc.requests) == 10 * BATCHES
        assert rtc.busiest_second() <= SHARE
