"""Failover to another Redis, at the same address or through Sentinels: all processes find it and continue there."""

from __future__ import annotations

import http.client
import itertools
import os
import subprocess
import sys
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import redis

from ari_conf.local.processes import free_port
from ari_conf.ownership import lease
from ari_conf.queues import outbox
from ari_conf.store import accounts
from tests.redis import RedisServer, Sentinel, start
from tests.tasks.fleet import ROOT, Receiver, Worker, callback, post, until
from tests.tasks.proxy import Proxy


@dataclass
class Address:
    """A proxy's address in the form that `Worker` takes."""

    url: str


def test_a_worker_delivers_what_waits_at_the_new_primary(redis_server: RedisServer, tmp_path: Path) -> None:
    """The old primary lives on as a replica and keeps its connections."""
    replica = start(tmp_path / "replica")
    proxy = Proxy(redis_server.port)
    accounts.add(redis_server.client, 1, "MA1")
    replica.follow(redis_server)
    worker = Worker(Address(f"redis://127.0.0.1:{proxy.port}/0"), tmp_path)  # type: ignore[arg-type]
    try:
        with Receiver() as receiver:
            post(redis_server, [callback(f"{receiver.url}/{lane}", 1) for lane in range(4)])
            receiver.wait(lambda: len(receiver.received) == 4, 60)
            until(lambda: outbox.totals(replica.client).waiting == 0)
            replica.promote()
            redis_server.client.replicaof("127.0.0.1", replica.port)
            proxy.target = replica.port
            post(replica, [callback(f"{receiver.url}/{lane}", n) for n in (2, 3) for lane in range(4)])
            receiver.wait(lambda: len(receiver.received) >= 12, 60)
            assert [receiver.numbers(f"/{lane}") for lane in range(4)] == [[1, 2, 3]] * 4
            until(lambda: outbox.totals(replica.client).waiting == 0)
        assert worker.process.poll() is None, "the worker ended"
    finally:
        worker.end()
        proxy.end()
        replica.kill()


@contextmanager
def process(name: str, folder: Path, **values: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run `ari-conf NAME`."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | {f"ARI_CONF_{key}": text for key, text in values.items()}
    with (folder / f"{name}.log").open("wb") as log:
        command = [sys.executable, "-m", "ari_conf", name]
        running = subprocess.Popen(command, env=environment, cwd=folder, stdout=log, stderr=log)
        try:
            yield running
        finally:
            running.terminate()
            running.wait(60)


def answers(port: int, token: str) -> bool:
    """Return True if `web` serves a request, for which it must write, because it counts requests."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        login = b64encode(f"MA1:{token}".encode()).decode()
        connection.request("GET", "/v1/Account/MA1/Recording/", headers={"Authorization": f"Basic {login}"})
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def beat(server: RedisServer) -> int:
    """Return the heartbeat of `serve`, which renews its lease twice a second."""
    return int(server.client.hget(lease.lease_key("pbx"), "heartbeat") or 0)


def is_primary(server: RedisServer) -> bool:
    try:
        return bool(server.client.role()[0] == b"master")
    except redis.RedisError:
        return False


def test_all_follow_what_the_sentinels_say(redis_server: RedisServer, tmp_path: Path) -> None:
    """In the first failover the old primary lives on as a replica; in the second the new primary dies."""
    other = start(tmp_path / "other")
    other.follow(redis_server)
    sentinels = [Sentinel(tmp_path / f"sentinel{n}", redis_server, 2) for n in range(3)]
    nobody = free_port()
    hosts = ",".join(f"127.0.0.1:{port}" for port in (nobody, *(one.port for one in sentinels)))
    url, port = f"redis+sentinel://{hosts}/mymaster", free_port()
    token = accounts.add(redis_server.client, 1, "MA1").token
    values = {"REDIS_URL": url, "ASTERISK_NAME": "pbx", "SOUNDS_FOLDER": str(tmp_path / "sounds"), "METRICS_LISTEN": ""}
    asterisk = {"ARI_URL": "http://127.0.0.1:1/ari", "ARI_SOCKET": "outbound", "ARI_LISTEN": f"127.0.0.1:{free_port()}"}
    worker = Worker(Address(url), tmp_path)  # type: ignore[arg-type]
    try:
        with (
            process("serve", tmp_path, **values, **asterisk) as serve,
            process("web", tmp_path, **values, WEB_LISTEN=f"127.0.0.1:{port}") as web,
            Receiver() as receiver,
        ):
            numbers = itertools.count(1)

            def all_work_at(server: RedisServer) -> None:
                number = next(numbers)
                before = beat(server)
                post(server, [callback(f"{receiver.url}/{lane}", number) for lane in range(4)])
                until(lambda: beat(server) > before, 60)
                until(lambda: answers(port, token), 60)
                receiver.wait(lambda: len(receiver.received) >= 4 * number, 60)
                until(lambda: outbox.totals(server.client).waiting == 0, 60)

            until(lambda: beat(redis_server) > 0, 60)
            all_work_at(redis_server)
            until(lambda: all(one.knows() == (1, 2) for one in sentinels), 60)
            sentinels[0].fail_over()
            until(lambda: is_primary(other) and not is_primary(redis_server), 60)
            until(lambda: all(one.primary() == other.port for one in sentinels), 60)
            all_work_at(other)
            until(lambda: redis_server.client.info("replication")["master_link_status"] == "up", 60)
            until(lambda: outbox.totals(redis_server.client).waiting == 0, 60)
            other.kill()
            until(lambda: is_primary(redis_server), 90)
            all_work_at(redis_server)
            assert [receiver.numbers(f"/{lane}") for lane in range(4)] == [[1, 2, 3]] * 4
            assert [one.poll() for one in (serve, web, worker.process)] == [None] * 3, "a process ended"
    finally:
        worker.end()
        for one in sentinels:
            one.kill()
        other.kill()
