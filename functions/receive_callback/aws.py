"""The parts of AWS's JSON protocol that the calls SendMessage and GetSecretValue need.

The RTC server waits during a cold start. A boto3 client would make a cold start 3 times as long, and botocore's signing
alone would make it 20 % longer. A test compares the signatures with the signatures of botocore.
"""

from __future__ import annotations

import functools
import hashlib
import hmac
import json
import os
import ssl
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import certifi
import urllib3
from urllib3.exceptions import HTTPError, ProtocolError, SSLError

# The RTC server sends a callback again if these calls fail or take long.
_pool = urllib3.PoolManager(
    timeout=urllib3.Timeout(connect=0.5, read=1.0),
    retries=False,
    ca_certs=os.environ.get("AWS_CA_BUNDLE") or certifi.where(),
)


class AwsError(Exception):
    """AWS refused a call or did not answer. The text is AWS's error code, or the name of the exception."""


class Service:
    """An AWS service, with its name in endpoints, the prefix of its actions, and the version of its JSON protocol."""

    def __init__(self, name: str, target: str, json_version: str, environment: Mapping[str, str] = os.environ) -> None:
        region = environment["AWS_REGION"]
        url = environment.get("AWS_ENDPOINT_URL") or f"https://{name}.{region}.{environment['URL_SUFFIX']}"
        self.url = url.rstrip("/") + "/"
        self._place = urlsplit(self.url)
        self._scope = f"{region}/{name}/aws4_request"
        self._target = target
        self._content_type = f"application/x-amz-json-{json_version}"
        # The function's own key, as Lambda puts it into the environment.
        self._key_id, self._secret_key = environment["AWS_ACCESS_KEY_ID"], environment["AWS_SECRET_ACCESS_KEY"]
        token = environment.get("AWS_SESSION_TOKEN")
        self._token = {"X-Amz-Security-Token": token} if token else {}

    def call(self, action: str, **content: str) -> dict[str, Any]:
        """Call an action and return its answer. Raises `AwsError`."""
        body = json.dumps(content).encode()
        try:
            response = _post(self.url, body, self.signed(action, body, time.time()))
            answer: dict[str, Any] = dict(json.loads(response.data))
        except (HTTPError, ValueError, TypeError) as error:
            raise AwsError(type(error).__name__) from None
        if response.status != 200:
            raise AwsError(str(answer.get("__type", "")).rpartition("#")[2] or f"Http{response.status}")
        return answer

    def signed(self, action: str, body: bytes, unix_seconds: float) -> dict[str, str]:
        """Return the headers of a request, with the signature (AWS Signature Version 4)."""
        time_stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(unix_seconds))
        headers = {  # in alphabetical order, as they are signed
            "Content-Type": self._content_type,
            "Host": self._place.netloc,
            "X-Amz-Date": time_stamp,
            **self._token,
            "X-Amz-Target": f"{self._target}.{action}",
        }
        names = ";".join(headers).lower()
        lines = [f"{name.lower()}:{value}" for name, value in headers.items()]
        request = "\n".join(["POST", self._place.path, "", *lines, "", names, hashlib.sha256(body).hexdigest()])
        scope = f"{time_stamp[:8]}/{self._scope}"
        key = functools.reduce(_hmac, scope.split("/"), f"AWS4{self._secret_key}".encode())
        digest = hashlib.sha256(request.encode()).hexdigest()
        signature = _hmac(key, "\n".join(["AWS4-HMAC-SHA256", time_stamp, scope, digest])).hex()
        says = f"Credential={self._key_id}/{scope}, SignedHeaders={names}, Signature={signature}"
        return headers | {"Authorization": f"AWS4-HMAC-SHA256 {says}"}


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.digest(key, text.encode(), "sha256")


def _post(url: str, body: bytes, headers: dict[str, str]) -> urllib3.BaseHTTPResponse:
    try:
        return _pool.request("POST", url, body=body, headers=headers)
    except (ProtocolError, SSLError) as error:
        # A connection may break while Lambda freezes the environment, and only the next request shows this.
        # AWS may have accepted the first request: queuing a callback twice is harmless (docs/design.md).
        if not isinstance(error.args[-1], (ConnectionError, ssl.SSLEOFError)):
            raise
        return _pool.request("POST", url, body=body, headers=headers)
