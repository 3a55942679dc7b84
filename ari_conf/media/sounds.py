"""Play and Speak to what Asterisk plays: fetched or spoken, converted, cached. One for a process."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urldefrag

import structlog

from ari_conf.core.elements import Play, Speak
from ari_conf.errors import RequestFailed, RequestRefused, SoundFailed
from ari_conf.media.beeps import TONES, beep
from ari_conf.media.cache import Cache, Entry
from ari_conf.media.convert import to_wavs
from ari_conf.media.freshness import freshness
from ari_conf.media.speech import Engine, Speech
from ari_conf.settings import Settings

LIMIT_BYTES = 10 * 1024 * 1024
""" "Play: URL of mp3 or wav, 10 MB at most" """
FETCHED_AT_ONCE = 8
WARMED_AT_ONCE = 4
SWEPT_EVERY_S = 60
FOR_EVER_S = 10 * 365 * 86400
"""A spoken text doesn't change."""

log = structlog.get_logger()


class Fetched(Protocol):
    @property
    def status(self) -> int: ...
    @property
    def etag(self) -> str | None: ...
    @property
    def last_modified(self) -> str | None: ...
    @property
    def cache_control(self) -> str | None: ...


class Fetch(Protocol):
    async def get_file(
        self, url: str, path: Path, limit_bytes: int, etag: str | None = None, last_modified: str | None = None
    ) -> Fetched: ...


class Sounds:
    def __init__(
        self, settings: Settings, fetch: Fetch, engine: Engine | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        self._cache = Cache(settings.sounds_folder, settings.sounds_limit_mb * 1024 * 1024)
        self._cache.remove_unfinished(clock())
        self._url = settings.sounds_url.rstrip("/") if settings.sounds_url else None
        self._ffmpeg = settings.ffmpeg
        self._fetch = fetch
        self._engine = engine or Speech.of_this_machine(settings.voice, settings.ffmpeg)
        self._clock = clock
        self._running: dict[str, asyncio.Task[str]] = {}
        self._background: set[asyncio.Task[Any]] = set()
        self._fetching = asyncio.Semaphore(FETCHED_AT_ONCE)
        self._warming = asyncio.Semaphore(WARMED_AT_ONCE)
        # Half of the machine at most: the rest is Asterisk's.
        self._converting = asyncio.Semaphore(max(1, (os.cpu_count() or 1) // 2))
        self._swept = 0.0

    async def prepare(self, sound: Play | Speak) -> str:
        """The media URI that Asterisk plays. Who asks for what is just being prepared waits for that.

        Raises SoundFailed with a sentence. A Play's URL may also be one of `beeps.TONES`.
        """
        key = self._key(sound)
        task = self._running.get(key)
        if task is None:
            task = self._running[key] = asyncio.create_task(self._prepared(key, sound))
            task.add_done_callback(lambda done: self._finished(key, done))
        # Others may wait for it too, and the next one will be glad of it: it goes on if this call hangs up.
        return self._media(await asyncio.shield(task))

    def warm(self, sounds: Iterable[Play | Speak]) -> None:
        """Begins to prepare them, some at a time. What fails is logged, and tried again when it is wanted."""
        for sound in sounds:
            self._later(self._warmed(sound))

    def served(self, path: str) -> Path | None:
        """The file for a request's path below `sounds_url`, if there is one."""
        return self._cache.served(path)

    async def close(self) -> None:
        tasks = [*self._running.values(), *self._background]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._engine.close()

    def _finished(self, key: str, task: asyncio.Task[str]) -> None:
        self._running.pop(key, None)
        if not task.cancelled():
            task.exception()  # seen, also if nobody waits any more

    async def _warmed(self, sound: Play | Speak) -> None:
        async with self._warming:
            try:
                await self.prepare(sound)
            except SoundFailed as error:
                log.warning("sound not warmed", reason=str(error))

    def _key(self, sound: Play | Speak) -> str:
        if isinstance(sound, Play):
            # The fragment says how to fetch, not what.
            return "play " + urldefrag(sound.url).url
        return f"speak {self._engine.identity(sound.voice, sound.language)}\n{sound.language}\n{sound.markup}"

    def _media(self, name: str) -> str:
        return f"sound:{self._url}/{name}.wav" if self._url else f"sound:{self._cache.path(name)}"

    async def _prepared(self, key: str, sound: Play | Speak) -> str:
        entry = await asyncio.to_thread(self._cache.find, key, self._clock())
        if entry is not None and self._clock() < entry.stored + entry.fresh_s:
            return entry.name
        if isinstance(sound, Speak):
            return await self._spoken(key, sound)
        if sound.url in TONES:
            return await asyncio.to_thread(self._toned, key, sound.url)
        return await self._played(key, sound.url, entry)

    async def _played(self, key: str, url: str, entry: Entry | None) -> str:
        with self._cache.part() as part:
            etag, last_modified = (entry.etag, entry.last_modified) if entry else (None, None)
            try:
                async with self._fetching:
                    reply = await self._fetch.get_file(url, part, LIMIT_BYTES, etag, last_modified)
            except RequestRefused as error:
                raise SoundFailed(str(error)) from None
            except RequestFailed as error:
                if entry is None or self._clock() >= entry.stored + entry.fresh_s + entry.stale_s:
                    raise SoundFailed(str(error)) from None
                log.warning("older sound played", url=url, reason=str(error))
                return entry.name
            if reply.status == 304 and entry is not None:
                return await self._confirmed(key, entry, reply)
            name = await self._converted(part, f"Play: {urldefrag(url).url.partition('?')[0]}")
        told = freshness(reply.cache_control)
        if told.keep:
            new = Entry(name, self._clock(), told.fresh_s, told.stale_s, reply.etag, reply.last_modified)
            await asyncio.to_thread(self._cache.keep, key, new)
        else:
            await asyncio.to_thread(self._cache.forget, key)
        return name

    async def _confirmed(self, key: str, entry: Entry, reply: Fetched) -> str:
        entry = replace(entry, stored=self._clock())
        if reply.cache_control is not None:
            told = freshness(reply.cache_control)
            entry = replace(entry, fresh_s=told.fresh_s, stale_s=told.stale_s)
        await asyncio.to_thread(self._cache.keep, key, entry)
        return entry.name

    async def _spoken(self, key: str, sound: Speak) -> str:
        with self._cache.part() as part:
            await self._engine.speak(sound.markup, sound.voice, sound.language, part)
            name = await self._converted(part, "Speak")
        await asyncio.to_thread(self._cache.keep, key, Entry(name, self._clock(), FOR_EVER_S, 0))
        return name

    async def _converted(self, source: Path, what: str) -> str:
        with self._cache.part() as narrow, self._cache.part() as wide:
            try:
                async with self._converting:
                    await to_wavs(self._ffmpeg, source, narrow, wide)
            except SoundFailed as error:
                raise SoundFailed(f"{what} can't be played (mp3 and wav can): {error}") from None
            name = await asyncio.to_thread(self._cache.add, narrow, wide, self._clock())
        if self._clock() >= self._swept + SWEPT_EVERY_S:
            self._swept = self._clock()
            self._later(asyncio.to_thread(self._cache.sweep, self._swept))
        return name

    def _later(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    def _toned(self, key: str, name: str) -> str:
        now = self._clock()
        with self._cache.part() as narrow, self._cache.part() as wide:
            narrow.write_bytes(beep(name, 8000))
            wide.write_bytes(beep(name, 16000))
            made = self._cache.add(narrow, wide, now)
        self._cache.keep(key, Entry(made, now, FOR_EVER_S, 0))
        return made
