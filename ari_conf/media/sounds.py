"""Sound preparation for Play and Speak: sounds are fetched or synthesized, transcoded for Asterisk, and cached. One
instance per process."""

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

from ari_conf.common.fair_shares import Shares
from ari_conf.common.supervision import Tasks, cancel_and_wait
from ari_conf.core.elements import Element, Play, Speak, without_login
from ari_conf.errors import (
    RequestFailed,
    RequestRefused,
    ResponseRefused,
    SoundError,
    SoundNotFetched,
    TooManyWaiting,
)
from ari_conf.media import subprocesses
from ari_conf.media.cache import NO_ACCOUNT, CacheEntry, SoundCache
from ari_conf.media.cache_control import freshness
from ari_conf.media.speech import SpeechEngine, SpeechSynthesizer
from ari_conf.media.tones import TONES, beep
from ari_conf.media.transcode import to_wavs
from ari_conf.settings import Settings

LIMIT_BYTES = 10 * 1024 * 1024
"""Maximum size of a fetched sound. Spec: "Play: URL of mp3 or wav, 10 MB at most"."""
PREPARE_TIMEOUT_S = 60.0
"""Seconds within which a sound must be ready; after that the next sound is played, or the next action follows."""
MAX_FETCHES, MAX_FETCHES_PER_ACCOUNT, MAX_FETCHES_PER_ORIGIN = 64, 4, 3
"""Concurrent fetches of sounds that are needed now: in all, per account, and per account and origin. A slow origin
leaves an account one of its fetches."""
MAX_PREFETCHES, MAX_PREFETCHES_PER_ACCOUNT, MAX_PREFETCHES_PER_CALL = 16, 2, 16
"""Prefetches of sounds that may soon be needed: concurrent in all, concurrent per account, and unfinished per call."""
MAX_WAITING_PREFETCHES = 64
"""Prefetches of one account that wait for a turn; further sounds are prepared when they are needed."""
SWEEP_INTERVAL_S = 60
USE_INTERVAL_S = 60
"""Minimum seconds between two records of a sound's use, however often it is played."""
PERMANENT_S = 10 * 365 * 86400
"""Lifetime of speech and tones, which don't change, in seconds: ten years."""

log = structlog.get_logger()


class FetchedFile(Protocol):
    @property
    def status(self) -> int: ...
    @property
    def etag(self) -> str | None: ...
    @property
    def last_modified(self) -> str | None: ...
    @property
    def cache_control(self) -> str | None: ...


class FileFetcher(Protocol):
    async def get_file(
        self,
        url: str,
        path: Path,
        limit_bytes: int,
        etag: str | None = None,
        last_modified: str | None = None,
        *,
        account: str = "",
    ) -> FetchedFile: ...


@dataclass(slots=True, eq=False)
class _Preparation:
    task: asyncio.Task[str]
    waiting: int = 0
    """Number of requests that wait for the preparation; when the last one gives up, the preparation is canceled."""


class SoundPreparer:
    """Sound preparer. Each account has its own sounds: a fetched sound is played to another account only if the origin
    delivers it to that account, too."""

    def __init__(
        self,
        settings: Settings,
        fetch: FileFetcher,
        engine: SpeechEngine | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._cache = SoundCache(settings.sounds_folder, settings.sounds_limit_mb * 1024 * 1024)
        self._cache.remove_unfinished(clock())
        self._url = settings.sounds_url.rstrip("/") if settings.sounds_url else None
        self._ffmpeg = settings.ffmpeg
        self._fetch = fetch
        self._engine = engine or SpeechSynthesizer.from_installed(settings.voice, settings.ffmpeg)
        self._clock = clock
        self._preparations: dict[str, _Preparation] = {}
        self._background = Tasks()
        self._fetch_shares = Shares(
            MAX_FETCHES, MAX_FETCHES_PER_ACCOUNT, subprocesses.MAX_WAITING, MAX_FETCHES_PER_ORIGIN
        )
        self._transcode_shares = subprocesses.shares()
        self._prefetch_shares = Shares(MAX_PREFETCHES, MAX_PREFETCHES_PER_ACCOUNT, MAX_WAITING_PREFETCHES)
        self._prefetches_by_owner: dict[str, set[asyncio.Task[Any]]] = {}
        self._use_times: dict[str, float] = {}
        """Name of a sound -> epoch seconds of its last recorded use, for uses within the last minute."""
        self._swept_at = 0.0
        subprocesses.confinement()

    async def prepare(self, sound: Play | Speak, account: str) -> str:
        """Return the media URI that Asterisk plays. A request for a sound that is already being prepared waits for that
        preparation.

        Raises SoundError with a one-sentence reason. A Play's URL may also be one of `tones.TONES`.
        """
        return await self._prepare(sound, account, is_prefetch=False)

    def complaints(self, elements: Iterable[Element]) -> list[str]:
        """Return warnings for the account about Speak elements that can't be spoken as requested, each text once."""
        return self._engine.complaints(elements)

    def warm(self, sounds: Iterable[Play | Speak], account: str, owner: str) -> None:
        """Start to prefetch the first of the sounds, some at a time, until `stop_warming(owner)`. A failure is logged;
        the sound is prepared again when it is needed."""
        prefetches = self._prefetches_by_owner.get(owner, set())
        for sound in islice(sounds, MAX_PREFETCHES_PER_CALL - len(prefetches)):
            task = self._background.start(self._prefetch(sound, account))
            task.add_done_callback(lambda task: self._on_prefetch_ended(task, owner))
            prefetches.add(task)
        if prefetches:
            self._prefetches_by_owner[owner] = prefetches

    def stop_warming(self, owner: str) -> None:
        for task in self._prefetches_by_owner.pop(owner, ()):
            task.cancel()

    def record_use(self, media: Iterable[str]) -> None:
        """Record that Asterisk plays these media. A sound that is repeated to a caller is not requested again, so this
        keeps it in the cache."""
        now = self._clock()
        for name in filter(None, map(self._cache.name_of, media)):
            if now >= self._use_times.get(name, 0.0) + USE_INTERVAL_S:
                self._use_times = {name: at for name, at in self._use_times.items() if now < at + USE_INTERVAL_S} | {
                    name: now
                }
                self._background.start(self._record_use(name, now))

    def file_for_request(self, path: str) -> Path | None:
        """Return the file for a request path below `sounds_url`, or None."""
        return self._cache.file_for_request(path)

    async def close(self) -> None:
        await cancel_and_wait(*(preparation.task for preparation in self._preparations.values()))
        await self._background.close()
        await self._engine.close()

    async def _prepare(self, sound: Play | Speak, account: str, is_prefetch: bool) -> str:
        key = self._cache_key(sound, account)
        preparation = self._preparations.get(key)
        if preparation is None:
            task = asyncio.create_task(self._prepare_in_time(key, sound, account, is_prefetch))
            preparation = self._preparations[key] = _Preparation(task)
            task.add_done_callback(lambda _: self._forget_preparation(key, preparation))
        preparation.waiting += 1
        try:
            return self._media_uri(await asyncio.shield(preparation.task))
        finally:
            preparation.waiting -= 1
            if not preparation.waiting:
                # A request that comes now starts a new preparation.
                self._forget_preparation(key, preparation)
                preparation.task.cancel()

    def _forget_preparation(self, key: str, preparation: _Preparation) -> None:
        if self._preparations.get(key) is preparation:
            del self._preparations[key]
        if preparation.task.done() and not preparation.task.cancelled():
            preparation.task.exception()  # retrieved, even if no request waits any more

    async def _prepare_in_time(self, key: str, sound: Play | Speak, account: str, is_prefetch: bool) -> str:
        try:
            async with asyncio.timeout(PREPARE_TIMEOUT_S):
                return await self._find_or_prepare(key, sound, account, is_prefetch)
        except TooManyWaiting as error:
            raise SoundError(f"{_describe(sound)}: {error}") from None
        except TimeoutError:
            raise SoundError(f"{_describe(sound)}: it was not ready after {PREPARE_TIMEOUT_S:g} s") from None

    async def _prefetch(self, sound: Play | Speak, account: str) -> None:
        try:
            async with self._prefetch_shares.turn(account):
                await self._prepare(sound, account, is_prefetch=True)
        except SoundError as error:
            log.warning("sound prefetch failed", reason=str(error))
        except TooManyWaiting as error:
            log.debug("sound prefetch failed", reason=str(error))

    def _cache_key(self, sound: Play | Speak, account: str) -> str:
        if isinstance(sound, Speak):
            voice = self._engine.identity(sound.voice, sound.language)
            return f"speak {account}\n{voice}\n{sound.language}\n{sound.markup}"
        if sound.url in TONES:
            return f"tone {sound.url}"
        # The fragment holds the retry policy and doesn't identify the sound.
        return f"play {account}\n{urldefrag(sound.url).url}"

    def _media_uri(self, name: str) -> str:
        return f"sound:{self._url}/{name}.wav" if self._url else f"sound:{self._cache.path(name)}"

    async def _find_or_prepare(self, key: str, sound: Play | Speak, account: str, is_prefetch: bool) -> str:
        entry = await asyncio.to_thread(self._cache.find, key, self._clock())
        if entry is not None and self._clock() < entry.stored + entry.fresh_s:
            return entry.name
        if isinstance(sound, Speak):
            return await self._prepare_speech(key, sound, account)
        if sound.url in TONES:
            return await asyncio.to_thread(self._prepare_tone, key, sound.url)
        return await self._prepare_file(key, sound.url, account, entry, is_prefetch)

    async def _prepare_file(self, key: str, url: str, account: str, entry: CacheEntry | None, is_prefetch: bool) -> str:
        with self._cache.temporary_file() as part:
            etag, last_modified = (entry.etag, entry.last_modified) if entry else (None, None)
            # A prefetch has its turn already, and takes no turn of a sound that is needed now.
            turn = (
                contextlib.nullcontext()
                if is_prefetch
                else self._fetch_shares.turn(account, urlsplit(url).netloc.rpartition("@")[2])
            )
            try:
                async with turn:
                    reply = await self._fetch.get_file(url, part, LIMIT_BYTES, etag, last_modified, account=account)
            except RequestFailed as error:
                if _is_refused_by_origin(error):
                    await asyncio.to_thread(self._cache.forget, key)
                    entry = None
                if entry is None or self._clock() >= entry.stored + entry.fresh_s + entry.stale_s:
                    raise SoundNotFetched(str(error), not_allowed=isinstance(error, RequestRefused)) from None
                log.warning("stale sound used", url=_bare_url(url), reason=str(error))
                return entry.name
            if reply.status == 304 and entry is not None:
                return await self._renew_entry(key, entry, reply)
            name = await self._transcode(part, f"Play: {_bare_url(url)}", account)
        lifetime = freshness(reply.cache_control)
        if lifetime.keep:
            kept = lifetime.fresh_s, lifetime.stale_s, reply.etag, reply.last_modified, account
            await asyncio.to_thread(self._cache.keep, key, CacheEntry(name, self._clock(), *kept))
        else:
            await asyncio.to_thread(self._cache.forget, key)
        return name

    async def _renew_entry(self, key: str, entry: CacheEntry, reply: FetchedFile) -> str:
        entry = replace(entry, stored=self._clock())
        if reply.cache_control is not None:
            lifetime = freshness(reply.cache_control)
            entry = replace(entry, fresh_s=lifetime.fresh_s, stale_s=lifetime.stale_s)
        await asyncio.to_thread(self._cache.keep, key, entry)
        return entry.name

    async def _prepare_speech(self, key: str, sound: Speak, account: str) -> str:
        with self._cache.temporary_file() as part:
            await self._engine.speak(sound.markup, sound.voice, sound.language, part, account)
            name = await self._transcode(part, "Speak", account)
        entry = CacheEntry(name, self._clock(), PERMANENT_S, 0, account=account)
        await asyncio.to_thread(self._cache.keep, key, entry)
        return name

    async def _transcode(self, source: Path, what: str, account: str) -> str:
        with self._cache.temporary_file() as narrow, self._cache.temporary_file() as wide:
            async with self._transcode_shares.turn(account):
                try:
                    await to_wavs(self._ffmpeg, source, narrow, wide)
                except SoundError as error:
                    raise SoundError(f"{what} could not be played (expected mp3 or wav): {error}") from None
                try:
                    name = await asyncio.to_thread(self._cache.add, narrow, wide, self._clock(), account)
                except SoundError as error:
                    raise SoundError(f"{what} could not be played: {error}") from None
        if self._clock() >= self._swept_at + SWEEP_INTERVAL_S:
            self._swept_at = self._clock()
            self._background.start(asyncio.to_thread(self._cache.sweep, self._swept_at))
        return name

    async def _record_use(self, name: str, now: float) -> None:
        # The file may no longer exist; then Asterisk reports that.
        with contextlib.suppress(OSError):
            await asyncio.to_thread(self._cache.use, name, now)

    def _on_prefetch_ended(self, task: asyncio.Task[Any], owner: str) -> None:
        if (prefetches := self._prefetches_by_owner.get(owner)) is not None:
            prefetches.discard(task)
            if not prefetches:
                del self._prefetches_by_owner[owner]

    def _prepare_tone(self, key: str, name: str) -> str:
        now = self._clock()
        with self._cache.temporary_file() as narrow, self._cache.temporary_file() as wide:
            narrow.write_bytes(beep(name, 8000))
            wide.write_bytes(beep(name, 16000))
            made = self._cache.add(narrow, wide, now, NO_ACCOUNT)
        self._cache.keep(key, CacheEntry(made, now, PERMANENT_S, 0))
        return made


def _describe(sound: Play | Speak) -> str:
    return "Speak" if isinstance(sound, Speak) else f"Play: {_bare_url(sound.url)}"


def _bare_url(url: str) -> str:
    """Return the URL without login, query and fragment, for messages and logs: a login or a query may hold secrets."""
    return without_login(url.partition("#")[0].partition("?")[0])


def _is_refused_by_origin(error: RequestFailed) -> bool:
    """Return False if the origin is unreachable or broken, so that an older sound may replace this one (RFC 5861,
    section 4). An origin that responds 403 or 404 doesn't want the sound to be played any more."""
    return isinstance(error, RequestRefused | ResponseRefused) or 0 < error.status < 500
