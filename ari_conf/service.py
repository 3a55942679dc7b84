"""The application: event -> core -> store -> effects -> next deadline. The only wiring of its parts."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from functools import partial
from typing import Any, cast

import structlog
from aiohttp.web import AppRunner
from redis import Redis

from ari_conf import disk, lanes, recordings, takeover
from ari_conf import store as redis_store
from ari_conf.ari import translate
from ari_conf.ari.client import Client, Server
from ari_conf.command_queue import Commands
from ari_conf.core import effects as do
from ari_conf.core import events as ev
from ari_conf.core import reconcile
from ari_conf.core.directory import Directory
from ari_conf.errors import StoreUnavailable
from ari_conf.http.fetch import Fetcher
from ari_conf.interpreter import Interpreter
from ari_conf.log_fields import fields_of
from ari_conf.media import server as sound_server
from ari_conf.media.sounds import Sounds
from ari_conf.metrics import Serve
from ari_conf.settings import Settings, address
from ari_conf.store import Step, Store
from ari_conf.writer import Writer
from tasks.tokens import Tokens

log = structlog.get_logger()

QUIET = (ev.TimePassed, ev.TalkingStarted, ev.TalkingFinished, do.WarmSounds)
"""Told at level debug only: there are many, and they say little."""


REDIS_AGAIN_S = 0.5


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def new_id() -> str:
    return str(uuid.uuid4())


class Service:
    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._directory = Directory(new_id, settings.public_url.rstrip("/"))
        self._redis = redis_store.connect(settings.redis_url.get_secret_value())
        self._store = Store(self._redis, settings.asterisk_name, settings.problems_kept)
        self._fetcher = Fetcher(settings.allowed_networks)
        self._sounds = Sounds(settings, self._fetcher)
        self._ari = Client(_server(settings), self._heard, self._connected)
        self._interpreter = Interpreter(
            self._ari, self._store, self._fetcher, self._sounds, settings.documents, self.deliver
        )
        self._tokens = Tokens(Redis.from_url(settings.redis_url.get_secret_value(), socket_timeout=5.0))
        self._writer = Writer(self._store, self._interpreter.run, self._tokens.wake)
        self._commands = Commands(self._redis, settings.asterisk_name, self.deliver, lambda: self._ari.connected)
        self._measured = Serve(self._directory, self._writer, lambda: self._ari.connected)
        self._timer: asyncio.TimerHandle | None = None
        self._first = True
        """No connection to Asterisk has been compared yet."""
        self._member_id_written = 0
        self._tasks: set[asyncio.Task[Any]] = set()

    async def run(self, stop: asyncio.Event) -> None:
        writing = asyncio.create_task(self._writer.run())
        self._tokens.start()
        serving = measuring = None
        try:
            if self._settings.sounds_url:
                serving = await sound_server.start(self._sounds, *address(self._settings.sounds_listen))
            await self._restore()
            await self._ari.start()
            commanding = asyncio.create_task(self._commands.run())
            self._tasks.add(commanding)
            measuring = await self._measure()
            if folder := self._settings.recording_folder:
                watching = disk.watch(folder, self._settings.recordings_limit_mb, self._fills, self._measured.recorded)
                self._tasks.add(asyncio.create_task(watching))
            await stop.wait()
            commanding.cancel()
            with contextlib.suppress(TimeoutError):
                # What was decided is written before we go; if Redis is away, it can't be.
                await asyncio.wait_for(self._writer.drained(), 2.0)
        finally:
            await self._interpreter.stop_listening()
            await self._ari.close()
            await self._interpreter.close()
            writing.cancel()
            for task in self._tasks:
                task.cancel()
            self._tokens.end()
            for runner in (serving, measuring):
                if runner is not None:
                    await runner.cleanup()
            await self._sounds.close()
            await self._fetcher.close()
            await self._redis.aclose()

    async def _measure(self) -> AppRunner | None:
        probing = self._measured.probe(lambda: self._ari.request("GET", "/asterisk/ping"), lambda: self._ping())
        self._tasks.update((asyncio.create_task(probing), asyncio.create_task(self._measured.watch_loop())))
        listen = self._settings.metrics_listen
        return await self._measured.start(*address(listen)) if listen else None

    def _fills(self, auth_id: str, text: str) -> None:
        self._put([do.ReportProblem(auth_id, "", None, text)], now_ms())

    async def _ping(self) -> None:
        await cast(Any, self._redis).ping()

    # The one door.

    def deliver(self, event: ev.Event) -> None:
        now = now_ms()
        told = fields_of(event, self._directory.whose)
        self._measured.before(event, now)
        effects = self._directory.receive(event, now)
        _tell("event", event, told)
        self._put(effects, now)

    def _put(self, effects: list[do.Effect], now: int) -> None:
        """The step that has just been made: to be written, then run."""
        whose = self._directory.whose
        step = Step(now)
        if self._directory.next_member_id != self._member_id_written:
            self._member_id_written = self._directory.next_member_id
            step.state[takeover.NEXT_MEMBER_ID] = str(self._member_id_written).encode()
        step.state |= self._directory.touched()
        run: list[do.Effect] = []
        for effect in effects:
            _tell("effect", effect, fields_of(effect, whose))
            match effect:
                case do.PostCallback():
                    step.callbacks.append(effect)
                case do.ReportProblem():
                    step.problems.append(effect)
                case do.ReleaseName():
                    step.released.append(effect)
                case do.StoreRecording():
                    step.also.append(partial(_hand_on, effect, self._settings, now))
                case do.NoteStay() | do.NoteTalk():
                    step.also.append(partial(recordings.note, effect=effect))
                case do.Reply():
                    step.also.append(self._commands.answer(effect))
                case _:
                    run.append(effect)
        if step.state or run or step.callbacks or step.problems or step.also:
            self._writer.put(step, run)
        self._set_timer(now)

    def _set_timer(self, now: int) -> None:
        if self._timer is not None:
            self._timer.cancel()
        deadline = self._directory.deadline
        self._timer = None
        if deadline is not None:
            wait = max(0.0, (deadline - now) / 1000)
            self._timer = asyncio.get_running_loop().call_later(wait, self.deliver, ev.TimePassed())

    def _heard(self, message: dict[str, Any]) -> None:
        event = translate.to_event(message, new_id)
        if event is not None:
            self.deliver(event)

    # At the start, and at each connection.

    async def _restore(self) -> None:
        """What the process before us has written."""
        while True:
            try:
                state = await self._store.load()
                break
            except StoreUnavailable as error:
                # Without it we would take the calls that are there for new ones.
                log.error("waiting for redis, which has the calls' state", reason=str(error))
                await asyncio.sleep(REDIS_AGAIN_S)
        calls, conferences, next_member_id = takeover.restored(state)
        self._directory.restore(calls, conferences, next_member_id)
        if calls or conferences:
            log.info("taking over", calls=len(calls), conferences=len(conferences))

    def _connected(self) -> None:
        self._measured.connected()
        task = asyncio.create_task(self._compare(self._first))
        self._first = False
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _compare(self, first: bool) -> None:
        """What happened while nobody listened; and at the first time what the process before us left undone."""
        known = {call.channel_id for call in self._directory.calls.values()}
        expected = [e for e in reconcile.expected(self._directory) if not self._interpreter.busy(e.lane)]
        there, channels = await takeover.look(self._ari, expected)
        if first:
            self._put(self._directory.resume(reconcile.again(self._directory, there), now_ms()), now_ms())
            ours = await takeover.ours(self._ari, self._settings.ari_app)
            for bridge_id in reconcile.strangers(self._directory, there, ours.__contains__):
                log.warning("bridge of nobody removed", conference_id=bridge_id)
                self._interpreter.run(do.DestroyBridge(bridge_id))
        for event in reconcile.missed(expected, there):
            self.deliver(event)
        for message in takeover.arrivals(channels, self._settings.ari_app, known):
            self._heard(message)


def _hand_on(effect: do.StoreRecording, settings: Settings, now: int, pipe: Any) -> Any:
    # Twice is once: whoever stores it sees that it is stored.
    return lanes.enqueue(pipe, [recordings.entry(effect, settings, now)], recordings.QUEUE)


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


def _tell(kind: str, thing: ev.Event | do.Effect, fields: dict[str, Any]) -> None:
    """One line for each event and each effect."""
    tell = log.debug if isinstance(thing, QUIET) else log.info
    if isinstance(thing, do.ReportProblem):
        tell = log.warning
    tell(type(thing).__name__, kind=kind, **fields)


async def serve(settings: Settings, *, stop: asyncio.Event) -> None:
    """Until `stop` is set. Raises SetupFailed."""
    await Service(settings).run(stop)
