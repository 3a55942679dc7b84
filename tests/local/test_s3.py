"""Tests of the S3 server of `ari-conf up`."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from ari_conf.errors import SetupFailed
from ari_conf.local import processes, s3


@pytest.fixture
def taken() -> Iterator[int]:
    """Yield a port that another program uses."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        yield int(other.getsockname()[1])


async def started(folder: Path, port: int) -> None:
    process = await s3.start(folder / "s3", port, "b", "key", "secret-of-the-tests", folder / "s3.log")
    await processes.stop(process)


async def test_a_port_that_is_taken_meanwhile_is_replaced(tmp_path: Path, taken: int, monkeypatch) -> None:
    port, real, chosen = processes.free_port(), processes.free_port, iter([taken])
    monkeypatch.setattr(processes, "free_port", lambda: next(chosen, 0) or real())
    await started(tmp_path, port)
    assert (tmp_path / "s3.log").read_text().count(s3.PORT_TAKEN) == 1


async def test_it_gives_up_when_its_own_port_stays_taken(tmp_path: Path, taken: int) -> None:
    with pytest.raises(SetupFailed, match=f"port {taken} for S3 .* is not available"):
        await started(tmp_path, taken)
    assert (tmp_path / "s3.log").read_text().count(s3.PORT_TAKEN) == s3.MAX_ATTEMPTS
