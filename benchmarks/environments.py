"""The request limit when several environments of the stop function take turns in each slot."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from benchmarks.deployments import CONCURRENCY, Deployment, product
from benchmarks.probe import batch
from sandbox.environments import Environment, environment

# The slowest API first, because an environment that knows a faster API sends requests to a slower API at a lower rate.
_BATCHES_A_SLOT = {2.0: 4, 0.2: 100, 0.05: 18, 0.02: 18}
_numbers = itertools.count(step=10)


def environments() -> list[dict[str, Any]]:
    """Serve full batches in each slot, and return the request rate and the requests in the busiest second."""
    with product(min(_BATCHES_A_SLOT)) as deployment:
        return [run for environments_a_slot in (1, 3) for run in _paces(deployment, environments_a_slot)]


def _paces(deployment: Deployment, environments_a_slot: int) -> Iterator[dict[str, Any]]:
    with contextlib.ExitStack() as stack:
        made = [
            [stack.enter_context(_environment(deployment)) for _ in range(environments_a_slot)]
            for _ in range(CONCURRENCY)
        ]
        for answer_after_seconds, batches in _BATCHES_A_SLOT.items():
            deployment.rtc.answer_after_seconds = answer_after_seconds
            yield {
                "environments_a_slot": environments_a_slot,
                "answer_after_seconds": answer_after_seconds,
                **_serve(deployment, made, batches),
            }


def _environment(deployment: Deployment) -> contextlib.AbstractContextManager[Environment]:
    found = deployment.client("lambda").get_function_configuration(FunctionName=deployment.function_name)
    return environment("StopSegmentFunction", deployment.aws.environment | found["Environment"]["Variables"])


def _serve(deployment: Deployment, slots: Sequence[Sequence[Environment]], batches: int) -> dict[str, Any]:
    def serve(slot: Sequence[Environment]) -> None:
        for made, _ in zip(itertools.cycle(slot), range(batches), strict=False):
            answer = made.invoke(batch(next(_numbers)))
            if answer["batchItemFailures"]:
                raise RuntimeError(
                    f"{len(answer['batchItemFailures'])} messages of a batch failed, so the measurement is invalid: "
                    "run the benchmark again"
                )

    time.sleep(1.1)  # so that no second contains requests of two loads
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
