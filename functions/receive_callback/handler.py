"""The Lambda function behind the callback URL: verify, queue, answer.

This module imports little, since the RTC server waits at most 5 seconds for an answer, including a cold start.
"""

from __future__ import annotations

import base64
import json
import os
import re
import time
import warnings
from http import HTTPStatus
from typing import Any

from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit

from receive_callback.aws import AwsError, Service
from receive_callback.keys import CallbackKeys, KeysUnavailable
from receive_callback.signature import NAMES, MalformedCallback, read_signed
from receive_callback.slices import QueuedSlices, read_slice, room_of
from segments.cache import Cache
from segments.times import find_callback_ms, now_ms, read_callback_ms, to_rfc3339

MOST_BYTES = 64 * 1024
MOST_REMEMBERED = 10_000
MOST_AGE_MS = 3_600_000  # the RTC server repeats a callback within seconds: an older callback is a replay
ROOM_DESTROY, SLICE = "RoomDestroy", "SegmentRealTimeData"
_GROUP = re.compile("[a-zA-Z0-9_@.-]{1,128}")  # the AppIds that SQS accepts as a message group
# A known slice emits no metric, and Powertools would log a warning.
warnings.filterwarnings("ignore", "No application metrics to publish")

logger = Logger()
metrics = Metrics()
_sqs = Service("sqs", "AmazonSQS", "1.0")
_keys = CallbackKeys(
    Service("secretsmanager", "secretsmanager", "1.1"), os.environ["CALLBACK_SECRET_ARN"], time.monotonic, now_ms
)
_queue_url = os.environ["EVENT_QUEUE_URL"]
# Hashes of values: callbacks may be long, and one signature may cover several callbacks. A replay that was forgotten is
# queued again, which is harmless: time decides which tasks a message may stop (docs/design.md).
_queued: Cache[int, None] = Cache(MOST_REMEMBERED)
_slices = QueuedSlices(MOST_REMEMBERED, time.monotonic)


class Refusal(Exception):
    """A refused request, with the metric that counts the refusal, and a reason that quotes nothing of the request."""

    def __init__(self, status: HTTPStatus, metric: str, reason: str) -> None:
        super().__init__(status, metric, reason)
        self.status, self.metric, self.reason = status, metric, reason


@logger.inject_lambda_context
@metrics.log_metrics
def handler(event: dict[str, Any], context: object) -> dict[str, Any]:  # noqa: ARG001 - Lambda passes it
    """Answer one HTTP request of the RTC server. `event` is an event of an HTTP API, payload version 2.0.

    With status 200, the result is ready (to GET and HEAD), queued, known, replayed, stale or ignored. Errors are 400
    (malformed), 401 (wrong signature), 405 (wrong method), 413 (over 64 KiB) and 503 (send the callback again).
    """
    if event["requestContext"]["http"]["method"] in ("GET", "HEAD"):
        return _answer(HTTPStatus.OK, "ready")  # the RTC console accepts only URLs that answer GET
    try:
        end = _receive(event)
    except Refusal as refusal:
        logger.warning(refusal.reason, status=refusal.status.value)
        _count(refusal.metric)
        return _answer(refusal.status, refusal.reason)
    return _answer(HTTPStatus.OK, end)


def _receive(event: dict[str, Any]) -> str:
    arrived_ms = now_ms()
    signed = _verified(_callback(event))
    callback, time_ms = _meaning(signed, arrived_ms)
    event_type = callback["EventType"]
    fields: dict[str, Any] = {"event_type": event_type, "event_id": callback["EventId"], "app_id": callback["AppId"]}
    if time_ms < arrived_ms - MOST_AGE_MS:
        return _drop("stale", "CallbackStale", fields)
    if event_type not in (ROOM_DESTROY, SLICE):
        return _drop("ignored", "CallbackIgnored", fields)
    values = hash(tuple(callback.values()))
    if values in _queued:
        return _drop("replayed", "CallbackReplayed", fields)
    found = read_slice(callback, time_ms) if event_type == SLICE else None
    if found and found in _slices:
        # No log line and no metric for each slice: they would cost more than the rest of the processing.
        _slices.known += 1
        logger.debug("known", **fields)
        return "known"
    message = json.dumps(callback)  # in ASCII: SQS refuses some characters
    group = {"MessageGroupId": callback["AppId"]} if _GROUP.fullmatch(callback["AppId"]) else {}
    try:
        sent = _sqs.call("SendMessage", QueueUrl=_queue_url, MessageBody=message, **group)
    except AwsError as error:
        logger.warning("the event queue did not accept a callback", error=str(error), **fields)
        raise Refusal(
            HTTPStatus.SERVICE_UNAVAILABLE, "CallbackNotQueued", "the callback was not queued: send it again"
        ) from None
    _queued[values] = None
    if found:
        _slices.add(found)
    elif event_type == ROOM_DESTROY:
        _slices.forget(room_of(callback))
    _count("CallbackQueued")
    logger.info("queued", message_id=sent["MessageId"], **fields)
    return "queued"


def _drop(end: str, metric: str, fields: dict[str, Any]) -> str:
    _count(metric)
    logger.info(end, **fields)
    return end


def _count(metric: str) -> None:
    metrics.add_metric(metric, MetricUnit.Count, 1)
    if _slices.known:
        metrics.add_metric("CallbackKnown", MetricUnit.Count, _slices.known)
        _slices.known = 0


def _callback(event: dict[str, Any]) -> dict[str, Any]:
    if event["requestContext"]["http"]["method"] != "POST":
        raise Refusal(HTTPStatus.METHOD_NOT_ALLOWED, "CallbackMalformed", "the method must be POST, GET or HEAD")
    text = event.get("body") or ""
    raw = base64.b64decode(text) if event.get("isBase64Encoded") else text.encode(errors="surrogatepass")
    if len(raw) > MOST_BYTES:
        raise Refusal(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "CallbackMalformed", f"the body must have at most {MOST_BYTES} bytes"
        )
    try:
        callback = json.loads(raw.decode())
    except UnicodeDecodeError:
        raise _malformed("the body must be UTF-8") from None
    except (ValueError, RecursionError):
        raise _malformed("the body must be JSON") from None
    if not isinstance(callback, dict):
        raise _malformed("the body must be a JSON object")
    return callback


def _verified(callback: dict[str, Any]) -> tuple[str, ...]:
    """Return the values that the signature covers. Raises `Refusal` if the signature is wrong."""
    try:
        signed = read_signed(callback, _keys.current) or read_signed(callback, _keys.renewed)
    except MalformedCallback as error:
        raise _malformed(str(error)) from None
    except KeysUnavailable as error:
        logger.warning("the callback secret gave no key", error=str(error))
        reason = "the callback secret cannot be read: send the callback again"
        raise Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "CallbackNotQueued", reason) from None
    if signed is None:
        raise Refusal(HTTPStatus.UNAUTHORIZED, "CallbackRefused", "the signature is missing or wrong: check the key")
    return signed


def _meaning(signed: tuple[str, ...], arrived_ms: int) -> tuple[dict[str, str], int]:
    """Return the signed values of a callback, without the nonce, and the callback's time.

    A signature stays valid if values change places or exchange characters, and a callback without a readable time
    counts from its arrival. So a forger could make an old callback look new. To prevent this, the time is also read
    from the joined text that was signed, which always contains the whole time.
    """
    callback = dict(zip(NAMES, signed, strict=False))  # without the nonce, which only a forger could use
    if (time_ms := read_callback_ms(callback["EventTime"])) is not None:
        return callback, time_ms
    others = signed[:1] + signed[2:]  # EventData keeps its value, or is no longer JSON
    if (moved_ms := find_callback_ms("".join(sorted(others)))) is None:
        return callback, arrived_ms
    return callback | {"EventTime": to_rfc3339(moved_ms)}, moved_ms


def _malformed(reason: str) -> Refusal:
    return Refusal(HTTPStatus.BAD_REQUEST, "CallbackMalformed", reason)


def _answer(status: HTTPStatus, result: str) -> dict[str, Any]:
    return {
        "statusCode": status.value,
        "headers": {"Content-Type": "application/json"},
        "body": json.dumps({"result": result}),
    }
