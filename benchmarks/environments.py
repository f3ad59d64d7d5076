"""As many environments as Lambda likes: the built stop function in slots whose environments take turns."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from benchmarks.deployments import Deployment, product
from benchmarks.probe import batch
from sandbox.environments import Environment, environment

# The slowest first: what an environment knows of a faster API would make it careful with a slower one.
_BATCHES_A_SLOT = {2.0: 4, 0.2: 100, 0.05: 18, 0.02: 18}
# The default, and what a stack of 0.1.0 has that was upgraded; each with its messages a batch.
_SLOTS = ((10, 5), (5, 10))
_numbers = itertools.count(step=10)


def environments() -> list[dict[str, Any]]:
    """Serve full batches in each slot, one after the other; give the fullest second and the rate for each pace."""
    with product(min(_BATCHES_A_SLOT)) as deployment:
        return [
            run
            for slots, messages_a_batch in _SLOTS
            for environments_a_slot in (1, 2, 3)
            for run in _paces(deployment, slots, environments_a_slot, messages_a_batch)
        ]


def _paces(
    deployment: Deployment, slots: int, environments_a_slot: int, messages_a_batch: int
) -> Iterator[dict[str, Any]]:
    with contextlib.ExitStack() as stack:
        made = [
            [stack.enter_context(_environment(deployment, slots)) for _ in range(environments_a_slot)]
            for _ in range(slots)
        ]
        for answer_after_seconds, batches in _BATCHES_A_SLOT.items():
            deployment.rtc.answer_after_seconds = answer_after_seconds
            yield {
                "slots": slots,
                "messages_a_batch": messages_a_batch,
                "environments_a_slot": environments_a_slot,
                "answer_after_seconds": answer_after_seconds,
                **_serve(deployment, made, batches, messages_a_batch),
            }


def _environment(deployment: Deployment, slots: int) -> contextlib.AbstractContextManager[Environment]:
    found = deployment.aws.client("lambda").get_function_configuration(FunctionName=deployment.function_name)
    variables = found["Environment"]["Variables"] | {"MAX_CONCURRENCY": str(slots)}
    return environment("StopSegmentFunction", deployment.aws.environment | variables)


def _serve(
    deployment: Deployment, slots: Sequence[Sequence[Environment]], batches: int, messages_a_batch: int
) -> dict[str, Any]:
    def serve(slot: Sequence[Environment]) -> None:
        for made, _ in zip(itertools.cycle(slot), range(batches), strict=False):
            answer = made.invoke(batch(next(_numbers), messages_a_batch))
            if answer["batchItemFailures"]:
                raise RuntimeError(f"{len(answer['batchItemFailures'])} messages of a batch failed")

    time.sleep(1.1)  # so that no request of an earlier load is within a second
    deployment.rtc.forget()
    with ThreadPoolExecutor(len(slots)) as threads:
        list(threads.map(serve, slots))
    times = sorted(request.received_at for request in deployment.rtc.requests)
    return {
        "api_requests": len(times),
        "api_refusals": sum(1 for request in deployment.rtc.requests if request.http_status == 429),
        "busiest_second": deployment.rtc.busiest_second(),
        "requests_per_second": (len(times) - 1) / (times[-1] - times[0]),
    }
