"""Composition of the server: the only place that wires the components of `serve`."""

from __future__ import annotations

import asyncio
import gc
import uuid
from typing import Any

from ari_conf.ari import translate
from ari_conf.ari.address import AriConfig
from ari_conf.ari.client import Client
from ari_conf.ari.repeated_digits import RepeatedDigitFilter
from ari_conf.common.supervision import Tasks, run_until
from ari_conf.core import effects as do
from ari_conf.core import events as ev
from ari_conf.core.engine import Engine
from ari_conf.dialing.admission import Admission
from ari_conf.http_client.fetch import Fetcher
from ari_conf.media.sounds import SoundPreparer
from ari_conf.observability.log_fields import fields_of, log_item
from ari_conf.observability.server_metrics import ServerMetrics, serve_not_ready
from ari_conf.ownership import asterisk_identity
from ari_conf.ownership.gate import LeaseGate
from ari_conf.ownership.lease import OwnershipLease
from ari_conf.ownership.owner_mark import OwnerMark
from ari_conf.queues.command_queue import CommandConsumer
from ari_conf.server.clock import Clock
from ari_conf.server.dial_admission import DialAdmission
from ari_conf.server.dial_meter import DialMeter
from ari_conf.server.effect_runner import EffectRunner
from ari_conf.server.engine_loop import EngineLoop
from ari_conf.server.name_claims import NameClaims
from ari_conf.server.reconciler import Reconciler
from ari_conf.server.rtp_monitor import RtpMonitor
from ari_conf.server.server import ConferenceServer
from ari_conf.server.state_rewriter import StateRewriter
from ari_conf.server.step_builder import StepBuilder
from ari_conf.server.step_writer import StepWriter
from ari_conf.settings import Settings, parse_listen_address
from ari_conf.store import state_store as redis_store
from ari_conf.store.state_store import StateStore

GC_THRESHOLDS = 10_000, 20, 50
"""Thresholds of the garbage collector's three generations."""


def new_id() -> str:
    return str(uuid.uuid4())


def build_server(settings: Settings, clock: Clock | None = None) -> ConferenceServer:
    """Return a server whose components are wired and not started. `settings` must name the Asterisk."""
    assert settings.asterisk_name
    name = settings.asterisk_name
    clock = clock or Clock()
    now_ms = clock.now_ms
    # Components that call each other: those that are created later, and called by earlier ones.
    state_store: StateStore
    metrics: ServerMetrics
    engine_loop: EngineLoop
    name_claims: NameClaims
    reconciler: Reconciler
    rtp_monitor: RtpMonitor
    state_rewriter: StateRewriter
    step_builder: StepBuilder
    commands: CommandConsumer

    tasks = Tasks()
    asterisk_connected = asyncio.Event()
    """Event that is set once Asterisk has been connected."""
    repeated_digits = RepeatedDigitFilter()

    def on_ari_message(message: dict[str, Any]) -> None:
        if repeated_digits.is_repeated(message):
            return
        event = translate.to_event(message, new_id)
        if event is not None:
            rtp_monitor.observe_event(event)
            reconciler.arrival_gate.submit(event)

    def on_connected() -> None:
        asterisk_connected.set()
        metrics.count_connection()
        rtp_monitor.start_over()
        reconciler.start()
        tasks.start(reconciler.reconcile())

    def on_redis_data_loss() -> None:
        """Write all live state again from memory: Redis came back empty, or from an older copy."""
        state_rewriter.write_all()
        commands.reset_position()

    def run_effect(effect: do.ExecutedEffect) -> None:
        effect_runner.run(effect)
        if isinstance(effect, do.IdentifyCall | do.Answer | do.ReadCodec):
            # Every call that arrives starts with IdentifyCall, and is polled from Answer on if it was unanswered; a
            # call that is placed has its ReadCodec once it is answered.
            rtp_monitor.watch(effect.channel_id)

    def run_unwritten_effect(effect: do.ExecutedEffect) -> None:
        """Log and run an effect that is part of no step."""
        log_item("effect", effect, fields_of(effect, engine.log_context))
        run_effect(effect)

    engine = Engine(new_id, settings.public_url.rstrip("/"), settings.calls_per_account, settings.dials_per_second)
    redis = redis_store.connect(settings.redis_url.get_secret_value())
    lease = OwnershipLease(
        redis, name, on_data_loss=on_redis_data_loss, confirmed_batch_id=lambda: state_store.confirmed
    )
    gate = LeaseGate(lease, lambda event: engine_loop.handle_event(event))
    state_store = StateStore(
        redis,
        name,
        settings.problems_kept,
        fencing_token=lambda: lease.fencing_token,
        names_kept_s=settings.names_kept_minutes * 60,
        on_dropped=lambda number: metrics.count_dropped(number),
    )
    fetcher = Fetcher(settings.allowed_networks)
    sounds = SoundPreparer(settings, fetcher)
    ari = Client(_ari_config(settings), on_ari_message, on_connected, permission=lease)
    owner_mark = OwnerMark(ari, settings.ari_app, name, lease)
    # This client needs no permission to act: only the owner has it, and a standby uses this client.
    standby_client = Client(_ari_config(settings), lambda _event: None)
    identity_check = asterisk_identity.IdentityCheck(standby_client, settings.ari_app, name, lease)
    effect_runner = EffectRunner(
        ari,
        state_store,
        fetcher,
        sounds,
        settings.documents,
        gate.submit,
        lambda claim: name_claims.enqueue(claim),
        settings.recordings_wideband == "always",
        engine.owners,
        settings.jitter_buffer,
        now_ms,
        DialAdmission(
            redis,
            Admission(redis, settings.trunks, settings.default_country),
            lambda reason: metrics.count_refused(reason),
        ).admit,
    )
    step_writer = StepWriter(
        state_store,
        run_effect,
        lease.mark_lost,
        lambda: step_builder.build_pending(now_ms()),
        lambda: state_rewriter.write_all(),
    )
    commands = CommandConsumer(
        redis,
        name,
        gate.submit,
        lambda: ari.connected,
        lambda reply: engine_loop.reply(reply),
        asterisk_connected.wait,
        now_ms,
    )
    step_builder = StepBuilder(engine, settings, commands.reply_writer)
    metrics = ServerMetrics(
        engine, step_writer, lambda: ari.connected, lease, lambda: owner_mark.rival or identity_check.other
    )
    engine_loop = EngineLoop(
        engine,
        step_builder,
        step_writer,
        now_ms,
        observe=metrics.observe_event,
        submit_deadline=lambda: gate.submit(ev.DeadlineReached()),
        blocks_timers=lambda: reconciler.blocks_timers,
        count_placed=metrics.count_placed,
    )
    reconciler = Reconciler(
        ari,
        engine,
        effect_runner,
        deliver=gate.submit,
        on_ari_message=on_ari_message,
        replay=engine_loop.replay,
        abort=engine_loop.abort,
        run=run_unwritten_effect,
        deadlines_allowed=engine_loop.set_timer,
        taken_over=engine_loop.end_takeover,
    )
    rtp_monitor = RtpMonitor(
        ari, engine, gate.submit, lambda: ari.connected and not reconciler.blocks_timers, settings.rtp_timeout
    )
    name_claims = NameClaims(engine, step_writer, engine_loop.report, reconciler.done, now_ms)
    state_rewriter = StateRewriter(engine, step_builder, state_store, step_writer, name_claims, now_ms)
    return ConferenceServer(
        settings=settings,
        asterisk_name=name,
        clock=clock,
        redis=redis,
        engine=engine,
        lease=lease,
        gate=gate,
        state_store=state_store,
        fetcher=fetcher,
        sounds=sounds,
        ari=ari,
        owner_mark=owner_mark,
        standby_client=standby_client,
        identity_check=identity_check,
        effect_runner=effect_runner,
        step_writer=step_writer,
        commands=commands,
        metrics=metrics,
        engine_loop=engine_loop,
        reconciler=reconciler,
        rtp_monitor=rtp_monitor,
        dial_meter=DialMeter(redis, engine, gate.submit),
        name_claims=name_claims,
        state_rewriter=state_rewriter,
        tasks=tasks,
    )


def _ari_config(settings: Settings) -> AriConfig:
    return AriConfig(
        url=settings.ari_url,
        app=settings.ari_app,
        user=settings.ari_user,
        password=settings.ari_password.get_secret_value(),
        listen=parse_listen_address(settings.ari_listen) if settings.ari_socket == "outbound" else None,
        request_timeout_s=settings.ari_deadline,
        connections=settings.ari_connections,
        media_host=str(settings.media_listen),
        events=translate.EVENTS,
    )


async def serve(settings: Settings, *, stop: asyncio.Event) -> None:
    """Run a server until `stop` is set. Raises SetupFailed if it can't listen on a configured address."""
    # Calls and conferences contain no reference cycles, so there is little to collect: don't run the collector after
    # every 700 allocations.
    gc.set_threshold(*GC_THRESHOLDS)
    if (named := await _with_asterisk_name(settings, stop)) is not None:
        await build_server(named).run(stop)


async def _with_asterisk_name(settings: Settings, stop: asyncio.Event) -> Settings | None:
    """Return the settings with the Asterisk's name, asking Asterisk for it if not set. None: `stop` was set before."""
    if settings.asterisk_name:
        return settings
    client = Client(_ari_config(settings), lambda _event: None)
    naming = asyncio.create_task(asterisk_identity.wait_for_entity_id(client))
    try:
        async with serve_not_ready(settings.metrics_listen):
            is_known = await run_until((stop.wait(),), naming)
        return settings.model_copy(update={"asterisk_name": naming.result()}) if is_known else None
    finally:
        await client.close()
