"""Readiness: what systemd receives, at both kinds of address."""

from __future__ import annotations

import socket
from pathlib import Path
from uuid import uuid4

import pytest
from structlog.testing import capture_logs

from ari_conf.common import systemd


@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_systemd_receives_that_the_process_is_ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    address = str(tmp_path / "notify") if kind == "path" else f"@{uuid4()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemds:
        systemds.bind(address.replace("@", "\0") if kind == "abstract" else address)
        systemds.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        systemd.notify_ready()
        assert systemds.recv(100) == b"READY=1"


def test_a_process_without_systemd_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    with capture_logs() as logs:
        systemd.notify_ready()
    assert not logs


def test_a_systemd_that_is_not_there_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "missing"))
    with capture_logs() as logs:
        systemd.notify_ready()
    assert [(line["log_level"], line["event"]) for line in logs] == [("warning", "systemd not notified")]
