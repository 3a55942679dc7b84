"""Conference server: the life of `serve`, from the lease's acquisition to its release."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, cast

import redis.asyncio
import structlog
from aiohttp.web import AppRunner

from ari_conf.ari.client import Client
from ari_conf.common.supervision import LongLived, Tasks, run_until
from ari_conf.core import effects as do
from ari_conf.core.engine import Engine
from ari_conf.core.problem_kinds import ProblemKind
from ari_conf.core.restoration import Restoration
from ari_conf.errors import LeaseLost
from ari_conf.http_client.fetch import Fetcher
from ari_conf.media import sound_server
from ari_conf.media.sounds import SoundPreparer
from ari_conf.observability.server_metrics import ServerMetrics
from ari_conf.ownership.asterisk_identity import IdentityCheck
from ari_conf.ownership.gate import LeaseGate
from ari_conf.ownership.lease import OwnershipLease
from ari_conf.ownership.owner_mark import OwnerMark
from ari_conf.queues.command_queue import CommandConsumer
from ari_conf.server import recording_disk, takeover, unreadable_state
from ari_conf.server.clock import Clock
from ari_conf.server.dial_meter import DialMeter
from ari_conf.server.effect_runner import EffectRunner
from ari_conf.server.engine_loop import EngineLoop
from ari_conf.server.name_claims import NameClaims
from ari_conf.server.reconciler import Reconciler
from ari_conf.server.rtp_monitor import RtpMonitor
from ari_conf.server.state_rewriter import StateRewriter
from ari_conf.server.step_writer import StepWriter
from ari_conf.settings import Settings, parse_listen_address
from ari_conf.store.state_store import StateStore

log = structlog.get_logger()

TAKEOVER_SOCKET_TIMEOUT_S = 1.5
"""Seconds that Asterisk has to open its WebSocket, if the previous owner did not release the lease."""


@dataclass(kw_only=True, eq=False, slots=True)
class ConferenceServer:
    """Server of one Asterisk's calls, made of the components that `composition.build_server` has wired."""

    settings: Settings
    asterisk_name: str
    clock: Clock
    redis: redis.asyncio.Redis
    engine: Engine
    lease: OwnershipLease
    gate: LeaseGate
    state_store: StateStore
    fetcher: Fetcher
    sounds: SoundPreparer
    ari: Client
    owner_mark: OwnerMark
    standby_client: Client
    identity_check: IdentityCheck
    effect_runner: EffectRunner
    step_writer: StepWriter
    commands: CommandConsumer
    metrics: ServerMetrics
    engine_loop: EngineLoop
    reconciler: Reconciler
    rtp_monitor: RtpMonitor
    dial_meter: DialMeter
    name_claims: NameClaims
    state_rewriter: StateRewriter
    tasks: Tasks
    """Short tasks, such as a reconciliation. They are canceled when the server stops."""
    _unreadable_problems: list[do.ReportProblem] = field(default_factory=list, init=False)
    """Further problems to report to accounts about records that can't be read."""

    async def run(self, stop: asyncio.Event) -> None:
        """Run until `stop` is set.

        Raises LeaseLost if another process has taken over, and TaskEnded if a long-lived task of this one ended.
        """
        metrics_server: AppRunner | None = None
        try:
            async with LongLived() as tasks:
                tasks.keep("the probe of Asterisk and Redis", self._probe)
                tasks.keep("the event-loop monitor", self.metrics.watch_loop)
                tasks.keep("the Asterisk identity check", self.identity_check.watch)
                if listen := self.settings.metrics_listen:
                    metrics_server = await self.metrics.start(*parse_listen_address(listen))
                if await self._run_until_over(stop, self.lease.acquire()):
                    await self._run_as_owner(tasks, stop)
        finally:
            self.gate.close()
            if metrics_server is not None:
                await metrics_server.cleanup()
            self._log_lost_steps()
            if not self._is_over():
                # This process does nothing more for these calls, so the next one need not wait.
                await self.lease.release()
            await self.standby_client.close()
            await self.state_store.close()
            await self.redis.aclose()
        if self.lease.state == "lost" and not stop.is_set():
            raise LeaseLost(
                "lease lost: another process has taken over; this process was suspended, or could not reach Redis"
            )

    def report(self, auth_id: str, kind: ProblemKind, text: str) -> None:
        """Add a problem to those of the account."""
        self.engine_loop.report(auth_id, kind, text)

    async def _run_as_owner(self, tasks: LongLived, stop: asyncio.Event) -> None:
        sound_runner = None
        try:
            tasks.keep("the lease renewal", self.lease.renew_until_lost, may_end=self._is_over)
            tasks.keep("the writer", self.step_writer.run, may_end=self._is_over)
            tasks.keep("the state rewriter", self.state_rewriter.run)
            if self.settings.sounds_url:
                sound_runner = await sound_server.start(self.sounds, *parse_listen_address(self.settings.sounds_listen))
            restoration = Restoration(self.engine)
            if await self._run_until_over(stop, self.owner_mark.wait_until_no_rival()) and await self._run_until_over(
                stop, self._restore(restoration)
            ):
                abandoned = restoration.finish(self.clock.now_ms())
                await self._serve(tasks, stop, [*abandoned, *self._unreadable_problems])
        finally:
            self.gate.close()
            self.engine_loop.stop_timer()
            await self.tasks.close()
            await self.ari.close()
            await self.effect_runner.close()
            if sound_runner is not None:
                await sound_runner.cleanup()
            await self.sounds.close()
            await self.fetcher.close()

    async def _restore(self, restoration: Restoration) -> None:
        texts = await takeover.restore(self.state_store, restoration)
        has_calls = bool(self.engine.calls or self.engine.conferences)
        await self.clock.start(self.redis, self.asterisk_name, has_calls=has_calls)
        if texts:
            recovered = await unreadable_state.recover(
                texts, self.engine, self.state_store, self.ari, self.clock.now_ms()
            )
            restoration.add_unreadable(recovered.calls, recovered.conferences)
            self._unreadable_problems = recovered.problems

    async def _serve(self, tasks: LongLived, stop: asyncio.Event, abandoned: list[do.Effect]) -> None:
        """Serve calls until `stop` is set. `abandoned`: effects that end restored state that did not fit together."""
        settings = self.settings
        tasks.keep("the clock", lambda: self.clock.run(self.redis, self.asterisk_name))
        self.tasks.start(self.name_claims.claim_in_batches())
        self.tasks.start(self._remove_stale_when_reconciled())
        await self.ari.start(TAKEOVER_SOCKET_TIMEOUT_S if self.lease.succeeded_unreleased else None)
        # Asterisk is asked to execute these effects as soon as it is reachable.
        self.engine_loop.submit_effects(abandoned)
        tasks.keep("the connection to Asterisk", self.ari.wait_until_closed, may_end=stop.is_set)
        tasks.keep("the reconciliation with Asterisk", self.reconciler.run)
        tasks.keep("the RTP monitor", self.rtp_monitor.run)
        tasks.keep("the dial meter", self.dial_meter.run)
        tasks.keep("the search for unreported calls", self.reconciler.watch_unreported_calls)
        tasks.keep("the owner's mark in Asterisk", self.owner_mark.run, may_end=self._is_over)
        command_task = tasks.keep("the command consumer", self.commands.run, may_end=self._is_over)
        if folder := settings.recording_folder:
            tasks.keep(
                "the recording disk monitor",
                lambda: recording_disk.monitor(
                    folder, settings.recordings_limit_mb, self.report, self.metrics.set_recording_bytes
                ),
            )
        await self._run_until_over(stop, asyncio.Event().wait())
        if not self._is_over():
            command_task.cancel()
            await self._hand_over()

    async def _hand_over(self) -> None:
        """Stop receiving events, write and execute what was decided, and release the lease for another process."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.settings.stop_wait):
                await self.ari.finish()
                # While Redis is unreachable, this waits until `stop_wait` is over.
                await self.step_writer.wait_until_drained()
                await self.effect_runner.wait_until_idle()
                await self.step_writer.wait_until_drained()
        await self.effect_runner.stop_listening()
        await self.lease.release()

    def _log_lost_steps(self) -> None:
        if self.step_writer.backlog:
            callbacks, recordings = self.step_writer.unwritten()
            log.error(
                "steps lost at shutdown",
                reason="Redis did not accept all steps in time",
                hint="raise ARI_CONF_STOP_WAIT, the time that the server waits for Redis",
                callbacks=callbacks,
                recordings=recordings,
                steps=self.step_writer.backlog,
                waited_s=self.settings.stop_wait,
                redis="unavailable" if self.step_writer.redis_unavailable else "available",
            )

    async def _run_until_over(self, stop: asyncio.Event, work: Coroutine[Any, Any, Any]) -> bool:
        """Return True if the work was done before `stop` was set or another process had taken over."""
        return await run_until((stop.wait(), self.lease.until_lost()), asyncio.create_task(work))

    def _is_over(self) -> bool:
        """Return True if another process owns the calls now, or may own them."""
        return self.lease.state != "owner"

    async def _probe(self) -> None:
        await self.metrics.probe(lambda: self.ari.request("GET", "/asterisk/ping"), self._ping)

    async def _ping(self) -> None:
        await cast(Any, self.redis).ping()

    async def _remove_stale_when_reconciled(self) -> None:
        """Remove from Redis what the previous process left and what is unreadable or not needed, once reconciled."""
        await self.reconciler.done.wait()
        self.state_rewriter.remove_stale()
