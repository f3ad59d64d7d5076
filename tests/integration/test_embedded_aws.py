"""The port and the certificate of the embedded AWS, and the shell's settings that it must not use."""

import os
import socket
from pathlib import Path
from unittest.mock import Mock

import pytest

from sandbox.embedded_aws import EmbeddedAws, _certificate, free_port, shielded
from tests.environments import OF_A_SHELL


def test_the_wanted_port_is_used_unless_another_process_listens_on_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        taken = listener.getsockname()[1]
        assert free_port(taken) != taken
    assert free_port(taken) == taken


def test_a_kept_certificate_is_used_again(tmp_path: Path) -> None:
    folder = tmp_path / "sandbox"
    first = [path.read_bytes() for path in _certificate(folder)]
    assert [path.read_bytes() for path in _certificate(folder)] == first
    assert [path.read_bytes() for path in _certificate(tmp_path)] != first


def test_a_start_that_is_killed_leaves_no_certificate_for_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as killed:
        killed.setattr(Path, "replace", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            _certificate(tmp_path)
    assert not (tmp_path / "server.pem").exists()
    assert all(path.read_bytes() for path in _certificate(tmp_path))


def test_aws_settings_and_proxies_of_the_shell_are_hidden_and_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in OF_A_SHELL.items():
        monkeypatch.setenv(name, value)
    before = dict(os.environ)
    with shielded():
        assert {name for name in OF_A_SHELL if name in os.environ} == {"AWS_CONFIG_FILE"}
        EmbeddedAws("https://127.0.0.1:1", Path("none"), Path("none")).client("sts").close()
    assert dict(os.environ) == before
