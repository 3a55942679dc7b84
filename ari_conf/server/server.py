"""Conference server: the only place that wires the components of `serve`, with its start and its shutdown."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import uuid
from collections.abc import Coroutine
from typing import Any, cast

import structlog
from aiohttp.web import AppRunner

from ari_conf.ari import translate
from ari_conf.ari.address import Server
from ari_conf.ari.client import Client
from ari_conf.ari.repeated_digits import RepeatedDigitFilter
from ari_conf.common.supervision import LongLived, Tasks, cancel_and_wait
from ari_conf.core import effects as do
from ari_conf.core import events as ev
from ari_conf.core.engine import Engine
from ari_conf.core.problem_kinds import ProblemKind
from ari_conf.core.restoration import Restoration
from ari_conf.errors import LeaseLost
from ari_conf.http_client.fetch import Fetcher
from ari_conf.media import sound_server
from ari_conf.media.sounds import SoundPreparer
from ari_conf.observability.log_fields import fields_of, log_item
from ari_conf.observability.server_metrics import ServerMetrics, serve_not_ready
from ari_conf.ownership import asterisk_identity
from ari_conf.ownership.gate import LeaseGate
from ari_conf.ownership.lease import OwnershipLease
from ari_conf.ownership.owner_mark import OwnerMark
from ari_conf.queues.command_queue import CommandConsumer
from ari_conf.server import recording_disk, takeover, unreadable_state
from ari_conf.server.clock import Clock
from ari_conf.server.effect_runner import EffectRunner
from ari_conf.server.engine_loop import EngineLoop
from ari_conf.server.name_claims import NameClaims
from ari_conf.server.reconciler import Reconciler
from ari_conf.server.rtp_monitor import RtpMonitor
from ari_conf.server.state_rewriter import StateRewriter
from ari_conf.server.step_builder import StepBuilder
from ari_conf.server.step_writer import StepWriter
from ari_conf.settings import Settings, parse_listen_address
from ari_conf.store import state_store as redis_store
from ari_conf.store.state_store import StateStore

log = structlog.get_logger()

GC_THRESHOLDS = 10_000, 20, 50
"""Thresholds of the garbage collector's three generations."""
TAKEOVER_SOCKET_TIMEOUT_S = 1.5
"""Seconds that Asterisk has to open its WebSocket, if the previous owner did not release the lease."""


def new_id() -> str:
    return str(uuid.uuid4())


class ConferenceServer:
    def __init__(self, settings: Settings, clock: Clock | None = None) -> None:
        """Wire the components. `settings` must name the Asterisk."""
        assert settings.asterisk_name
        self._settings, self._name = settings, settings.asterisk_name
        self._clock = clock or Clock()
        now_ms = self._clock.now_ms
        self._engine = Engine(new_id, settings.public_url.rstrip("/"), settings.calls_per_account)
        self._redis = redis_store.connect(settings.redis_url.get_secret_value())
        self._lease = OwnershipLease(
            self._redis,
            self._name,
            on_data_loss=self._on_redis_forgot,
            confirmed_batch_id=lambda: self._state_store.confirmed,
        )
        self._gate = LeaseGate(self._lease, lambda event: self._engine_loop.receive(event))
        self._state_store = StateStore(
            self._redis,
            self._name,
            settings.problems_kept,
            fencing_token=lambda: self._lease.fencing_token,
            names_kept_s=settings.names_kept_minutes * 60,
            on_dropped=lambda number: self._metrics.count_dropped(number),
        )
        self._fetcher = Fetcher(settings.allowed_networks)
        self._sounds = SoundPreparer(settings, self._fetcher)
        self._ari = Client(_server(settings), self._on_ari_message, self._on_connected, permission=self._lease)
        self._owner_mark = OwnerMark(self._ari, settings.ari_app, self._name, self._lease)
        # This client needs no permission to act: only the owner has it, and a standby uses this client.
        self._standby_client = Client(_server(settings), lambda _event: None)
        self._identity_check = asterisk_identity.IdentityCheck(
            self._standby_client, settings.ari_app, self._name, self._lease
        )
        self._effect_runner = EffectRunner(
            self._ari,
            self._state_store,
            self._fetcher,
            self._sounds,
            settings.documents,
            self._gate.submit,
            lambda claim: self._name_claims.enqueue(claim),
            settings.recordings_wideband == "always",
            self._engine.owners,
            settings.jitter_buffer,
        )
        self._step_writer = StepWriter(
            self._state_store,
            self._execute,
            self._lease.mark_lost,
            lambda: self._step_builder.build_pending(now_ms()),
            lambda: self._state_rewriter.write_all(),
        )
        self._connected_once = asyncio.Event()
        """Event that is set once Asterisk has been connected."""
        self._commands = CommandConsumer(
            self._redis,
            self._name,
            self._gate.submit,
            lambda: self._ari.connected,
            lambda reply: self._engine_loop.reply(reply),
            self._connected_once.wait,
            now_ms,
        )
        self._step_builder = StepBuilder(self._engine, settings, self._commands.reply_writer)
        self._metrics = ServerMetrics(
            self._engine,
            self._step_writer,
            lambda: self._ari.connected,
            self._lease,
            lambda: self._owner_mark.rival or self._identity_check.other,
        )
        self._engine_loop = EngineLoop(
            self._engine,
            self._step_builder,
            self._step_writer,
            now_ms,
            observe=self._metrics.observe_event,
            submit_deadline=lambda: self._gate.submit(ev.DeadlineReached()),
            blocks_timers=lambda: self._reconciler.blocks_timers,
        )
        self._reconciler = Reconciler(
            self._ari,
            self._engine,
            self._effect_runner,
            deliver=self._gate.submit,
            on_ari_message=self._on_ari_message,
            replay=self._engine_loop.resume,
            abort=self._engine_loop.give_up,
            run=self._run,
            deadlines_allowed=self._engine_loop.set_timer,
        )
        self._rtp_monitor = RtpMonitor(
            self._ari,
            self._engine,
            self._gate.submit,
            lambda: self._ari.connected and not self._reconciler.blocks_timers,
            settings.rtp_timeout,
        )
        self._name_claims = NameClaims(
            self._engine, self._step_writer, self._engine_loop.report, self._reconciler.done, now_ms
        )
        self._state_rewriter = StateRewriter(
            self._engine, self._step_builder, self._state_store, self._step_writer, self._name_claims, now_ms
        )
        self._repeated_digits = RepeatedDigitFilter()
        self._tasks = Tasks()
        self._unreadable = list[do.ReportProblem]()
        """Further problems to report to accounts about records that can't be read."""

    async def run(self, stop: asyncio.Event) -> None:
        """Run until `stop` is set.

        Raises LeaseLost if another process has taken over, and TaskEnded if a long-lived task of this one ended.
        """
        measuring: AppRunner | None = None
        try:
            async with LongLived() as tasks:
                tasks.keep("the probe of Asterisk and Redis", self._probe)
                tasks.keep("the event-loop monitor", self._metrics.watch_loop)
                tasks.keep("the Asterisk identity check", self._identity_check.watch)
                if listen := self._settings.metrics_listen:
                    measuring = await self._metrics.start(*parse_listen_address(listen))
                if await self._in_time(stop, self._lease.acquire()):
                    await self._run_as_owner(tasks, stop)
        finally:
            self._gate.close()
            if measuring is not None:
                await measuring.cleanup()
            self._say_what_is_lost()
            if not self._is_over():
                # This process does nothing more for these calls, so the next one need not wait.
                await self._lease.release()
            await self._standby_client.close()
            await self._state_store.close()
            await self._redis.aclose()
        if self._lease.state == "lost" and not stop.is_set():
            raise LeaseLost(
                "lease lost: another process has taken over; this process was suspended, or could not reach Redis"
            )

    def report(self, auth_id: str, kind: ProblemKind, text: str) -> None:
        """Add a problem to those of the account."""
        self._engine_loop.report(auth_id, kind, text)

    async def _run_as_owner(self, tasks: LongLived, stop: asyncio.Event) -> None:
        serving = None
        try:
            tasks.keep("the lease renewal", self._lease.renew_until_lost, may_end=self._is_over)
            tasks.keep("the writer", self._step_writer.run, may_end=self._is_over)
            tasks.keep("the state rewriter", self._state_rewriter.run)
            if self._settings.sounds_url:
                serving = await sound_server.start(self._sounds, *parse_listen_address(self._settings.sounds_listen))
            restoration = Restoration(self._engine)
            if await self._in_time(stop, self._owner_mark.wait_until_no_rival()) and await self._in_time(
                stop, self._restore(restoration)
            ):
                given_up = restoration.finish(self._clock.now_ms())
                await self._serve(tasks, stop, [*given_up, *self._unreadable])
        finally:
            self._gate.close()
            self._engine_loop.stop()
            await self._tasks.close()
            await self._ari.close()
            await self._effect_runner.close()
            if serving is not None:
                await serving.cleanup()
            await self._sounds.close()
            await self._fetcher.close()

    async def _restore(self, restoration: Restoration) -> None:
        texts = await takeover.restore(self._state_store, restoration)
        calls = bool(self._engine.calls or self._engine.conferences)
        await self._clock.begin(self._redis, self._name, goes_on=calls)
        if texts:
            known = await unreadable_state.known(
                texts, self._engine, self._state_store, self._ari, self._clock.now_ms()
            )
            restoration.add_unreadable(known.calls, known.conferences)
            self._unreadable = known.problems

    async def _serve(self, tasks: LongLived, stop: asyncio.Event, given_up: list[do.Effect]) -> None:
        """Serve calls until `stop` is set. `given_up`: effects that end restored state that did not fit together."""
        settings = self._settings
        tasks.keep("the clock", lambda: self._clock.keep(self._redis, self._name))
        self._tasks.start(self._name_claims.claim_in_batches())
        self._tasks.start(self._clean())
        await self._ari.start(TAKEOVER_SOCKET_TIMEOUT_S if self._lease.succeeded_unreleased else None)
        # Asterisk is asked to execute these effects as soon as it is reachable.
        self._engine_loop.put(given_up)
        tasks.keep("the connection to Asterisk", self._ari.ended, may_end=stop.is_set)
        tasks.keep("the reconciliation with Asterisk", self._reconciler.keep)
        tasks.keep("the RTP monitor", self._rtp_monitor.run)
        tasks.keep("the search for unreported calls", self._reconciler.look_for_strangers)
        tasks.keep("the owner's mark in Asterisk", self._owner_mark.run, may_end=self._is_over)
        commanding = tasks.keep("the command consumer", self._commands.run, may_end=self._is_over)
        if folder := settings.recording_folder:
            tasks.keep(
                "the recording disk monitor",
                lambda: recording_disk.monitor(
                    folder, settings.recordings_limit_mb, self.report, self._metrics.set_recording_bytes
                ),
            )
        await self._in_time(stop, asyncio.Event().wait())
        if not self._is_over():
            commanding.cancel()
            await self._hand_over()

    async def _hand_over(self) -> None:
        """Stop receiving events, write and execute what was decided, and release the lease for another process."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._settings.stop_wait):
                await self._ari.finish()
                # While Redis is unreachable, this waits until `stop_wait` is over.
                await self._step_writer.wait_until_drained()
                await self._effect_runner.wait_until_idle()
                await self._step_writer.wait_until_drained()
        await self._effect_runner.stop_listening()
        await self._lease.release()

    def _say_what_is_lost(self) -> None:
        if self._step_writer.backlog:
            callbacks, recordings = self._step_writer.unwritten()
            log.error(
                "steps lost at shutdown",
                reason="Redis did not accept all steps in time",
                hint="raise ARI_CONF_STOP_WAIT, the time that the server waits for Redis",
                callbacks=callbacks,
                recordings=recordings,
                steps=self._step_writer.backlog,
                waited_s=self._settings.stop_wait,
                redis="unavailable" if self._step_writer.redis_unavailable else "available",
            )

    async def _in_time(self, stop: asyncio.Event, work: Coroutine[Any, Any, Any]) -> bool:
        """Return True if the work was done before `stop` was set or another process had taken over."""
        working = asyncio.create_task(work)
        over = [asyncio.create_task(stop.wait()), asyncio.create_task(self._lease.until_lost())]
        try:
            await asyncio.wait((working, *over), return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                working.result()
            return working.done() and not any(one.done() for one in over)
        finally:
            await cancel_and_wait(working, *over)
            if not working.cancelled():
                working.exception()  # retrieves it, even if the work ended too late

    def _is_over(self) -> bool:
        """Return True if another process owns the calls now, or may own them."""
        return self._lease.state != "owner"

    async def _probe(self) -> None:
        await self._metrics.probe(lambda: self._ari.request("GET", "/asterisk/ping"), self._ping)

    async def _ping(self) -> None:
        await cast(Any, self._redis).ping()

    def _on_ari_message(self, message: dict[str, Any]) -> None:
        if self._repeated_digits.told_again(message):
            return
        event = translate.to_event(message, new_id)
        if event is not None:
            self._rtp_monitor.heard(event)
            self._reconciler.arrival_gate.submit(event)

    def _on_redis_forgot(self) -> None:
        """Write all live state again from memory: Redis came back empty, or from an older copy."""
        self._state_rewriter.write_all()
        self._commands.reset_position()

    async def _clean(self) -> None:
        """Remove from Redis what the previous process left and what is unreadable or not needed, once reconciled."""
        await self._reconciler.done.wait()
        self._state_rewriter.clean()

    def _on_connected(self) -> None:
        self._connected_once.set()
        self._metrics.count_connection()
        self._rtp_monitor.connected()
        self._reconciler.start()
        self._tasks.start(self._reconciler.reconcile())

    def _run(self, effect: do.ExecutedEffect) -> None:
        log_item("effect", effect, fields_of(effect, self._engine.log_context))
        self._execute(effect)

    def _execute(self, effect: do.ExecutedEffect) -> None:
        self._effect_runner.run(effect)
        if isinstance(effect, do.IdentifyCall | do.Answer):
            # Every call starts with IdentifyCall; a call that arrived unanswered is polled from Answer on.
            self._rtp_monitor.came(effect.channel_id)


def _server(settings: Settings) -> Server:
    return Server(
        url=settings.ari_url,
        app=settings.ari_app,
        user=settings.ari_user,
        password=settings.ari_password.get_secret_value(),
        listen=parse_listen_address(settings.ari_listen) if settings.ari_socket == "outbound" else None,
        deadline=settings.ari_deadline,
        connections=settings.ari_connections,
        media_host=str(settings.media_listen),
        events=translate.EVENTS,
    )


async def serve(settings: Settings, *, stop: asyncio.Event) -> None:
    """Run a server until `stop` is set. Raises SetupFailed if it can't listen on a configured address."""
    # Calls and conferences contain no reference cycles, so there is little to collect: don't run the collector after
    # every 700 allocations.
    gc.set_threshold(*GC_THRESHOLDS)
    if (named := await _named(settings, stop)) is not None:
        await ConferenceServer(named).run(stop)


async def _named(settings: Settings, stop: asyncio.Event) -> Settings | None:
    """Return the settings with the Asterisk's name, asking Asterisk for it if not set. None: `stop` was set before."""
    if settings.asterisk_name:
        return settings
    client = Client(_server(settings), lambda _event: None)
    naming, stopping = (
        asyncio.create_task(asterisk_identity.wait_for_entity_id(client)),
        asyncio.create_task(stop.wait()),
    )
    try:
        async with serve_not_ready(settings.metrics_listen):
            await asyncio.wait((naming, stopping), return_when=asyncio.FIRST_COMPLETED)
        return settings.model_copy(update={"asterisk_name": naming.result()}) if naming.done() else None
    finally:
        await cancel_and_wait(naming, stopping)
        await client.close()
