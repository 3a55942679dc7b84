"""Redis servers for tests: each test starts a real redis-server on a free port of 127.0.0.1, with appendonly."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.backoff import ConstantBackoff
from redis.retry import Retry


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
        """Start the server. `more`: options such as "--appendonly", "no"."""
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

    def begin_tls(self, name: str = "IP:127.0.0.1") -> tuple[int, Path]:
        """Open a TLS port with a new certificate for that name; the file is its CA's certificate too."""
        made = certificate(self.folder, name)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port: int = free.getsockname()[1]
        key = {"tls-cert-file": str(made), "tls-key-file": str(made.with_suffix(".key"))}
        # All options in one command: a certificate without its key is refused.
        pairs = [word for pair in (key | {"tls-auth-clients": "no", "tls-port": str(port)}).items() for word in pair]
        self.client.execute_command("CONFIG", "SET", *pairs)
        return port, made

    def follow(self, primary: RedisServer) -> None:
        """Make this server a replica, and return once it has all data of the primary."""
        self.client.replicaof("127.0.0.1", primary.port)
        self._until(lambda: self.client.info("replication")["master_link_status"] == "up")
        self._until(lambda: self._offset() == primary.client.info("replication")["master_repl_offset"])

    def promote(self) -> None:
        """Make this server the primary."""
        self.client.replicaof("NO", "ONE")

    def _offset(self) -> int:
        return int(self.client.info("replication")["slave_repl_offset"])

    def _until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < deadline, "the replica does not follow within 30 s"
            time.sleep(0.01)

    def stop(self) -> None:
        """Stop the server as `systemctl restart` does."""
        if self._process:
            self._process.terminate()
            self._process.wait()
            self._process = None

    def kill(self) -> None:
        """Stop the server as `kill -9` does."""
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None


def certificate(folder: Path, name: str) -> Path:
    """Return a self-signed certificate for a server name, such as DNS:redis.example; the key is beside it."""
    made = folder / f"{re.sub('[^a-z0-9]', '-', name.lower())}.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    command += ["-days", "2", "-subj", "/CN=redis", "-addext", f"subjectAltName={name}"]
    command += ["-keyout", str(made.with_suffix(".key")), "-out", str(made)]
    subprocess.run(command, check=True, capture_output=True)
    return made


class Sentinel:
    """A Sentinel that watches a primary named mymaster; `quorum` Sentinels must agree."""

    def __init__(self, folder: Path, primary: RedisServer, quorum: int) -> None:
        folder.mkdir(parents=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        configuration = folder / "sentinel.conf"
        lines = (
            f"port {self.port}",
            "bind 127.0.0.1",
            f"dir {folder}",
            f"sentinel monitor mymaster 127.0.0.1 {primary.port} {quorum}",
            "sentinel down-after-milliseconds mymaster 1000",
            "sentinel failover-timeout mymaster 5000",
        )
        configuration.write_text("\n".join(lines) + "\n")
        command = ["redis-server", str(configuration), "--sentinel"]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        self.client: Any = redis.Redis(port=self.port, retry=Retry(ConstantBackoff(0.05), 400))

    def primary(self) -> int:
        """Return the primary's port."""
        return int(self.client.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "mymaster")[1])

    def knows(self) -> tuple[int, int]:
        """Return the number of replicas and the number of other Sentinels."""
        asked = ("REPLICAS", "SENTINELS")
        found = [len(self.client.execute_command("SENTINEL", word, "mymaster")) for word in asked]
        return found[0], found[1]

    def fail_over(self) -> None:
        """Fail over to a replica, although the primary is alive."""
        self.client.execute_command("SENTINEL", "FAILOVER", "mymaster")

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


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
