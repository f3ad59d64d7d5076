"""The Lambda function behind the callback URL: verify, queue, answer.

It imports as little as it can: the RTC server waits 5 seconds for its answer, a cold start included.
"""

from __future__ import annotations

import base64
import json
import os
import time
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit

from receive_callback.aws import AwsError, Service
from receive_callback.keys import CallbackKeys, KeysUnavailable
from receive_callback.replays import QueuedCallbacks
from receive_callback.signature import MalformedCallback, is_signed, signed_values

MOST_BYTES = 64 * 1024
MOST_REMEMBERED = 10_000
QUEUED_TYPES = ("RoomDestroy", "SegmentRealTimeData")

logger = Logger()
metrics = Metrics()
_sqs = Service("sqs", "AmazonSQS", "1.0")
_keys = CallbackKeys(
    Service("secretsmanager", "secretsmanager", "1.1"), os.environ["CALLBACK_SECRET_ARN"], time.monotonic
)
_queue_url = os.environ["EVENT_QUEUE_URL"]
_queued = QueuedCallbacks(MOST_REMEMBERED)


@dataclass(frozen=True)
class Refusal(Exception):
    """A request that is not served.

    Parameters
    ----------
    metric
        The metric that counts it.
    reason
        One sentence for a person, without any value of the request.
    """

    status: HTTPStatus
    metric: str
    reason: str


@logger.inject_lambda_context
@metrics.log_metrics
def handler(event: dict[str, Any], context: object) -> dict[str, Any]:  # noqa: ARG001 - Lambda passes it
    """Answer one HTTP request of the RTC server.

    Parameters
    ----------
    event
        An HTTP API's request, payload version 2.0.

    Returns
    -------
    dict
        ``statusCode`` and a JSON ``body``: 200 queued, replayed or ignored, 400 malformed, 401 not signed, 405 not a
        POST, 413 over 64 KB, 503 not now.
    """
    try:
        end = _receive(event)
    except Refusal as refusal:
        logger.warning(refusal.reason, status=refusal.status.value)
        metrics.add_metric(refusal.metric, MetricUnit.Count, 1)
        return _answer(refusal.status, refusal.reason)
    return _answer(HTTPStatus.OK, end)


def _receive(event: dict[str, Any]) -> str:
    body = _body(event)
    callback = _callback(body)
    _verify(callback)
    event_type = callback["EventType"]
    fields = {"event_type": event_type, "event_id": callback["EventId"], "app_id": callback["AppId"]}
    if event_type not in QUEUED_TYPES:
        metrics.add_metric("CallbackIgnored", MetricUnit.Count, 1)
        logger.info("ignored", **fields)
        return "ignored"
    if (signed := signed_values(callback)) in _queued:
        metrics.add_metric("CallbackReplayed", MetricUnit.Count, 1)
        logger.info("replayed", **fields)
        return "replayed"
    try:
        sent = _sqs.call("SendMessage", QueueUrl=_queue_url, MessageBody=body)
    except AwsError as error:
        logger.warning("the event queue did not take a callback", error=error.code, **fields)
        raise Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "CallbackNotQueued", "not queued, send it again") from None
    _queued.add(signed)
    metrics.add_metric("CallbackQueued", MetricUnit.Count, 1)
    logger.info("queued", message_id=sent["MessageId"], **fields)
    return "queued"


def _body(event: dict[str, Any]) -> str:
    if event["requestContext"]["http"]["method"] != "POST":
        raise Refusal(HTTPStatus.METHOD_NOT_ALLOWED, "CallbackMalformed", "only POST is served")
    text = event.get("body") or ""
    raw = base64.b64decode(text) if event.get("isBase64Encoded") else text.encode(errors="surrogatepass")
    if len(raw) > MOST_BYTES:
        raise Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "CallbackMalformed", f"the body has over {MOST_BYTES} bytes")
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise _malformed("the body is not UTF-8") from None


def _callback(body: str) -> dict[str, Any]:
    try:
        callback = json.loads(body)
    except (ValueError, RecursionError):
        raise _malformed("the body is not JSON") from None
    if not isinstance(callback, dict):
        raise _malformed("the body is not a JSON object")
    return callback


def _verify(callback: dict[str, Any]) -> None:
    try:
        if is_signed(callback, _keys.current()) or is_signed(callback, _keys.renewed()):
            return
    except MalformedCallback as error:
        raise _malformed(str(error)) from None
    except KeysUnavailable:
        reason = "the callback secret cannot be read, send it again"
        raise Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "CallbackNotQueued", reason) from None
    raise Refusal(HTTPStatus.UNAUTHORIZED, "CallbackRefused", "the signature is missing or wrong")


def _malformed(reason: str) -> Refusal:
    return Refusal(HTTPStatus.BAD_REQUEST, "CallbackMalformed", reason)


def _answer(status: HTTPStatus, result: str) -> dict[str, Any]:
    return {
        "statusCode": status.value,
        "headers": {"Content-Type": "application/json"},
        "body": json.dumps({"result": result}),
    }
