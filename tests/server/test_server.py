"""Tests of the start and end of `serve`: a part that ends unexpectedly ends the process, and another may take the
calls."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pytest_httpserver import HTTPServer
from redis import Redis
from structlog.testing import capture_logs

from ari_conf.core.problem_kinds import ProblemKind
from ari_conf.errors import SetupFailed, TaskEnded
from ari_conf.local.processes import free_port, port_answers
from ari_conf.ownership import lease
from ari_conf.server import composition
from ari_conf.server.composition import build_server
from ari_conf.settings import Settings, from_environment
from tests import lateness
from tests.redis import RedisServer

NAME = "pbx"
PARTS = {
    "the lease renewal": "ari_conf.ownership.lease.OwnershipLease.renew_until_lost",
    "the writer": "ari_conf.server.step_writer.StepWriter.run",
    "the state rewriter": "ari_conf.server.state_rewriter.StateRewriter.run",
    "the command consumer": "ari_conf.queues.command_queue.CommandConsumer.run",
    "the clock": "ari_conf.server.clock.Clock.run",
    "the owner.s mark in Asterisk": "ari_conf.ownership.owner_mark.OwnerMark.run",
    "the reconciliation with Asterisk": "ari_conf.server.reconciler.Reconciler.run",
    "the connection to Asterisk": "ari_conf.ari.event_sockets.EventSockets._connect_if_not_receiving",
    "the recording disk monitor": "ari_conf.server.recording_disk.monitor",
    "the probe of Asterisk and Redis": "ari_conf.observability.server_metrics.ServerMetrics.probe",
    "the event-loop monitor": "ari_conf.observability.server_metrics.ServerMetrics.watch_loop",
    "the Asterisk identity check": "ari_conf.ownership.asterisk_identity.IdentityCheck.watch",
}


def environment(url: str, folder: Path, **more: str) -> dict[str, str]:
    """Return settings without an Asterisk; the server waits for it."""
    return {
        "ARI_CONF_REDIS_URL": url,
        "ARI_CONF_ARI_URL": "http://127.0.0.1:1/ari",
        "ARI_CONF_ARI_SOCKET": "outbound",
        "ARI_CONF_ARI_LISTEN": f"127.0.0.1:{free_port()}",
        "ARI_CONF_ASTERISK_NAME": NAME,
        "ARI_CONF_METRICS_LISTEN": "",
        "ARI_CONF_RECORDING_FOLDER": str(folder),
        "ARI_CONF_SOUNDS_FOLDER": str(folder / "sounds"),
        **more,
    }


@pytest.fixture
def settings(redis_server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    # No other process can claim to own the calls.
    monkeypatch.setattr(lease, "EMPTY_REDIS_WAIT_S", 0.0)
    return from_environment(environment(redis_server.url, tmp_path))


def owner(client: Any) -> str:
    """Return the token of the calls' owner; "" if it was given back, "-" if there never was one."""
    found = client.get(lease.owner_key(NAME))
    return "-" if found is None else str(found.decode())


async def until(what: Callable[[], Any], within: float = 20.0) -> None:
    async with lateness.timeout():
        while not what():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("how", ["ends", "breaks"])
@pytest.mark.parametrize("part", PARTS)
async def test_a_component_that_ends_ends_the_process_and_releases_the_lease(
    part: str, how: str, settings: Settings, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No part can end unnoticed: nothing would do its work, and no standby would take over."""

    with capture_logs() as logged:

        async def ends(*_: object, **__: object) -> None:
            await until(lambda: any(line["event"] == "lease acquired" for line in logged))
            if how == "breaks":
                raise ZeroDivisionError

        monkeypatch.setattr(PARTS[part], ends)
        with pytest.raises(TaskEnded, match=part):
            await lateness.soon(build_server(settings).run(asyncio.Event()))
    assert owner(redis_server.client) == "", "the lease has been given back"


async def test_an_inbound_websocket_that_raises_ends_the_process(
    redis_server: RedisServer, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def breaks(_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("ari_conf.ari.event_sockets.EventSockets._keep_connected", breaks)
    inbound = from_environment(environment(redis_server.url, tmp_path, ARI_CONF_ARI_SOCKET="inbound"))
    with pytest.raises(TaskEnded, match="the connection to Asterisk raised ZeroDivisionError"):
        await lateness.soon(build_server(inbound).run(asyncio.Event()))
    assert owner(redis_server.client) == ""


async def test_a_failed_setup_raises_its_error_and_releases_the_lease(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    settings = from_environment(environment(redis_server.url, tmp_path, ARI_CONF_ARI_LISTEN="192.0.2.1:99"))
    with pytest.raises(SetupFailed, match="can't listen"):
        await lateness.soon(build_server(settings).run(asyncio.Event()))
    assert owner(redis_server.client) == ""


async def test_a_stopped_server_releases_the_lease(settings: Settings, redis_server: RedisServer) -> None:
    stop = asyncio.Event()
    running = asyncio.create_task(build_server(settings).run(stop))
    await until(lambda: owner(redis_server.client) not in ("", "-"))
    stop.set()
    await lateness.soon(running)
    assert owner(redis_server.client) == ""


async def test_a_server_stops_while_redis_is_unreachable(
    settings: Settings, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stop comes after the lease was acquired and before the calls' state was read, which waits until Redis
    returns."""
    stop, away = asyncio.Event(), asyncio.Event()
    service = build_server(settings)

    async def restore(*_: object) -> None:
        redis_server.kill()
        away.set()
        await asyncio.Event().wait()

    monkeypatch.setattr("ari_conf.server.takeover.restore", restore)
    running = asyncio.create_task(service.run(stop))
    await lateness.soon(away.wait())
    stop.set()
    await lateness.soon(running)


async def test_a_takeover_by_another_process_ends_the_wait_for_redis(
    settings: Settings, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    restoring = asyncio.Event()

    async def restore(*_: object) -> None:
        restoring.set()
        await asyncio.Event().wait()

    monkeypatch.setattr("ari_conf.server.takeover.restore", restore)
    running = asyncio.create_task(build_server(settings).run(asyncio.Event()))
    await lateness.soon(restoring.wait())
    redis_server.client.set(lease.owner_key(NAME), "9.another")
    redis_server.client.hset(lease.lease_key(NAME), "number", 9)
    with pytest.raises(Exception, match="another process has taken over"):
        await lateness.soon(running)
    assert owner(redis_server.client) == "9.another"


async def test_unwritten_steps_are_logged_at_shutdown(settings: Settings, redis_server: RedisServer) -> None:
    stop = asyncio.Event()
    service = build_server(settings)
    running = asyncio.create_task(service.run(stop))
    await until(lambda: owner(redis_server.client) not in ("", "-"))
    redis_server.kill()
    with capture_logs() as logged:
        for n in range(3):
            service.report("A", ProblemKind.RECORDINGS_WAIT, f"problem {n}")
        stop.set()
        await lateness.soon(running)
    (line,) = (line for line in logged if line["event"] == "steps lost at shutdown")
    assert line["steps"] == 3 and line["log_level"] == "error"


@pytest.fixture
def process(redis_server: RedisServer, tmp_path: Path) -> Any:
    started: list[subprocess.Popen[str]] = []

    def start(broken: str) -> subprocess.Popen[str]:
        """Start `ari-conf serve` with that function raising after a while."""
        code = f"""
import sys, asyncio
import ari_conf.server.server
from ari_conf.__main__ import main
async def breaks(*_, **__):
    await asyncio.sleep(0.2)
    raise ZeroDivisionError
{broken}
sys.argv[1:] = ["serve"]
main()
"""
        env = os.environ | environment(redis_server.url, tmp_path, ARI_CONF_LOG_FORMAT="json")
        command = [sys.executable, "-c", code]
        started.append(subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for each in started:
        if each.poll() is None:
            each.kill()
        each.communicate()


def test_the_process_ends_with_an_error_and_a_status(process: Any, redis_server: RedisServer) -> None:
    """systemd then starts it again."""
    broken = process("from ari_conf.server.step_writer import StepWriter; StepWriter.run = breaks")
    _, said = broken.communicate(timeout=60)
    assert broken.returncode == 1
    assert '"level":"critical"' in said and "the writer raised ZeroDivisionError" in said
    assert owner(redis_server.client) == ""


def test_while_nothing_breaks_it_runs_and_a_signal_ends_it_with_status_0(
    process: Any, redis_server: RedisServer
) -> None:
    whole = process("")
    client = Redis.from_url(redis_server.url)
    deadline = time.monotonic() + 60
    while owner(client) in ("", "-"):
        assert whole.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    whole.send_signal(signal.SIGTERM)
    _, said = whole.communicate(timeout=60)
    assert whole.returncode == 0, said


async def test_asterisk_is_asked_for_its_name_if_none_is_set(httpserver: HTTPServer) -> None:
    info = {"system": {"version": "22.10.1", "entity_id": "02:00:00:00:00:07"}}
    httpserver.expect_request("/ari/asterisk/info").respond_with_json(info)
    given = {"ARI_CONF_ARI_URL": httpserver.url_for("/ari"), "ARI_CONF_METRICS_LISTEN": ""}
    named = await composition._with_asterisk_name(from_environment(given), asyncio.Event())
    assert named is not None and named.asterisk_name == "02:00:00:00:00:07"
    set_here = await composition._with_asterisk_name(
        from_environment(given | {"ARI_CONF_ASTERISK_NAME": "pbx"}), asyncio.Event()
    )
    assert set_here is not None and set_here.asterisk_name == "pbx"


async def test_a_server_that_waits_for_the_asterisk_name_can_be_stopped() -> None:
    stop = asyncio.Event()
    given = {"ARI_CONF_ARI_URL": "http://127.0.0.1:1/ari", "ARI_CONF_METRICS_LISTEN": f"127.0.0.1:{free_port()}"}
    waiting = asyncio.create_task(composition._with_asterisk_name(from_environment(given), stop))
    await until(lambda: port_answers("127.0.0.1", int(given["ARI_CONF_METRICS_LISTEN"].rpartition(":")[2])))
    assert not waiting.done()
    stop.set()
    assert await lateness.soon(waiting) is None
