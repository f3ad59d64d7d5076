"""The callback function signs its requests to AWS as botocore does."""

from datetime import UTC, datetime
from unittest.mock import patch
from urllib.parse import urlsplit

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st

from receive_callback.aws import Service

KEY_ID, SECRET_KEY = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
KEY = {"AWS_ACCESS_KEY_ID": KEY_ID, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}


@given(
    st.sampled_from([("sqs", "AmazonSQS", "1.0", "SendMessage"), ("secretsmanager", "secretsmanager", "1.1", "Get")]),
    st.sampled_from([("eu-west-1", "amazonaws.com"), ("cn-north-1", "amazonaws.com.cn")]),
    st.sampled_from(["", "http://127.0.0.1:4566", "https://localhost:4566/", "https://proxy.example/aws/"]),
    st.sampled_from(["", "IQoJb3JpZ2luX2VjEJr//////////wEaCXVz+/="]),
    st.binary(),
    st.integers(0, 253_402_300_799),
)
def test_a_request_is_signed_as_botocore_signs_it(
    service: tuple[str, str, str, str], place: tuple[str, str], endpoint: str, token: str, body: bytes, now: int
) -> None:
    name, target, json_version, action = service
    region, suffix = place
    environment = KEY | {"AWS_REGION": region, "URL_SUFFIX": suffix}
    environment |= {"AWS_ENDPOINT_URL": endpoint, "AWS_SESSION_TOKEN": token}
    ours = Service(name, target, json_version, environment)
    headers = {"Content-Type": f"application/x-amz-json-{json_version}", "X-Amz-Target": f"{target}.{action}"}
    request = AWSRequest("POST", ours.url, headers, body)
    with patch("botocore.auth.get_current_datetime", return_value=datetime.fromtimestamp(now, UTC)):
        SigV4Auth(Credentials(KEY_ID, SECRET_KEY, token or None), name, region).add_auth(request)
    signed = ours.signed(action, body, now)
    assert signed["Host"] == urlsplit(ours.url).netloc
    assert {name: value for name, value in signed.items() if name != "Host"} == dict(request.headers.items())
