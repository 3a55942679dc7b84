"""HTTP endpoints `/healthz`, `/readyz` and `/metrics` of `ari-conf serve`, for Prometheus, on an address of their own.

| metric | value |
|---|---|
| ari_conf_build_info | 1, with the label `version` |
| ari_conf_calls, _conferences, _members | present number |
| ari_conf_join_seconds | from admission to being in the bridge, of members who did not wait for the start |
| ari_conf_asterisk_connections_total | connections of Asterisk; each after the first is a reconnection |
| ari_conf_asterisk_connected | 1 while Asterisk is connected |
| ari_conf_asterisk_seconds, ari_conf_redis_seconds | round trips of pings |
| ari_conf_loop_lag_seconds | delay of this process's event loop |
| ari_conf_owner | 1 if this process owns the calls, 0 if it is a standby |
| ari_conf_steps_waiting | steps not written to Redis yet |
| ari_conf_callbacks_dropped_total | callbacks that found no room in Redis |
| ari_conf_calls_placed_total | placed calls that are over, by `trunk` and `outcome` |
| ari_conf_line_mos | estimated mean opinion score of a member's line, at each measurement |
| ari_conf_line_loss_ratio | lost packets of a line, by `direction`: `in` is from the phone, `out` is to it |
| ari_conf_line_jitter_seconds | jitter of a line, by `direction` |
| ari_conf_line_round_trip_seconds | round trip between Asterisk and a phone that sends RTCP reports |
| ari_conf_bad_lines | present members whose line is bad |
| ari_conf_recording_folder_bytes | size of Asterisk's recording folder, if ARI_CONF_RECORDING_FOLDER is set |
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Protocol

import structlog
from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, generate_latest

from ari_conf.common.version import VERSION
from ari_conf.core import events as ev
from ari_conf.core.engine import Engine
from ari_conf.core.quality import BAD_MOS, GOOD_MOS, LineFigures
from ari_conf.settings import parse_listen_address

log = structlog.get_logger()

PROBE_INTERVAL_S = 5.0
LAG_INTERVAL_S = 0.25
LATENCY_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)


MOS_BUCKETS = (1.5, 2.0, 2.6, BAD_MOS, GOOD_MOS, 4.0, 4.3, 4.5)
LOSS_BUCKETS = (0.0, 0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1.0)
JITTER_BUCKETS = (0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5)
ROUND_TRIP_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1, 2.5)


class WriteBacklog(Protocol):
    redis_unavailable: bool

    @property
    def backlog(self) -> int: ...


class LeaseView(Protocol):
    @property
    def state(self) -> str: ...
    @property
    def current_owner(self) -> str: ...


class ServerMetrics:
    def __init__(
        self,
        engine: Engine,
        steps: WriteBacklog,
        asterisk_is_there: Callable[[], bool],
        lease: LeaseView,
        hindered: Callable[[], str] = lambda: "",
    ) -> None:
        """Create the metrics. `hindered` returns a sentence on what keeps this process from taking calls, or ""."""
        self._hindered = hindered
        self._engine, self._steps, self._asterisk_is_there = engine, steps, asterisk_is_there
        self._lease = lease
        self.registry = registry = CollectorRegistry()
        self._joins = Histogram(
            "ari_conf_join_seconds",
            "Time from a member's admission until the channel is in the bridge.",
            buckets=LATENCY_BUCKETS,
            registry=registry,
        )
        self._connections = Counter(
            "ari_conf_asterisk_connections", "Event WebSockets established with Asterisk.", registry=registry
        )
        self._asterisk = Histogram(
            "ari_conf_asterisk_seconds", "Round-trip time of an ARI ping.", buckets=LATENCY_BUCKETS, registry=registry
        )
        self._redis = Histogram(
            "ari_conf_redis_seconds", "Round-trip time of a Redis PING.", buckets=LATENCY_BUCKETS, registry=registry
        )
        self._lag = Histogram(
            "ari_conf_loop_lag_seconds",
            "Delay of the server's event loop.",
            buckets=LATENCY_BUCKETS,
            registry=registry,
        )
        self._dropped = Counter(
            "ari_conf_callbacks_dropped", "Callbacks that were dropped because Redis had no room.", registry=registry
        )
        self._placed = Counter(
            "ari_conf_calls_placed",
            "Placed calls that are over, by trunk and outcome.",
            ("trunk", "outcome"),
            registry=registry,
        )
        self._refused = Counter(
            "ari_conf_dial_refusals",
            "Calls that this process refused to place, by reason.",
            ("reason",),
            registry=registry,
        )
        self._recorded = Gauge(
            "ari_conf_recording_folder_bytes",
            "Bytes in Asterisk's recording folder that are not stored yet.",
            registry=registry,
        )
        self._mos = Histogram(
            "ari_conf_line_mos", "Estimated mean opinion score of a line.", buckets=MOS_BUCKETS, registry=registry
        )
        self._loss = Histogram(
            "ari_conf_line_loss_ratio",
            "Share of a line's packets that are lost.",
            ("direction",),
            buckets=LOSS_BUCKETS,
            registry=registry,
        )
        self._jitter = Histogram(
            "ari_conf_line_jitter_seconds",
            "Interarrival jitter of a line.",
            ("direction",),
            buckets=JITTER_BUCKETS,
            registry=registry,
        )
        self._round_trip = Histogram(
            "ari_conf_line_round_trip_seconds",
            "Round trip between Asterisk and a phone.",
            buckets=ROUND_TRIP_BUCKETS,
            registry=registry,
        )
        for histogram in (self._loss, self._jitter):
            for direction in ("in", "out"):
                histogram.labels(direction)  # exposed from the start on
        add_build_info(registry)
        for name, text, count in (
            ("calls", "Active calls.", lambda: len(engine.calls)),
            ("conferences", "Active conferences.", lambda: len(engine.conferences)),
            (
                "members",
                "Members of all active conferences.",
                lambda: sum(len(c.members) for c in engine.conferences.values()),
            ),
            (
                "bad_lines",
                "Present members whose line is bad.",
                lambda: sum(
                    m.is_present and m.quality is not None and m.quality.bad
                    for c in engine.conferences.values()
                    for m in c.members.values()
                ),
            ),
            (
                "asterisk_connected",
                "1 while an event WebSocket to Asterisk is open.",
                lambda: asterisk_is_there(),
            ),
            ("owner", "1 while this process holds the lease.", lambda: lease.state == "owner"),
            ("steps_waiting", "Steps that are not yet written to Redis.", lambda: steps.backlog),
        ):
            Gauge(f"ari_conf_{name}", text, registry=registry).set_function(count)

    def observe_event(self, event: ev.Event, now: int) -> None:
        """Measure how long a member took to join, and members' lines; called before the engine handles the event."""
        if isinstance(event, ev.LineMeasured):
            self._observe_line(event.measurement.interval)
        if not isinstance(event, ev.ChannelEnteredBridge):
            return
        conference = self._engine.registry.conference_of_bridge(event.bridge_id)
        for member in conference.members.values() if conference else ():
            # A member who came before the start was admitted and waited: that is not the server's latency.
            if member.channel_id == event.channel_id and not member.has_entered_bridge and member.enter_due:
                self._joins.observe((now - member.joined_at) / 1000)

    def _observe_line(self, figures: LineFigures) -> None:
        self._mos.observe(figures.mos)
        for direction, loss, jitter_ms in (
            ("in", figures.loss_in, figures.jitter_in_ms),
            ("out", figures.loss_out, figures.jitter_out_ms),
        ):
            if loss is not None:
                self._loss.labels(direction).observe(loss / 100)
            if jitter_ms is not None:
                self._jitter.labels(direction).observe(jitter_ms / 1000)
        if figures.round_trip_ms is not None:
            self._round_trip.observe(figures.round_trip_ms / 1000)

    def count_connection(self) -> None:
        self._connections.inc()

    def count_refused(self, reason: str) -> None:
        self._refused.labels(reason).inc()

    def count_dropped(self, callbacks: int) -> None:
        """Count callbacks that Redis had no room for: their account, or their conference and URL, has the maximum."""
        self._dropped.inc(callbacks)

    def count_placed(self, trunk: str, outcome: str) -> None:
        """Count a placed call that is over. `outcome`: answered, or why it was not."""
        self._placed.labels(trunk, outcome).inc()

    def set_recording_bytes(self, waiting_bytes: int) -> None:
        """Set the size of Asterisk's recording folder."""
        self._recorded.set(waiting_bytes)

    async def probe(self, asterisk: Callable[[], Awaitable[Any]], redis: Callable[[], Awaitable[Any]]) -> None:
        """Measure the round trips to Asterisk and Redis, indefinitely."""
        while True:
            if not self._steps.redis_unavailable:
                await _measure(redis, self._redis)
            asterisk_is_there = self._asterisk_is_there()
            if asterisk_is_there:
                await _measure(asterisk, self._asterisk)
            await asyncio.sleep(PROBE_INTERVAL_S if asterisk_is_there else LAG_INTERVAL_S)

    async def watch_loop(self) -> None:
        """Measure the delay of the event loop, indefinitely."""
        while True:
            started_at = time.perf_counter()
            await asyncio.sleep(LAG_INTERVAL_S)
            self._lag.observe(max(0.0, time.perf_counter() - started_at - LAG_INTERVAL_S))

    async def start(self, host: str, port: int) -> web.AppRunner | None:
        """Start the HTTP server. Returns None if the address is not available: calls continue unmeasured."""
        app = web.Application()
        app.router.add_get("/healthz", _healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._metrics)
        return await _listen(app, host, port)

    async def _readyz(self, _: web.Request) -> web.Response:
        """Report readiness. Calls continue without Redis, so only Asterisk decides; a standby is not ready."""
        if hindered := self._hindered():
            return web.json_response({"hindered": hindered}, status=503)
        if self._lease.state != "owner":
            return web.json_response({"standby": self._standby_reason()}, status=503)
        is_connected = self._asterisk_is_there()
        state = {
            "asterisk": "connected" if is_connected else "away",
            "redis": "away" if self._steps.redis_unavailable else "connected",
        }
        return web.json_response(state, status=200 if is_connected else 503)

    def _standby_reason(self) -> str:
        if self._lease.state == "standby":
            return f"{self._lease.current_owner} is the owner; this process takes over when the owner ends"
        return "this process is about to become the owner, or has lost the lease"

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=generate_latest(self.registry), headers={"Content-Type": "text/plain; version=0.0.4"})


@asynccontextmanager
async def serve_not_ready(listen: str) -> AsyncGenerator[None]:
    """Serve health as alive but not ready, and no metrics, while Asterisk has not told its name."""

    async def readyz(_: web.Request) -> web.Response:
        return web.json_response({"asterisk": "away"}, status=503)

    app = web.Application()
    app.router.add_get("/healthz", _healthz)
    app.router.add_get("/readyz", readyz)
    runner = await _listen(app, *parse_listen_address(listen)) if listen else None
    try:
        yield
    finally:
        if runner is not None:
            await runner.cleanup()


def add_build_info(registry: CollectorRegistry) -> None:
    """Add ari_conf_build_info, which every measured process has."""
    Info("ari_conf_build", "Version of this process.", registry=registry).info({"version": VERSION})


async def _healthz(_: web.Request) -> web.Response:
    return web.json_response({"status": "ok", "version": VERSION})


async def _listen(app: web.Application, host: str, port: int) -> web.AppRunner | None:
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError as error:
        log.warning(
            "metrics endpoint not started",
            listen=f"{host}:{port}",
            reason=error.strerror,
            hint="set ARI_CONF_METRICS_LISTEN to a free address",
        )
        await runner.cleanup()
        return None
    return runner


async def _measure(ping: Callable[[], Awaitable[Any]], seconds: Histogram) -> None:
    started_at = time.perf_counter()
    try:
        await ping()
    except Exception as error:  # of Asterisk or Redis: only answers are measured
        log.debug("probe failed", reason=str(error))
    else:
        seconds.observe(time.perf_counter() - started_at)
