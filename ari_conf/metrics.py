"""`/healthz`, `/readyz` and `/metrics` of `ari-conf serve`, for Prometheus, on an address of their own.

| metric | is |
|---|---|
| ari_conf_calls, _conferences, _members | that are there now |
| ari_conf_join_seconds | from being let in to being in the bridge, of those who had not to wait for the start |
| ari_conf_asterisk_connections_total | how often Asterisk connected: more than once is a reconnect |
| ari_conf_asterisk_connected | 1 while it is |
| ari_conf_asterisk_seconds, ari_conf_redis_seconds | round trips |
| ari_conf_loop_lag_seconds | by how much this process is late |
| ari_conf_owner | 1 if this process owns the calls, 0 if it is a standby |
| ari_conf_steps_waiting | steps not written to Redis yet |
| ari_conf_callbacks_dropped_total | callbacks that found no room in Redis |
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Protocol

import structlog
from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from ari_conf.core import events as ev
from ari_conf.core.directory import Directory
from ari_conf.settings import address

log = structlog.get_logger()

PROBE_EVERY_S = 5.0
LAG_EVERY_S = 0.25
SHORT = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)


class Steps(Protocol):
    away: bool

    @property
    def waiting(self) -> int: ...


class Owning(Protocol):
    @property
    def state(self) -> str: ...
    @property
    def waiting_for(self) -> str: ...


class Serve:
    def __init__(
        self,
        directory: Directory,
        steps: Steps,
        asterisk_is_there: Callable[[], bool],
        lease: Owning,
        hindered: Callable[[], str] = lambda: "",
    ) -> None:
        """`hindered`: by what this process is kept from taking calls, in a sentence."""
        self._hindered = hindered
        self._directory, self._steps, self._asterisk_is_there = directory, steps, asterisk_is_there
        self._lease = lease
        self.registry = registry = CollectorRegistry()
        self._joins = Histogram("ari_conf_join_seconds", "Let in, to in the bridge.", buckets=SHORT, registry=registry)
        self._connections = Counter("ari_conf_asterisk_connections", "Asterisk's.", registry=registry)
        self._asterisk = Histogram("ari_conf_asterisk_seconds", "A ping.", buckets=SHORT, registry=registry)
        self._redis = Histogram("ari_conf_redis_seconds", "A ping.", buckets=SHORT, registry=registry)
        self._lag = Histogram("ari_conf_loop_lag_seconds", "How late we are.", buckets=SHORT, registry=registry)
        self._dropped = Counter("ari_conf_callbacks_dropped", "No room in Redis.", registry=registry)
        self._recorded = Gauge("ari_conf_recording_folder_bytes", "Recordings that wait.", registry=registry)
        for name, count in (
            ("calls", lambda: len(directory.calls)),
            ("conferences", lambda: len(directory.conferences)),
            ("members", lambda: sum(len(c.members) for c in directory.conferences.values())),
            ("asterisk_connected", lambda: asterisk_is_there()),
            ("owner", lambda: lease.state == "owner"),
            ("steps_waiting", lambda: steps.waiting),
        ):
            Gauge(f"ari_conf_{name}", "Now.", registry=registry).set_function(count)

    def before(self, event: ev.Event, now: int) -> None:
        """Looked at before the core changes with it."""
        if not isinstance(event, ev.ChannelEnteredBridge):
            return
        conference = self._directory.conferences.get(event.bridge_id)
        for member in conference.members.values() if conference else ():
            # One who came before the start was let in, and waited: that is no latency of ours.
            if member.channel_id == event.channel_id and not member.been_in and member.enter_due:
                self._joins.observe((now - member.joined_at) / 1000)

    def connected(self) -> None:
        self._connections.inc()

    def dropped(self, callbacks: int) -> None:
        """As many of an account, or of a conference to a URL, wait in Redis as may."""
        self._dropped.inc(callbacks)

    def recorded(self, waiting_bytes: int) -> None:
        """In Asterisk's recording folder."""
        self._recorded.set(waiting_bytes)

    async def probe(self, asterisk: Callable[[], Awaitable[Any]], redis: Callable[[], Awaitable[Any]]) -> None:
        """For ever."""
        while True:
            if not self._steps.away:
                await _time(redis, self._redis)
            asterisk_is_there = self._asterisk_is_there()
            if asterisk_is_there:
                await _time(asterisk, self._asterisk)
            await asyncio.sleep(PROBE_EVERY_S if asterisk_is_there else LAG_EVERY_S)

    async def watch_loop(self) -> None:
        """For ever."""
        while True:
            began = time.perf_counter()
            await asyncio.sleep(LAG_EVERY_S)
            self._lag.observe(max(0.0, time.perf_counter() - began - LAG_EVERY_S))

    async def start(self, host: str, port: int) -> web.AppRunner | None:
        """None if the address can't be had: calls go on without being measured."""
        app = web.Application()
        app.router.add_get("/healthz", _healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._metrics)
        return await _listen(app, host, port)

    async def _readyz(self, _: web.Request) -> web.Response:
        """Without Redis calls go on, so only Asterisk decides; and a standby is not ready."""
        if hindered := self._hindered():
            return web.json_response({"hindered": hindered}, status=503)
        if self._lease.state != "owner":
            return web.json_response({"standby": self._standby()}, status=503)
        there = self._asterisk_is_there()
        told = {"asterisk": "connected" if there else "away", "redis": "away" if self._steps.away else "connected"}
        return web.json_response(told, status=200 if there else 503)

    def _standby(self) -> str:
        if self._lease.state == "standby":
            return f"{self._lease.waiting_for} is the owner; this process takes over when that one ends"
        return "this process is about to become the owner, or was it"

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=generate_latest(self.registry), headers={"Content-Type": "text/plain; version=0.0.4"})


@asynccontextmanager
async def waiting(listen: str) -> AsyncGenerator[None]:
    """As long as Asterisk did not tell its name: alive, not ready, and nothing to measure."""

    async def readyz(_: web.Request) -> web.Response:
        return web.json_response({"asterisk": "away"}, status=503)

    app = web.Application()
    app.router.add_get("/healthz", _healthz)
    app.router.add_get("/readyz", readyz)
    runner = await _listen(app, *address(listen)) if listen else None
    try:
        yield
    finally:
        if runner is not None:
            await runner.cleanup()


async def _healthz(_: web.Request) -> web.Response:
    return web.json_response({"status": "ok"})


async def _listen(app: web.Application, host: str, port: int) -> web.AppRunner | None:
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError as error:
        log.warning("no metrics: set ARI_CONF_METRICS_LISTEN", listen=f"{host}:{port}", reason=error.strerror)
        await runner.cleanup()
        return None
    return runner


async def _time(ping: Callable[[], Awaitable[Any]], seconds: Histogram) -> None:
    began = time.perf_counter()
    try:
        await ping()
    except Exception as error:  # of Asterisk, of Redis: measured is what answers
        log.debug("not measured", reason=str(error))
    else:
        seconds.observe(time.perf_counter() - began)
