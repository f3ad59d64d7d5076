"""The request limit, with the built stop function in more environments than it has slots."""

import contextlib
import itertools
import json

from sandbox.embedded_aws import EmbeddedAws
from sandbox.environments import environment
from sandbox.rtc_double import RtcDouble
from tests.environments import sqs_batch, stop_variables

SHARE = 150 // 5
ENVIRONMENTS = 2
BATCHES = 6


def test_a_slot_keeps_to_its_share_though_its_environments_take_turns(aws: EmbeddedAws) -> None:
    key = json.dumps({"AccessKeyId": "AKLT", "SecretAccessKey": "s3cr3t"})
    with RtcDouble(secrets={"AKLT": "s3cr3t"}, answer_after_seconds=0.02) as rtc, contextlib.ExitStack() as stack:
        variables = stop_variables(aws, rtc.url, key)
        several = [stack.enter_context(environment("StopSegmentFunction", variables)) for _ in range(ENVIRONMENTS)]
        for number, made in zip(range(BATCHES), itertools.cycle(several), strict=False):
            ids = ({"AppId": "661e", "RoomId": f"room-{number}-{place}", "TaskId": "audio"} for place in range(10))
            batch = sqs_batch(*({"EventType": "RoomEnded", **task} for task in ids))
            assert made.invoke(batch) == {"batchItemFailures": []}
        assert len(rtc.requests) == 10 * BATCHES
        assert rtc.busiest_second() <= SHARE
