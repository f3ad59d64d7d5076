"""A known vulnerability fails `make lint`; an advisory service that does not answer does not, but is told."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tests.audit import main

ADVISORY = {
    "id": "GHSA-xxxx-yyyy-zzzz",
    "summary": "It lets anybody in.",
    "affected": [
        {
            "package": {"name": "bad", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "1.0.1"}]}],
        }
    ],
}


class AdvisoryService:
    """OSV's protocol on the loopback: knows of one bad package, or answers as it is told to."""

    def __init__(self) -> None:
        self.status = 200
        self.page = b""
        self.asked: list[Any] = []
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                service.asked.append((query["package"]["name"], query["version"]))
                known = {"vulns": [ADVISORY]} if query["package"]["name"] == "bad" else {}
                self.send_response(service.status)
                self.end_headers()
                self.wfile.write(service.page or json.dumps(known).encode())

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}/v1/query"


@pytest.fixture
def service() -> Iterator[AdvisoryService]:
    running = AdvisoryService()
    thread = threading.Thread(target=running.server.serve_forever)
    thread.start()
    yield running
    running.server.shutdown()
    running.server.server_close()
    thread.join()


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    return tmp_path / "requirements.txt"


def locked(*names: str) -> str:
    return "".join(f"{name}==1.0.0 --hash=sha256:{'0' * 64}\n" for name in names)


def run(service: AdvisoryService, lock: Path) -> Result:
    return CliRunner().invoke(main, ["--service-url", service.url, str(lock)])


def test_known_vulnerability_fails_and_is_named(service: AdvisoryService, lock: Path) -> None:
    lock.write_text(locked("good", "bad"))
    done = run(service, lock)
    assert done.exit_code == 1
    assert done.output == "pip-audit: bad 1.0.0: GHSA-xxxx-yyyy-zzzz, mended in 1.0.1\n"


def test_packages_without_a_known_vulnerability_pass_and_each_is_asked_about(
    service: AdvisoryService, lock: Path
) -> None:
    lock.write_text(locked("good", "better"))
    done = run(service, lock)
    assert done.exit_code == 0
    assert done.output == "pip-audit: no known vulnerability in 2 locked packages\n"
    assert sorted(service.asked) == [("better", "1.0.0"), ("good", "1.0.0")]


@pytest.mark.parametrize(
    ("status", "page"),
    [(503, b""), (403, b"{}"), (200, b"<html>Sign in to the network</html>")],
    ids=["503", "403", "sign-in page"],
)
def test_answer_that_is_none_does_not_fail_but_is_told(
    service: AdvisoryService, lock: Path, status: int, page: bytes
) -> None:
    lock.write_text(locked("bad"))
    service.status, service.page = status, page
    done = run(service, lock)
    assert done.exit_code == 0
    assert "so advisories were NOT checked" in done.output
    assert done.output.count("\n") == 1


def test_service_that_cannot_be_reached_does_not_fail_but_is_told(service: AdvisoryService, lock: Path) -> None:
    lock.write_text(locked("bad"))
    service.server.socket.close()
    done = run(service, lock)
    assert done.exit_code == 0
    assert "so advisories were NOT checked" in done.output


def test_lock_without_hashes_fails(service: AdvisoryService, lock: Path) -> None:
    lock.write_text("good==1.0.0\n")
    done = run(service, lock)
    assert done.exit_code == 1
    assert "does not contain a hash" in done.output
    assert service.asked == []
