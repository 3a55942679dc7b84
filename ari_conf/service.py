"""The application: the only wiring of its parts, and how it begins and ends."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import uuid
from collections.abc import Coroutine
from typing import Any, cast

import structlog
from aiohttp.web import AppRunner

from ari_conf import disk, identity, takeover, unreadable
from ari_conf import store as redis_store
from ari_conf.ari import translate
from ari_conf.ari.client import Client, Server
from ari_conf.ari.keys import Keys
from ari_conf.clock import Clock
from ari_conf.command_queue import Commands
from ari_conf.comparing import Comparing
from ari_conf.core import effects as do
from ari_conf.core import events as ev
from ari_conf.core.directory import Directory
from ari_conf.door import Door
from ari_conf.errors import LeaseLost
from ari_conf.http.fetch import Fetcher
from ari_conf.interpreter import Interpreter
from ari_conf.lease import Lease
from ari_conf.log_fields import fields_of, tell
from ari_conf.loop import Loop
from ari_conf.media import server as sound_server
from ari_conf.media.sounds import Sounds
from ari_conf.metrics import Serve
from ari_conf.metrics import waiting as metrics_meanwhile
from ari_conf.names import Names
from ari_conf.owner_mark import OwnerMark
from ari_conf.rewriting import Rewriting
from ari_conf.settings import Settings, address
from ari_conf.steps import Steps
from ari_conf.store import Store
from ari_conf.streams import Streams
from ari_conf.supervision import LongLived, Tasks, ended
from ari_conf.workers import Workers
from ari_conf.writer import Writer

log = structlog.get_logger()

COLLECT = 10_000, 20, 50
"""The garbage collector's thresholds."""
PATIENCE_AFTER_ANOTHER_S = 1.5
"""Seconds for which Asterisk is given time to open its WebSocket, if the calls were another process'."""


def new_id() -> str:
    return str(uuid.uuid4())


class Service:
    def __init__(self, settings: Settings, clock: Clock | None = None) -> None:
        """`settings` name the Asterisk."""
        assert settings.asterisk_name
        self._settings, self._name = settings, settings.asterisk_name
        self._clock = clock or Clock()
        now_ms = self._clock.now_ms
        self._directory = Directory(new_id, settings.public_url.rstrip("/"), settings.calls_per_account)
        self._redis = redis_store.connect(settings.redis_url.get_secret_value())
        self._lease = Lease(
            self._redis,
            self._name,
            forgotten=self._forgotten,
            written=lambda: self._store.confirmed,
        )
        self._door = Door(self._lease, lambda event: self._loop.receive(event))
        self._workers = Workers(settings.redis_url.get_secret_value())
        self._store = Store(
            self._redis,
            self._name,
            settings.problems_kept,
            token=lambda: self._lease.token,
            names_kept_s=settings.names_kept_minutes * 60,
            letter=self._workers.letter,
            dropped=lambda number: self._measured.dropped(number),
        )
        self._fetcher = Fetcher(settings.allowed_networks)
        self._sounds = Sounds(settings, self._fetcher)
        self._ari = Client(_server(settings), self._heard, self._connected, permission=self._lease)
        self._mark = OwnerMark(self._ari, settings.ari_app, self._name, self._lease)
        # Without permission, which only the owner has.
        self._looking = Client(_server(settings), lambda _event: None)
        self._same = identity.SameAsterisk(self._looking, settings.ari_app, self._name, self._lease)
        self._interpreter = Interpreter(
            self._ari,
            self._store,
            self._fetcher,
            self._sounds,
            settings.documents,
            self._door.take,
            lambda claim: self._names.claim_later(claim),
            settings.recordings_wideband == "always",
            self._directory.owners,
            settings.jitter_buffer,
        )
        self._writer = Writer(
            self._store,
            self._carry_out,
            self._workers.wake,
            self._lease.lose,
            lambda: self._steps.of_rest(now_ms()),
            lambda: self._rewriting.write_all(),
        )
        self._commands = Commands(
            self._redis,
            self._name,
            self._door.take,
            lambda: self._ari.connected,
            lambda reply: self._loop.reply(reply),
            now_ms,
        )
        self._steps = Steps(self._directory, settings, self._commands.answer)
        self._measured = Serve(
            self._directory,
            self._writer,
            lambda: self._ari.connected,
            self._lease,
            lambda: self._mark.rival or self._same.other,
        )
        self._loop = Loop(
            self._directory,
            self._steps,
            self._writer,
            now_ms,
            before=self._measured.before,
            time_passed=lambda: self._door.take(ev.TimePassed()),
            holds_time=lambda: self._comparing.holds_time,
        )
        self._comparing = Comparing(
            self._ari,
            self._directory,
            self._interpreter,
            deliver=self._door.take,
            heard=self._heard,
            again=self._loop.resume,
            given_up=self._loop.give_up,
            run=self._run,
            worked_off=self._loop.set_timer,
        )
        self._streams = Streams(
            self._ari,
            self._directory,
            self._door.take,
            lambda: self._ari.connected and not self._comparing.holds_time,
            settings.rtp_timeout,
        )
        self._names = Names(self._directory, self._writer, self._loop.report, self._comparing.done, now_ms)
        self._rewriting = Rewriting(self._directory, self._steps, self._store, self._writer, self._names, now_ms)
        self._keys = Keys()
        self._tasks = Tasks()
        self._unreadable = list[do.ReportProblem]()
        """What else accounts are to be told of what can't be read."""

    async def run(self, stop: asyncio.Event) -> None:
        """Raises LeaseLost if another process has taken over; TaskEnded if a part of this one broke."""
        measuring: AppRunner | None = None
        try:
            async with LongLived() as tasks:
                tasks.keep("what measures Asterisk and Redis", self._probe)
                tasks.keep("what measures the loop", self._measured.watch_loop)
                tasks.keep("the look at whose Asterisk this is", self._same.watch)
                if listen := self._settings.metrics_listen:
                    measuring = await self._measured.start(*address(listen))
                if await self._in_time(stop, self._lease.acquire()):
                    await self._own(tasks, stop)
        finally:
            self._door.shut()
            if measuring is not None:
                await measuring.cleanup()
            self._say_what_is_lost()
            if not self._is_over():
                # Nothing is done for these calls any more: the next process need not wait.
                await self._lease.release()
            await self._looking.close()
            await self._store.close()
            await self._redis.aclose()
        if self._lease.state == "lost" and not stop.is_set():
            raise LeaseLost("another process has taken over: this one was stopped, or Redis was out of its reach")

    def report(self, auth_id: str, text: str) -> None:
        """Among the account's problems."""
        self._loop.report(auth_id, text)

    async def _own(self, tasks: LongLived, stop: asyncio.Event) -> None:
        serving = None
        try:
            tasks.keep("the renewal of the lease", self._lease.keep, may_end=self._is_over)
            tasks.keep("the writer", self._writer.run, may_end=self._is_over)
            tasks.keep("the rewriting of Redis", self._rewriting.run)
            if self._settings.sounds_url:
                serving = await sound_server.start(self._sounds, *address(self._settings.sounds_listen))
            if await self._in_time(stop, self._mark.no_rival()) and await self._in_time(stop, self._restore()):
                given_up = self._directory.restored(self._clock.now_ms())
                await self._serve(tasks, stop, [*given_up, *self._unreadable])
        finally:
            self._door.shut()
            self._loop.stop()
            await self._tasks.close()
            await self._ari.close()
            await self._interpreter.close()
            self._workers.end()
            if serving is not None:
                await serving.cleanup()
            await self._sounds.close()
            await self._fetcher.close()

    async def _restore(self) -> None:
        texts = await takeover.restore(self._store, self._directory)
        calls = bool(self._directory.calls or self._directory.conferences)
        await self._clock.begin(self._redis, self._name, goes_on=calls)
        if texts:
            known = await unreadable.known(texts, self._directory, self._store, self._ari, self._clock.now_ms())
            self._directory.restore_unreadable(known.calls, known.conferences)
            self._unreadable = known.problems

    async def _serve(self, tasks: LongLived, stop: asyncio.Event, given_up: list[do.Effect]) -> None:
        """`given_up`: of what was restored, what did not fit."""
        settings = self._settings
        tasks.keep("the clock", lambda: self._clock.keep(self._redis, self._name))
        self._tasks.start(self._names.claim_in_parts())
        self._tasks.start(self._workers.begin(self._comparing.done))
        self._tasks.start(self._clean())
        await self._ari.start(PATIENCE_AFTER_ANOTHER_S if self._lease.after_another else None)
        # Asterisk is asked for it as soon as it is there.
        self._loop.put(given_up)
        tasks.keep("the connection to Asterisk", self._ari.ended, may_end=stop.is_set)
        tasks.keep("the comparison with Asterisk", self._comparing.keep)
        tasks.keep("the look at phones' streams", self._streams.run)
        tasks.keep("the look for calls that Asterisk can't tell of", self._comparing.look_for_strangers)
        tasks.keep("the owner's mark in Asterisk", self._mark.run, may_end=self._is_over)
        commanding = tasks.keep("the reader of commands", self._commands.run, may_end=self._is_over)
        if folder := settings.recording_folder:
            tasks.keep(
                "the look at the disk",
                lambda: disk.watch(folder, settings.recordings_limit_mb, self.report, self._measured.recorded),
            )
        await self._in_time(stop, asyncio.Event().wait())
        if not self._is_over():
            commanding.cancel()
            await self._hand_over()

    async def _hand_over(self) -> None:
        """Nothing more is heard; what was decided is written and done; then another may take the lease at once."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._settings.stop_wait):
                await self._ari.finish()
                # If Redis is away, it can't be written.
                await self._writer.drained()
                await self._interpreter.settled()
                await self._writer.drained()
        await self._interpreter.stop_listening()
        await self._lease.release()

    def _say_what_is_lost(self) -> None:
        if self._writer.waiting:
            callbacks, recordings = self._writer.unwritten()
            log.error(
                "ended before redis took all that was to be written: the rest is lost; "
                "ARI_CONF_STOP_WAIT says for how long is waited",
                callbacks=callbacks,
                recordings=recordings,
                steps=self._writer.waiting,
                waited_s=self._settings.stop_wait,
                redis="away" if self._writer.away else "there",
            )

    async def _in_time(self, stop: asyncio.Event, work: Coroutine[Any, Any, Any]) -> bool:
        """Whether the work was done before it was time to stop, or another process had taken over."""
        working = asyncio.create_task(work)
        over = [asyncio.create_task(stop.wait()), asyncio.create_task(self._lease.until_lost())]
        try:
            await asyncio.wait((working, *over), return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                working.result()
            return working.done() and not any(one.done() for one in over)
        finally:
            await ended(working, *over)
            if not working.cancelled():
                working.exception()  # seen, also if it was too late

    def _is_over(self) -> bool:
        """The calls are another process' now, or may be."""
        return self._lease.state != "owner"

    async def _probe(self) -> None:
        await self._measured.probe(lambda: self._ari.request("GET", "/asterisk/ping"), self._ping)

    async def _ping(self) -> None:
        await cast(Any, self._redis).ping()

    def _heard(self, message: dict[str, Any]) -> None:
        if self._keys.told_again(message):
            return
        event = translate.to_event(message, new_id)
        if event is not None:
            self._streams.heard(event)
            self._comparing.arriving.take(event)

    def _forgotten(self) -> None:
        """Redis came back empty, or as it was earlier: what lives is in memory."""
        self._rewriting.write_all()
        self._commands.begin_anew()

    async def _clean(self) -> None:
        """What the process before us left in Redis, and nobody could read or needs any more."""
        await self._comparing.done.wait()
        self._rewriting.clean()

    def _connected(self) -> None:
        self._measured.connected()
        self._streams.connected()
        self._comparing.begin()
        self._tasks.start(self._comparing.compare())

    def _run(self, effect: do.Effect) -> None:
        tell("effect", effect, fields_of(effect, self._directory.whose))
        self._carry_out(effect)

    def _carry_out(self, effect: do.Effect) -> None:
        self._interpreter.run(effect)
        if isinstance(effect, do.IdentifyCall | do.Answer):
            # Each call begins with the first; one that came unanswered is looked at from the second on.
            self._streams.came(effect.channel_id)


def _server(settings: Settings) -> Server:
    return Server(
        url=settings.ari_url,
        app=settings.ari_app,
        user=settings.ari_user,
        password=settings.ari_password.get_secret_value(),
        listen=address(settings.ari_listen) if settings.ari_socket == "outbound" else None,
        deadline=settings.ari_deadline,
        connections=settings.ari_connections,
        media_host=str(settings.media_listen),
        events=translate.EVENTS,
    )


async def serve(settings: Settings, *, stop: asyncio.Event) -> None:
    """Until `stop` is set. Raises SetupFailed."""
    # Calls and conferences hold no circles, so that there is little to be found: not after every 700 things.
    gc.set_threshold(*COLLECT)
    if (named := await _named(settings, stop)) is not None:
        await Service(named).run(stop)


async def _named(settings: Settings, stop: asyncio.Event) -> Settings | None:
    """With the name of this Asterisk, which it tells itself if it is not given. None: it was time to stop before."""
    if settings.asterisk_name:
        return settings
    client = Client(_server(settings), lambda _event: None)
    naming, stopping = asyncio.create_task(identity.name_of(client)), asyncio.create_task(stop.wait())
    try:
        async with metrics_meanwhile(settings.metrics_listen):
            await asyncio.wait((naming, stopping), return_when=asyncio.FIRST_COMPLETED)
        return settings.model_copy(update={"asterisk_name": naming.result()}) if naming.done() else None
    finally:
        await ended(naming, stopping)
        await client.close()
