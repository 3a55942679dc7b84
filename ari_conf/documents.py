"""The documents of calls, from their accounts' servers or from the folder of kept ones; and those that tell sounds."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Protocol

import structlog

from ari_conf import document
from ari_conf.accounts import AccountRecord
from ari_conf.ari.client import Client
from ari_conf.core import effects as do
from ari_conf.core import events as ev
from ari_conf.core.elements import Play, Speak
from ari_conf.errors import AnswerRefused, InvalidDocument, RequestFailed, StoreUnavailable
from ari_conf.http.fetch import Fetcher
from ari_conf.store import Store

log = structlog.get_logger()

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
ACCOUNT_TRIES = 5
"""Seconds for which an account is looked up again while Redis is away."""


class Sounds(Protocol):
    async def prepare(self, sound: Play | Speak) -> str: ...

    def warm(self, sounds: tuple[Play | Speak, ...]) -> None: ...


class Documents:
    def __init__(self, store: Store, fetcher: Fetcher, sounds: Sounds, folder: Path, ari: Client) -> None:
        """`sounds` are told of those that will soon be played; whoever may ask nothing of Asterisk asks nobody."""
        self._store = store
        self._fetcher = fetcher
        self._sounds = sounds
        self._folder = folder
        self._ari = ari

    async def fetch(self, effect: do.FetchDocument) -> ev.Event:
        try:
            found = document.parse(await self._text_of(effect))
        except InvalidDocument as error:
            reason = f"the document of {_named(effect.source)} can't be run: {error}"
            return ev.DocumentFailed(effect.fetch_id, True, reason)
        except RequestFailed as error:
            # "over 100 KB" is a bad document; one that did not come is an unreachable URL.
            return ev.DocumentFailed(effect.fetch_id, isinstance(error, AnswerRefused), str(error))
        return ev.DocumentFetched(effect.fetch_id, found.elements, found.warnings)

    async def fetch_sounds(self, effect: do.FetchSounds) -> ev.Event:
        try:
            text = await self._asked("POST", effect.url, effect.params, effect.auth_id)
            sounds, warnings = document.parse_sounds(text)
        except (InvalidDocument, RequestFailed) as error:
            return ev.SoundsFailed(effect.fetch_id, str(error))
        self._sounds.warm(tuple(s for s in sounds if isinstance(s, Play | Speak)))
        return ev.SoundsFetched(effect.fetch_id, sounds, warnings)

    async def account(self, auth_id: str) -> AccountRecord | None:
        for _ in range(ACCOUNT_TRIES):
            try:
                return await self._store.account(auth_id)
            except StoreUnavailable as error:
                log.error("account not looked up", auth_id=auth_id, reason=str(error))
                await asyncio.sleep(1.0)
        return None

    async def _text_of(self, effect: do.FetchDocument) -> bytes:
        if "://" in effect.source:
            return await self._asked(effect.method, effect.source, effect.params, effect.auth_id)
        return await asyncio.to_thread(self._kept, effect.source)

    async def _asked(self, method: str, url: str, params: do.Params, auth_id: str) -> bytes:
        record = await self.account(auth_id)
        tokens = record.tokens() if record else []
        await self._ari.permission.confirmed()
        reply = await self._fetcher.request(method, url, params, tokens=tokens, limit_bytes=document.MAX_BYTES)
        return reply.body

    def _kept(self, name: str) -> bytes:
        if not NAME.fullmatch(name):
            raise InvalidDocument("it is neither an http or https URL nor a document's name (letters, digits, _ . -)")
        path = self._folder / (name if name.endswith(".xml") else f"{name}.xml")
        try:
            return path.read_bytes()
        except OSError as error:
            raise RequestFailed(f"the document {name!r} can't be read: {path}: {error.strerror}") from None


def _named(source: str) -> str:
    return source.partition("?")[0].partition("#")[0]
