"""An embedded AWS in one local process: ministack with IAM enforced, behind TLS, on a free loopback port."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess  # nosec B404 # runs ministack
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from ssl import create_default_context
from typing import Any

import boto3
import trustme
from botocore.config import Config

REGION = "us-east-1"
START_DEADLINE_SECONDS = 60
_HOST = "127.0.0.1"
_ROOT = "test"  # ministack's root user: both the id and the secret of its key
_ROOT_CREDENTIALS = {"AccessKeyId": _ROOT, "SecretAccessKey": _ROOT}


@dataclass(frozen=True)
class EmbeddedAws:
    """A running ministack.

    Parameters
    ----------
    endpoint
        The https URL of ministack.
    ca_bundle
        The certificate of the authority that clients of ministack must trust.
    log
        The output of ministack and the functions.
    """

    endpoint: str
    ca_bundle: Path
    log: Path

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables with which AWS CLI, SAM CLI and boto3 use ministack as the account's root."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_CA_BUNDLE": str(self.ca_bundle),
            "AWS_ACCESS_KEY_ID": _ROOT,
            "AWS_SECRET_ACCESS_KEY": _ROOT,
            "AWS_DEFAULT_REGION": REGION,
        }

    def client(self, service: str, credentials: Mapping[str, str] = _ROOT_CREDENTIALS) -> Any:
        """Return a boto3 client of `service`, with credentials as IAM and STS give them."""
        return boto3.session.Session().client(
            service,  # type: ignore[call-overload]
            endpoint_url=self.endpoint,
            verify=str(self.ca_bundle),
            region_name=REGION,
            aws_access_key_id=credentials["AccessKeyId"],
            aws_secret_access_key=credentials["SecretAccessKey"],
            aws_session_token=credentials.get("SessionToken"),
            config=Config(retries={"total_max_attempts": 2}, max_pool_connections=32),
        )


@contextlib.contextmanager
def shielded() -> Iterator[None]:
    """Hide the caller's proxies, AWS settings and AWS files from this process and its children."""
    ours = {"AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull}
    theirs = {
        name: value for name, value in os.environ.items() if name.startswith("AWS_") or name.lower().endswith("_proxy")
    }
    for name in theirs:
        del os.environ[name]
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in ours:
            del os.environ[name]
        os.environ.update(theirs)


@contextlib.contextmanager
def embedded_aws(*, port: int = 0, certificate_folder: Path | None = None) -> Iterator[EmbeddedAws]:
    """Start ministack and wait for its first answer. At the end of the block, stop ministack and all its functions.

    During the block, `shielded` hides the caller's AWS settings.

    Parameters
    ----------
    port
        The port of ministack, by default any free port.
    certificate_folder
        The folder that keeps the certificates for the next start. By default, each start creates new certificates.

    Raises
    ------
    RuntimeError
        ministack ended, or did not answer within START_DEADLINE_SECONDS. The message holds the end of its log.
    """
    with shielded(), _ministack(port or free_port(), certificate_folder) as aws:
        yield aws


@contextlib.contextmanager
def _ministack(port: int, certificate_folder: Path | None) -> Iterator[EmbeddedAws]:
    home = Path(tempfile.mkdtemp(prefix="segment-stopper-"))
    try:
        authority, server = _certificate(certificate_folder or home)
        aws = EmbeddedAws(f"https://{_HOST}:{port}", authority, home / "ministack.log")
        with aws.log.open("wb") as log:
            # In a separate process group: Ctrl-C reaches only the caller, which then stops the functions in order.
            process = subprocess.Popen(  # nosec B603 # our own command, no shell
                [sys.executable, "-m", "ministack"],
                env=_process_environment(home, port, authority, server),
                cwd=home,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            _wait_until_it_answers(aws, process)
            yield aws
        finally:
            _stop(process)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _process_environment(home: Path, port: int, authority: Path, server: Path) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("COV_CORE_")}
    return inherited | {
        "AUTH": "true",
        "USE_SSL": "1",
        "BIND_HOST": _HOST,
        "IOT_MTLS_ENABLED": "false",  # needs a fixed port
        "GATEWAY_PORT": str(port),
        "MINISTACK_REGION": REGION,
        "MINISTACK_SSL_CERT": str(server),
        "MINISTACK_SSL_KEY": str(server),
        "AWS_CA_BUNDLE": str(authority),
        "TMPDIR": str(home),
    }


def _wait_until_it_answers(aws: EmbeddedAws, process: subprocess.Popen[bytes]) -> None:
    trust = create_default_context(cafile=str(aws.ca_bundle))
    deadline = time.monotonic() + START_DEADLINE_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(urllib.error.URLError, OSError):
            urllib.request.urlopen(f"{aws.endpoint}/_ministack/health", timeout=2, context=trust).close()  # noqa: S310 # nosec B310 # always https
            return
        time.sleep(0.1)
    tail = aws.log.read_text(errors="replace")[-2000:]
    raise RuntimeError(
        f"the embedded AWS did not start on {aws.endpoint}. Fix the error at the end of its log:\n{tail}"
    )


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    # ministack would wait for clients that keep connections open. The sandbox does not need this wait.
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=1)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def free_port(wanted: int = 0) -> int:
    """Return the wanted port if it is free, else another free port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # ignores closed connections, as servers do
        try:
            probe.bind((_HOST, wanted))
        except OSError:
            probe.bind((_HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def _certificate(folder: Path) -> tuple[Path, Path]:
    """Return the file of the authority's certificate, and the file of the server's certificate and key.

    Missing files are created.
    """
    authority_path, server_path = folder / "certificate.pem", folder / "server.pem"
    if not server_path.exists():
        folder.mkdir(mode=0o700, exist_ok=True)
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(authority_path))
        server = authority.issue_cert("localhost", "*.localhost", _HOST)
        unfinished_path = folder / "server.unfinished"  # after a killed start, the next start makes new certificates
        server.private_key_and_cert_chain_pem.write_to_path(str(unfinished_path))
        unfinished_path.replace(server_path)
    return authority_path, server_path
