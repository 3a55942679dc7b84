"""Another Redis becomes the primary, under the same address: real workers find it, and deliver what waits there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ari_conf import accounts, outbox
from tests.redis import RedisServer, start
from tests.tasks.fleet import Receiver, Worker, callback, post, until
from tests.tasks.proxy import Proxy


@dataclass
class Address:
    """Of a proxy, as `Worker` wants it."""

    url: str


def test_a_worker_delivers_what_waits_at_the_new_primary(redis_server: RedisServer, tmp_path: Path) -> None:
    """The old one lives, is a replica now, and keeps the connections that it has."""
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
