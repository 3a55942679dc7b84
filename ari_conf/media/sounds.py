"""Play and Speak to what Asterisk plays: fetched or spoken, converted, cached. One for a process."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urldefrag, urlsplit

import structlog

from ari_conf.core.elements import Element, Play, Speak, without_login
from ari_conf.errors import AnswerRefused, RequestFailed, RequestRefused, SoundFailed, TooManyWaiting
from ari_conf.media import programs
from ari_conf.media.beeps import TONES, beep
from ari_conf.media.cache import NOBODY, Cache, Entry
from ari_conf.media.convert import to_wavs
from ari_conf.media.freshness import freshness
from ari_conf.media.speech import Engine, Speech
from ari_conf.settings import Settings
from ari_conf.shares import Shares
from ari_conf.supervision import Tasks, ended

LIMIT_BYTES = 10 * 1024 * 1024
""" "Play: URL of mp3 or wav, 10 MB at most" """
PREPARED_S = 60.0
"""After which nobody waits for a sound any more: what is to be played, or done, next comes."""
FETCHED_AT_ONCE, FETCHED_OF_ACCOUNT, FETCHED_OF_ORIGIN = 64, 4, 3
"""Sounds that somebody waits for; the last two of one account. An origin that is slow leaves one of them."""
WARMED, WARMED_OF_ACCOUNT, WARMED_OF_CALL = 16, 2, 16
"""Of sounds that may soon be wanted: so many are prepared at once, of one account, and of those that a call names."""
WARMING_OF_ACCOUNT = 64
"""Of those that wait for their turn: others are prepared when they are wanted."""
SWEPT_EVERY_S = 60
USED_EVERY_S = 60
"""So often at most it is noted that a sound is played, however often it is."""
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
        self,
        url: str,
        path: Path,
        limit_bytes: int,
        etag: str | None = None,
        last_modified: str | None = None,
        *,
        account: str = "",
    ) -> Fetched: ...


@dataclass(slots=True, eq=False)
class _Preparation:
    task: asyncio.Task[str]
    waiting: int = 0
    """Who wait for it; with the last of them it ends."""


class Sounds:
    """Each account has its own: what one has fetched is played to another only if the origin gives it to both."""

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
        self._running: dict[str, _Preparation] = {}
        self._background = Tasks()
        self._fetching = Shares(FETCHED_AT_ONCE, FETCHED_OF_ACCOUNT, programs.WAITING, FETCHED_OF_ORIGIN)
        self._converting = programs.shares()
        self._warming = Shares(WARMED, WARMED_OF_ACCOUNT, WARMING_OF_ACCOUNT)
        self._warmed_for: dict[str, set[asyncio.Task[Any]]] = {}
        self._used: dict[str, float] = {}
        """When a sound was last noted to be played, of those of the last minute."""
        self._swept = 0.0
        programs.confinement()

    async def prepare(self, sound: Play | Speak, account: str) -> str:
        """The media URI that Asterisk plays. Who asks for what is just being prepared waits for that.

        Raises SoundFailed with a sentence. A Play's URL may also be one of `beeps.TONES`.
        """
        return await self._prepare(sound, account, warms=False)

    def complaints(self, elements: Iterable[Element]) -> list[str]:
        """What an account is told of each Speak, once, that is not spoken as it should be."""
        return self._engine.complaints(elements)

    def warm(self, sounds: Iterable[Play | Speak], account: str, owner: str) -> None:
        """Begins to prepare the first of them, some at a time, until `stop_warming(owner)`. What fails is logged, and
        tried again when it is wanted."""
        warming = self._warmed_for.get(owner, set())
        for sound in islice(sounds, WARMED_OF_CALL - len(warming)):
            task = self._background.start(self._warm(sound, account))
            task.add_done_callback(lambda ended: self._warmed(ended, owner))
            warming.add(task)
        if warming:
            self._warmed_for[owner] = warming

    def stop_warming(self, owner: str) -> None:
        for task in self._warmed_for.pop(owner, ()):
            task.cancel()

    def played(self, media: Iterable[str]) -> None:
        """Asterisk is told to: who hears a sound again and again doesn't ask for it anew."""
        now = self._clock()
        for name in filter(None, map(self._cache.name_of, media)):
            if now >= self._used.get(name, 0.0) + USED_EVERY_S:
                self._used = {name: at for name, at in self._used.items() if now < at + USED_EVERY_S} | {name: now}
                self._background.start(self._use(name, now))

    def served(self, path: str) -> Path | None:
        """The file for a request's path below `sounds_url`, if there is one."""
        return self._cache.served(path)

    async def close(self) -> None:
        await ended(*(running.task for running in self._running.values()))
        await self._background.close()
        await self._engine.close()

    async def _prepare(self, sound: Play | Speak, account: str, warms: bool) -> str:
        key = self._key(sound, account)
        running = self._running.get(key)
        if running is None:
            task = asyncio.create_task(self._in_time(key, sound, account, warms))
            running = self._running[key] = _Preparation(task)
            task.add_done_callback(lambda _: self._finished(key, running))
        running.waiting += 1
        try:
            return self._media(await asyncio.shield(running.task))
        finally:
            running.waiting -= 1
            if not running.waiting:
                # Whoever comes now begins anew.
                self._finished(key, running)
                running.task.cancel()

    def _finished(self, key: str, preparation: _Preparation) -> None:
        if self._running.get(key) is preparation:
            del self._running[key]
        if preparation.task.done() and not preparation.task.cancelled():
            preparation.task.exception()  # seen, also if nobody waits any more

    async def _in_time(self, key: str, sound: Play | Speak, account: str, warms: bool) -> str:
        try:
            async with asyncio.timeout(PREPARED_S):
                return await self._prepared(key, sound, account, warms)
        except TooManyWaiting as error:
            raise SoundFailed(f"{_named(sound)}: {error}") from None
        except TimeoutError:
            raise SoundFailed(f"{_named(sound)}: it was not ready after {PREPARED_S:g} s") from None

    async def _warm(self, sound: Play | Speak, account: str) -> None:
        try:
            async with self._warming.turn(account):
                await self._prepare(sound, account, warms=True)
        except SoundFailed as error:
            log.warning("sound not warmed", reason=str(error))
        except TooManyWaiting as error:
            log.debug("sound not warmed", reason=str(error))

    def _key(self, sound: Play | Speak, account: str) -> str:
        if isinstance(sound, Speak):
            voice = self._engine.identity(sound.voice, sound.language)
            return f"speak {account}\n{voice}\n{sound.language}\n{sound.markup}"
        if sound.url in TONES:
            return f"tone {sound.url}"
        # The fragment says how to fetch, not what.
        return f"play {account}\n{urldefrag(sound.url).url}"

    def _media(self, name: str) -> str:
        return f"sound:{self._url}/{name}.wav" if self._url else f"sound:{self._cache.path(name)}"

    async def _prepared(self, key: str, sound: Play | Speak, account: str, warms: bool) -> str:
        entry = await asyncio.to_thread(self._cache.find, key, self._clock())
        if entry is not None and self._clock() < entry.stored + entry.fresh_s:
            return entry.name
        if isinstance(sound, Speak):
            return await self._spoken(key, sound, account)
        if sound.url in TONES:
            return await asyncio.to_thread(self._toned, key, sound.url)
        return await self._played(key, sound.url, account, entry, warms)

    async def _played(self, key: str, url: str, account: str, entry: Entry | None, warms: bool) -> str:
        with self._cache.part() as part:
            etag, last_modified = (entry.etag, entry.last_modified) if entry else (None, None)
            # What is warmed has had its turn already: it takes no place of what somebody waits for.
            turn = (
                contextlib.nullcontext()
                if warms
                else self._fetching.turn(account, urlsplit(url).netloc.rpartition("@")[2])
            )
            try:
                async with turn:
                    reply = await self._fetch.get_file(url, part, LIMIT_BYTES, etag, last_modified, account=account)
            except RequestFailed as error:
                if _answers(error):
                    await asyncio.to_thread(self._cache.forget, key)
                    entry = None
                if entry is None or self._clock() >= entry.stored + entry.fresh_s + entry.stale_s:
                    raise SoundFailed(str(error)) from None
                log.warning("older sound played", url=_bare(url), reason=str(error))
                return entry.name
            if reply.status == 304 and entry is not None:
                return await self._confirmed(key, entry, reply)
            name = await self._converted(part, f"Play: {_bare(url)}", account)
        told = freshness(reply.cache_control)
        if told.keep:
            kept = told.fresh_s, told.stale_s, reply.etag, reply.last_modified, account
            await asyncio.to_thread(self._cache.keep, key, Entry(name, self._clock(), *kept))
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

    async def _spoken(self, key: str, sound: Speak, account: str) -> str:
        with self._cache.part() as part:
            await self._engine.speak(sound.markup, sound.voice, sound.language, part, account)
            name = await self._converted(part, "Speak", account)
        entry = Entry(name, self._clock(), FOR_EVER_S, 0, account=account)
        await asyncio.to_thread(self._cache.keep, key, entry)
        return name

    async def _converted(self, source: Path, what: str, account: str) -> str:
        with self._cache.part() as narrow, self._cache.part() as wide:
            async with self._converting.turn(account):
                try:
                    await to_wavs(self._ffmpeg, source, narrow, wide)
                except SoundFailed as error:
                    raise SoundFailed(f"{what} can't be played (mp3 and wav can): {error}") from None
                try:
                    name = await asyncio.to_thread(self._cache.add, narrow, wide, self._clock(), account)
                except SoundFailed as error:
                    raise SoundFailed(f"{what} can't be played: {error}") from None
        if self._clock() >= self._swept + SWEPT_EVERY_S:
            self._swept = self._clock()
            self._background.start(asyncio.to_thread(self._cache.sweep, self._swept))
        return name

    async def _use(self, name: str, now: float) -> None:
        # It may be gone: then Asterisk says so.
        with contextlib.suppress(OSError):
            await asyncio.to_thread(self._cache.use, name, now)

    def _warmed(self, task: asyncio.Task[Any], owner: str) -> None:
        if (warming := self._warmed_for.get(owner)) is not None:
            warming.discard(task)
            if not warming:
                del self._warmed_for[owner]

    def _toned(self, key: str, name: str) -> str:
        now = self._clock()
        with self._cache.part() as narrow, self._cache.part() as wide:
            narrow.write_bytes(beep(name, 8000))
            wide.write_bytes(beep(name, 16000))
            made = self._cache.add(narrow, wide, now, NOBODY)
        self._cache.keep(key, Entry(made, now, FOR_EVER_S, 0))
        return made


def _named(sound: Play | Speak) -> str:
    return "Speak" if isinstance(sound, Speak) else f"Play: {_bare(sound.url)}"


def _bare(url: str) -> str:
    """For messages and logs: a query may hold secrets, and what stands before the host does."""
    return without_login(url.partition("#")[0].partition("?")[0])


def _answers(error: RequestFailed) -> bool:
    """An older sound stands in for an origin that can't be reached or is broken (RFC 5861, 4). One that says 403 or 404
    doesn't want it to be played any more."""
    return isinstance(error, RequestRefused | AnswerRefused) or 0 < error.status < 500
