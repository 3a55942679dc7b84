"""The application: event -> core -> store -> effects -> next deadline. The only wiring of its parts."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time
import uuid
from collections.abc import AsyncGenerator, Coroutine
from typing import Any, cast

import structlog
from aiohttp.web import AppRunner

from ari_conf import disk, takeover
from ari_conf import store as redis_store
from ari_conf.ari import translate
from ari_conf.ari.client import Client, Server
from ari_conf.command_queue import Commands
from ari_conf.comparing import Comparing
from ari_conf.core import effects as do
from ari_conf.core import events as ev
from ari_conf.core.directory import Directory
from ari_conf.core.internal import Out
from ari_conf.door import Door
from ari_conf.errors import LeaseLost
from ari_conf.http.fetch import Fetcher
from ari_conf.interpreter import Interpreter
from ari_conf.lease import Lease
from ari_conf.log_fields import fields_of, tell
from ari_conf.media import server as sound_server
from ari_conf.media.sounds import Sounds
from ari_conf.metrics import Serve
from ari_conf.names import Names
from ari_conf.owner_mark import OwnerMark
from ari_conf.rewriting import Rewriting
from ari_conf.settings import Settings, address
from ari_conf.steps import Steps
from ari_conf.store import Store
from ari_conf.workers import Workers
from ari_conf.writer import Writer

log = structlog.get_logger()

TIMER_SET_MS = 1000
COLLECT = 10_000, 20, 50
"""The garbage collector's thresholds."""
TALK = (ev.TalkingStarted, ev.TalkingFinished)
PATIENCE_AFTER_ANOTHER_S = 1.5
"""Seconds for which Asterisk is given time to open its WebSocket, if the calls were another process'."""


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def new_id() -> str:
    return str(uuid.uuid4())


class Service:
    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._directory = Directory(new_id, settings.public_url.rstrip("/"))
        self._redis = redis_store.connect(settings.redis_url.get_secret_value())
        self._lease = Lease(
            self._redis,
            settings.asterisk_name,
            forgotten=self._forgotten,
            written=lambda: self._store.confirmed,
        )
        self._door = Door(self._lease, self._deliver)
        self._workers = Workers(settings.redis_url.get_secret_value())
        self._store = Store(
            self._redis,
            settings.asterisk_name,
            settings.problems_kept,
            token=lambda: self._lease.token,
            names_kept_s=settings.names_kept_minutes * 60,
            letter=self._workers.letter,
            dropped=lambda number: self._measured.dropped(number),
        )
        self._fetcher = Fetcher(settings.allowed_networks)
        self._sounds = Sounds(settings, self._fetcher)
        self._ari = Client(_server(settings), self._heard, self._connected, permission=self._lease)
        self._interpreter = Interpreter(
            self._ari,
            self._store,
            self._fetcher,
            self._sounds,
            settings.documents,
            self._door.take,
            lambda claim: self._names.claim_later(claim),
            settings.recordings_wideband == "always",
        )
        self._writer = Writer(
            self._store,
            self._interpreter.run,
            self._workers.wake,
            self._lease.lose,
            lambda: self._steps.of_rest(now_ms()),
            lambda: self._rewriting.write_all(),
        )
        self._commands = Commands(
            self._redis, settings.asterisk_name, self._door.take, lambda: self._ari.connected, self._reply, now_ms
        )
        self._steps = Steps(self._directory, settings, self._commands.answer)
        self._measured = Serve(self._directory, self._writer, lambda: self._ari.connected, self._lease)
        self._timer: asyncio.TimerHandle | None = None
        self._timer_set: tuple[int, int | None] = 0, None
        """When, for which deadline."""
        self._comparing = Comparing(
            self._ari,
            self._directory,
            self._interpreter,
            deliver=self._door.take,
            heard=self._heard,
            again=self._again,
            run=self._run,
            worked_off=lambda: self._set_timer(now_ms()),
        )
        self._names = Names(self._directory, self._writer, self._report, self._comparing.done)
        self._rewriting = Rewriting(self._directory, self._steps, self._store, self._writer, self._names, now_ms)
        self._tasks: set[asyncio.Task[Any]] = set()

    async def run(self, stop: asyncio.Event) -> None:
        """Raises LeaseLost if another process has taken over."""
        measuring = await self._measure()
        try:
            async with self._until(stop, self._lease.acquire()) as owner:
                if owner:
                    await self._own(stop)
        finally:
            self._cancel_tasks()
            if measuring is not None:
                await measuring.cleanup()
            await self._store.close()
            await self._redis.aclose()
        if self._lease.state == "lost" and not stop.is_set():
            raise LeaseLost("another process has taken over: this one was stopped, or Redis was out of its reach")

    async def _own(self, stop: asyncio.Event) -> None:
        works = (self._writer.run(), self._lease.keep(), self._rewriting.run())
        self._tasks.update(asyncio.create_task(work) for work in works)
        serving = None
        try:
            if self._settings.sounds_url:
                serving = await sound_server.start(self._sounds, *address(self._settings.sounds_listen))
            await takeover.restore(self._store, self._directory)
            self._spawn(self._names.claim_in_parts())
            self._spawn(self._workers.begin(self._comparing.done))
            self._spawn(self._clean())
            await self._ari.start(PATIENCE_AFTER_ANOTHER_S if self._lease.after_another else None)
            commanding = asyncio.create_task(self._commands.run())
            self._tasks.add(commanding)
            mark = OwnerMark(self._ari, self._settings.ari_app, self._lease)
            self._tasks.add(asyncio.create_task(mark.run()))
            if folder := self._settings.recording_folder:
                watching = disk.watch(folder, self._settings.recordings_limit_mb, self._report, self._measured.recorded)
                self._tasks.add(asyncio.create_task(watching))
            async with self._until(stop, self._lease.until_lost()) as lost:
                if not lost:
                    commanding.cancel()
                    await self._hand_over()
        finally:
            self._cancel_tasks()
            await self._ari.close()
            await self._interpreter.close()
            self._workers.end()
            if serving is not None:
                await serving.cleanup()
            await self._sounds.close()
            await self._fetcher.close()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _hand_over(self) -> None:
        """Nothing more is heard; what was decided is written and done; then another may take the lease at once."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._settings.stop_wait):
                await self._ari.finish()
                # If Redis is away, it can't be written.
                await self._writer.drained()
                await self._interpreter.settled()
                await self._writer.drained()
        if self._writer.waiting:
            callbacks, recordings = self._writer.unwritten()
            log.error(
                "ended before redis took all that was to be written: the rest is lost; "
                "ARI_CONF_STOP_WAIT says for how long is waited",
                callbacks=callbacks,
                recordings=recordings,
                steps=self._writer.waiting,
                waited_s=self._settings.stop_wait,
            )
        await self._interpreter.stop_listening()
        await self._lease.release()

    @contextlib.asynccontextmanager
    async def _until(self, stop: asyncio.Event, work: Coroutine[Any, Any, None]) -> AsyncGenerator[bool]:
        """Whether the work was done before it was time to stop."""
        working, stopping = asyncio.create_task(work), asyncio.create_task(stop.wait())
        try:
            await asyncio.wait((working, stopping), return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                working.result()
            yield working.done() and not stop.is_set()
        finally:
            working.cancel()
            stopping.cancel()

    def _cancel_tasks(self) -> None:
        self._door.shut()
        for task in self._tasks:
            task.cancel()

    async def _measure(self) -> AppRunner | None:
        probing = self._measured.probe(lambda: self._ari.request("GET", "/asterisk/ping"), lambda: self._ping())
        self._tasks.update((asyncio.create_task(probing), asyncio.create_task(self._measured.watch_loop())))
        listen = self._settings.metrics_listen
        return await self._measured.start(*address(listen)) if listen else None

    def _reply(self, reply: do.Reply) -> None:
        self._put([reply], now_ms())

    def _report(self, auth_id: str, text: str) -> None:
        """Among the account's problems."""
        self._put([do.ReportProblem(auth_id, "", None, text)], now_ms())

    async def _ping(self) -> None:
        await cast(Any, self._redis).ping()

    # What comes.

    def _deliver(self, event: ev.Event) -> None:
        now = now_ms()
        told = fields_of(event, self._directory.whose)
        self._measured.before(event, now)
        try:
            effects = self._directory.receive(event, now)
        except Exception:
            log.exception(
                "a step broke: this is a defect of ari_conf, please report it", event_type=type(event).__name__
            )
            effects = self._directory.give_up()
        tell("event", event, told, quiet=not effects and not self._directory.has_changed)
        self._put(effects, now, may_linger=isinstance(event, TALK))

    def _put(self, effects: list[do.Effect], now: int, *, may_linger: bool = False) -> None:
        """The step that has just been made: to be written, then run. `may_linger`: it was made since somebody talks, or
        is silent; of anything else Asterisk would tell our successor nothing."""
        if effects:
            self._writer.put(*self._steps.of(effects, now), may_linger=may_linger)
        elif self._directory.has_changed:
            (self._writer.linger if may_linger else self._writer.hurry)()
        self._set_timer(now)

    def _set_timer(self, now: int) -> None:
        deadline, (since, awaited) = self._directory.deadline, self._timer_set
        # Not at every event: but again and again, since the clock may be set.
        if self._timer is not None and awaited == deadline and 0 <= now - since < TIMER_SET_MS:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._timer_set = None, (now, deadline)
        if deadline is not None:
            wait = max(0.0, (deadline - now) / 1000)
            self._timer = asyncio.get_running_loop().call_later(wait, self._time_passed)

    def _time_passed(self) -> None:
        self._timer = None
        if not self._comparing.holds_time:
            self._door.take(ev.TimePassed())

    def _heard(self, message: dict[str, Any]) -> None:
        event = translate.to_event(message, new_id)
        if event is not None:
            self._comparing.arriving.take(event)

    # State that Redis doesn't have, or should not have.

    def _forgotten(self) -> None:
        self._rewriting.write_all()
        self._commands.begin_anew()

    async def _clean(self) -> None:
        """What the process before us left in Redis, and nobody could read or needs any more."""
        await self._comparing.done.wait()
        self._rewriting.clean()

    # At the start, and at each connection.

    def _connected(self) -> None:
        self._measured.connected()
        self._comparing.begin()
        self._spawn(self._comparing.compare())

    def _again(self, out: Out) -> None:
        self._put(self._directory.resume(out, now_ms()), now_ms())

    def _run(self, effect: do.Effect) -> None:
        tell("effect", effect, fields_of(effect, self._directory.whose))
        self._interpreter.run(effect)


def _server(settings: Settings) -> Server:
    return Server(
        url=settings.ari_url,
        app=settings.ari_app,
        user=settings.ari_user,
        password=settings.ari_password.get_secret_value(),
        listen=address(settings.ari_listen) if settings.ari_socket == "outbound" else None,
        deadline=settings.ari_deadline,
        connections=settings.ari_connections,
        events=translate.EVENTS,
    )


async def serve(settings: Settings, *, stop: asyncio.Event) -> None:
    """Until `stop` is set. Raises SetupFailed."""
    # Calls and conferences hold no circles, so that there is little to be found: not after every 700 things.
    gc.set_threshold(*COLLECT)
    await Service(settings).run(stop)
