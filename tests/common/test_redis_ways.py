"""Tests of each way to reach a Redis, with real ones: TLS, a socket, an ACL user, Sentinels. The clients of `serve` and
`web`, and a Celery worker, all use the same URL."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import pytest
import redis

from ari_conf.common.redis_client import connect_in_threads
from ari_conf.doctor import run_check
from ari_conf.queues import command_queue, outbox
from ari_conf.settings import from_environment
from ari_conf.store import accounts, state_store
from tests.redis import RedisServer, certificate
from tests.tasks.fleet import ROOT, Receiver, Worker, callback, post, until
from tests.tasks.test_failover import Address

PASSWORD = "a/b?c#d@e:f%41 g,h"
ACL = next(line for line in (ROOT / "docs/operations/redis.md").read_text().splitlines() if line.startswith("user "))


def give_a_user(server: RedisServer) -> str:
    """Create a user as in docs/operations/redis.md, and return the part before the host in a URL."""
    words = ACL.replace("PASSWORD", "{}").split()[1:]
    server.client.execute_command("ACL", "SETUSER", *(word.format(PASSWORD) for word in words))
    # A client without a login may do nothing, from the next connection on.
    return f"{words[0]}:{quote(PASSWORD, safe='')}@"


def by_tls(server: RedisServer, tmp_path: Path) -> str:
    port, ca = server.begin_tls()
    return f"rediss://{give_a_user(server)}127.0.0.1:{port}/0?ssl_ca_certs={ca}"


def by_socket(server: RedisServer, tmp_path: Path) -> str:
    path = tmp_path / "r@1.sock"
    server.stop()
    server.start("--unixsocket", str(path))
    return f"unix://{give_a_user(server)}{path}?db=0"


WAYS = {"TLS": by_tls, "a socket": by_socket}


@contextmanager
def worker_of(url: str, tmp_path: Path, **more: str) -> Iterator[Worker]:
    worker = Worker(Address(url), tmp_path, **more)  # type: ignore[arg-type]
    try:
        yield worker
    finally:
        worker.end()


def inspected(url: str) -> None:
    """Check that workers answer `celery inspect`."""
    program = "from tasks import app; print(app.control.broadcast('ping', reply=True, limit=1, timeout=60))"
    command = [sys.executable, "-c", program]
    environment = os.environ | {"ARI_CONF_REDIS_URL": url, "PYTHONPATH": str(ROOT)}
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0 and "pong" in ran.stdout, ran


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
async def test_each_client_connects_by_the_same_url(way, redis_server: RedisServer, tmp_path: Path) -> None:
    """The password has every character that is special in URLs, and the user may do no more than the documentation
    says."""
    url = way(redis_server, tmp_path)
    settings = from_environment({"ARI_CONF_REDIS_URL": url})
    blocking = connect_in_threads(url, socket_timeout=5.0)
    accounts.add(blocking, 1, "MA1")
    for client in (state_store.connect(url), command_queue.connect(url)):
        assert await client.hexists(accounts.KEY, "MA1")
        await client.aclose()
    found = await asyncio.to_thread(run_check, "Redis", settings)
    assert found.passed and "appendonly" in found.text
    with worker_of(url, tmp_path) as worker, Receiver() as receiver:
        post(redis_server, [callback(f"{receiver.url}/{lane}", 1) for lane in range(3)])
        await asyncio.to_thread(receiver.wait, lambda: len(receiver.received) == 3, 60)
        await asyncio.to_thread(until, lambda: outbox.totals(redis_server.client).waiting == 0)
        if way is by_tls:
            # Callbacks need no broker: the worker may still be connecting to it.
            await asyncio.to_thread(until, lambda: "ready." in Path(worker.log.name).read_text(), 60)
            await asyncio.to_thread(inspected, url)
        assert worker.process.poll() is None
    log = Path(worker.log.name).read_text()
    assert quote(PASSWORD, safe="") not in log and PASSWORD not in log
    assert redis_server.client.execute_command("ACL", "LOG") == []
    assert {key.split(b":")[0] for key in redis_server.client.scan_iter()} == {b"ari_conf"}
    blocking.close()


# A server that is not the one that it claims to be.


def is_not_spoken_to(server: RedisServer) -> bool:
    """Return True if no command came from a client other than the test's: an AUTH or HELLO would contain the
    password."""
    told = server.client.info("commandstats")
    return not {"cmdstat_auth", "cmdstat_hello"} & {key for key, value in told.items() if value["calls"]}


@pytest.mark.parametrize("wrong", ["another's name", "another's CA"])
async def test_a_server_with_a_wrong_certificate_receives_no_password(
    wrong: str, redis_server: RedisServer, tmp_path: Path
) -> None:
    port, made = redis_server.begin_tls("DNS:redis.example" if wrong == "another's name" else "IP:127.0.0.1")
    ca = made if wrong == "another's name" else certificate(tmp_path, "IP:127.0.0.1")
    admin = redis.Redis(port=redis_server.port, protocol=2)
    redis_server.client = admin
    url = f"rediss://:hunter2@127.0.0.1:{port}/0?ssl_ca_certs={ca}"
    settings = from_environment({"ARI_CONF_REDIS_URL": url})
    admin.config_resetstat()
    with worker_of(url, tmp_path) as worker:
        log = Path(worker.log.name)
        await asyncio.to_thread(until, lambda: "CERTIFICATE_VERIFY_FAILED" in log.read_text(), 60)
        for client in (state_store.connect(url), command_queue.connect(url)):
            with pytest.raises(redis.ConnectionError, match="CERTIFICATE_VERIFY_FAILED"):
                await client.ping()
            await client.aclose()
        with pytest.raises(redis.ConnectionError, match="CERTIFICATE_VERIFY_FAILED"):
            connect_in_threads(url).ping()
        found = await asyncio.to_thread(run_check, "Redis", settings)
        assert not found.passed and "ssl_ca_certs" in found.text
        assert worker.process.poll() is None, "the worker tries again"
    assert is_not_spoken_to(redis_server)
    assert "hunter2" not in log.read_text() + found.text
    admin.close()


async def test_an_acl_that_forbids_something_is_found_by_the_doctor(redis_server: RedisServer) -> None:
    for forbidden in ("resetchannels", "-@scripting", "resetkeys ~ari_conf:c*"):
        redis_server.client.execute_command("ACL", "SETUSER", "u", "reset", "on", ">p", "~*", "&*", "+@all")
        redis_server.client.execute_command("ACL", "SETUSER", "u", *forbidden.split())
        settings = from_environment({"ARI_CONF_REDIS_URL": f"redis://u:p@127.0.0.1:{redis_server.port}/0"})
        found = await asyncio.to_thread(run_check, "Redis", settings)
        assert not found.passed and "docs/operations/redis.md" in found.text, forbidden
