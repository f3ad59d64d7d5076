"""The peer stops segment tasks with Powertools' batch processor and idempotency utility, as documented."""

from __future__ import annotations

import json
import os
from typing import Any

from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities import parameters
from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response
from aws_lambda_powertools.utilities.batch.types import PartialItemFailureResponse
from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord
from aws_lambda_powertools.utilities.idempotency import DynamoDBPersistenceLayer, IdempotencyConfig, idempotent_function
from aws_lambda_powertools.utilities.typing import LambdaContext
from volcenginesdkcore import ApiClient, Configuration, UniversalApi, UniversalInfo
from volcenginesdkcore.rest import ApiException

ALREADY_STOPPED = "InvalidParameter.ErrorActiveTaskNotFound"

logger = Logger()
metrics = Metrics()
processor = BatchProcessor(event_type=EventType.SQS)
persistence = DynamoDBPersistenceLayer(table_name=os.environ["IDEMPOTENCY_TABLE"])
idempotency = IdempotencyConfig(event_key_jmespath="[AppId, RoomId, TaskId]")


def make_api() -> UniversalApi:
    """Create a client of the SDK with the key in the secret."""
    secret: Any = parameters.get_secret(os.environ["RTC_SECRET_ARN"], transform="json", max_age=300)
    configuration = Configuration()
    configuration.ak = secret["AccessKeyId"]
    configuration.sk = secret["SecretAccessKey"]
    configuration.region = "cn-north-1"
    configuration.host = os.environ["RTC_HOST"]
    return UniversalApi(ApiClient(configuration))


api = make_api()
stop_info = UniversalInfo(
    method="POST", service="rtc", version="2020-12-01", action="StopSegment", content_type="application/json"
)


@idempotent_function(  # type: ignore[untyped-decorator] # Powertools has no types for it
    data_keyword_argument="task", persistence_store=persistence, config=idempotency
)
def stop_segment(task: dict[str, str]) -> str:
    """Stop a task. The idempotency utility answers repeated calls for the same task."""
    try:
        return str(api.do_call(stop_info, task))
    except ApiException as error:
        if ALREADY_STOPPED in str(error):
            return "already stopped"
        raise


def record_handler(record: SQSRecord) -> None:
    """Stop the task that a message names."""
    event = json.loads(record.body)
    task = {name: event[name] for name in ("AppId", "RoomId", "TaskId")}
    result = stop_segment(task=task)
    logger.info("stopped", result=result, **task)
    metrics.add_metric("Stopped", MetricUnit.Count, 1)


@logger.inject_lambda_context
@metrics.log_metrics(capture_cold_start_metric=True)
def handler(event: dict[str, Any], context: LambdaContext) -> PartialItemFailureResponse:
    """Serve a batch of messages, and report the messages that failed."""
    idempotency.register_lambda_context(context)
    return process_partial_response(event=event, record_handler=record_handler, processor=processor, context=context)
