"""The application: event -> core -> store -> effects -> next deadline. The only wiring of its parts."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from typing import Any

import msgspec
import structlog
from redis import Redis

from ari_conf import store as redis_store
from ari_conf.ari import translate
from ari_conf.ari.client import Client, Server
from ari_conf.core import effects as do
from ari_conf.core import events as ev
from ari_conf.core.directory import Directory
from ari_conf.core.snapshot import snapshot
from ari_conf.errors import AriError
from ari_conf.http.fetch import Fetcher
from ari_conf.interpreter import Interpreter
from ari_conf.log_fields import fields_of
from ari_conf.media import server as sound_server
from ari_conf.media.sounds import Sounds
from ari_conf.settings import Settings, address
from ari_conf.store import Step, Store
from ari_conf.writer import Writer
from tasks.tokens import Tokens

log = structlog.get_logger()
encode = msgspec.json.Encoder().encode

QUIET = (ev.TimePassed, ev.TalkingStarted, ev.TalkingFinished, do.WarmSounds)
"""Told at level debug only: there are many, and they say little."""


COMPARE_AGAIN_S = 0.2


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
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    async def run(self, stop: asyncio.Event) -> None:
        writing = asyncio.create_task(self._writer.run())
        self._tokens.start()
        serving = None
        try:
            if self._settings.sounds_url:
                serving = await sound_server.start(self._sounds, *address(self._settings.sounds_listen))
            await self._ari.start()
            await stop.wait()
            with contextlib.suppress(TimeoutError):
                # What was decided is written before we go; if Redis is away, it can't be.
                await asyncio.wait_for(self._writer.drained(), 2.0)
        finally:
            await self._ari.close()
            await self._interpreter.close()
            writing.cancel()
            for task in self._tasks:
                task.cancel()
            self._tokens.end()
            if serving is not None:
                await serving.cleanup()
            await self._sounds.close()
            await self._fetcher.close()
            await self._redis.aclose()

    # The one door.

    def deliver(self, event: ev.Event) -> None:
        now = now_ms()
        whose = self._directory.whose
        told = fields_of(event, whose)
        effects = self._directory.receive(event, now)
        step = Step(now)
        for key, thing in self._directory.touched().items():
            step.state[key] = encode(snapshot(thing)) if thing is not None else None
        _tell("event", event, told)
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
                case _:
                    run.append(effect)
        if step.state or run or step.callbacks or step.problems:
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

    # At each connection.

    def _connected(self) -> None:
        task = asyncio.create_task(self._compare())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _compare(self) -> None:
        """What happened while we were away: calls that are gone, calls that came."""
        known = {call.channel_id for call in self._directory.calls.values()}
        channels = None
        while channels is None:
            try:
                channels = await self._ari.request("GET", "/channels")
            except AriError as error:
                # It connects before it has started to its end.
                log.info("channels can't be compared yet", reason=str(error))
                await asyncio.sleep(COMPARE_AGAIN_S)
        there = {channel["id"] for channel in channels}
        for channel_id in known - there:
            self.deliver(ev.ChannelHungUp(channel_id, 0))


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
