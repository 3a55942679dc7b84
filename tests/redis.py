"""A real redis-server of a test's own: on a free port of 127.0.0.1, in its temporary folder, appendonly."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis


class RedisServer:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.client = redis.Redis.from_url(self.url)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *more: str) -> None:
        """`more` options, such as "--appendonly", "no"."""
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder), "--save", ""]
        options += ["--appendonly", "yes", "--appendfsync", "everysec", "--maxmemory-policy", "noeviction"]
        options += ["--repl-diskless-sync-delay", "0", *more]
        self._process = subprocess.Popen(["redis-server", *options], stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        while True:
            try:
                self.client.ping()
                return
            except redis.RedisError:
                assert self._process.poll() is None, "redis-server ended"
                assert time.monotonic() < deadline, "redis-server did not start within 20 s"
                time.sleep(0.01)

    def follow(self, primary: RedisServer) -> None:
        """It becomes a replica, and returns when it has all that the primary has."""
        self.client.replicaof("127.0.0.1", primary.port)
        self._until(lambda: self.client.info("replication")["master_link_status"] == "up")
        self._until(lambda: self._offset() == primary.client.info("replication")["master_repl_offset"])

    def promote(self) -> None:
        """It becomes the primary."""
        self.client.replicaof("NO", "ONE")

    def _offset(self) -> int:
        return int(self.client.info("replication")["slave_repl_offset"])

    def _until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < deadline, "the replica does not follow within 30 s"
            time.sleep(0.01)

    def stop(self) -> None:
        """As `systemctl restart` does it."""
        if self._process:
            self._process.terminate()
            self._process.wait()
            self._process = None

    def kill(self) -> None:
        """kill -9."""
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None


def start(folder: Path, *more: str) -> RedisServer:
    if not shutil.which("redis-server"):
        pytest.fail("redis-server is not installed: `make test` installs it")
    folder.mkdir(parents=True, exist_ok=True)
    server = RedisServer(folder)
    server.start(*more)
    return server


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    server = start(tmp_path / "redis")
    yield server
    server.kill()
