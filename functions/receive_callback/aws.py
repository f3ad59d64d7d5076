"""AWS's JSON protocol, as far as two calls need it.

A boto3 client would take three times as long to import and make, and the RTC server waits for our cold start: `make
bench` measures it. The signing and the certificates are botocore's.
"""

from __future__ import annotations

import json
import os
import ssl
from collections.abc import Mapping
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import urllib3
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.httpsession import get_cert_path
from urllib3.exceptions import HTTPError, ProtocolError, SSLError

if TYPE_CHECKING:
    from botocore.credentials import ReadOnlyCredentials

# The RTC server sends again what fails or takes long here.
_pool = urllib3.PoolManager(
    timeout=urllib3.Timeout(connect=0.5, read=1.0),
    retries=False,
    ca_certs=os.environ.get("AWS_CA_BUNDLE") or get_cert_path(True),
)


class AwsError(Exception):
    """AWS refused a call or did not answer: `code` is AWS's error code, or the name of what went wrong on the way."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class Service:
    """An AWS service: its name in endpoints and signatures, the prefix of its actions in X-Amz-Target, its protocol."""

    def __init__(self, name: str, target: str, json_version: str, environment: Mapping[str, str] = os.environ) -> None:
        self._target = target
        self._content_type = f"application/x-amz-json-{json_version}"
        region = environment["AWS_REGION"]
        self.url = environment.get("AWS_ENDPOINT_URL") or f"https://{name}.{region}.{environment['URL_SUFFIX']}"
        # The function's own key, as Lambda puts it into the environment.
        key = SimpleNamespace(
            access_key=environment["AWS_ACCESS_KEY_ID"],
            secret_key=environment["AWS_SECRET_ACCESS_KEY"],
            token=environment.get("AWS_SESSION_TOKEN"),
        )
        self._signer = SigV4Auth(cast("ReadOnlyCredentials", key), name, region)

    def call(self, action: str, **content: str) -> dict[str, Any]:
        """Call an action and return its answer. Raises `AwsError`."""
        headers = {"Content-Type": self._content_type, "X-Amz-Target": f"{self._target}.{action}"}
        url, body = self.url + "/", json.dumps(content).encode()
        request = AWSRequest("POST", url, headers, body)
        self._signer.add_auth(request)
        try:
            response = _post(url, body, dict(request.headers.items()))
            answer: dict[str, Any] = dict(json.loads(response.data))
        except (HTTPError, ValueError, TypeError) as error:
            raise AwsError(type(error).__name__) from None
        if response.status != 200:
            raise AwsError(str(answer.get("__type", "")).rpartition("#")[2] or f"Http{response.status}")
        return answer


def _post(url: str, body: bytes, headers: dict[str, str]) -> urllib3.BaseHTTPResponse:
    try:
        return _pool.request("POST", url, body=body, headers=headers)
    except (ProtocolError, SSLError) as error:
        # A connection that was kept while Lambda froze the environment may be dead, which shows only when it is used.
        # AWS may have done what it was asked: queuing a callback twice is harmless (docs/design.md).
        if not isinstance(error.args[-1], (ConnectionError, ssl.SSLEOFError)):
            raise
        return _pool.request("POST", url, body=body, headers=headers)
