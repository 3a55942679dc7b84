"""The documents of calls, from their accounts' servers or from the folder of kept ones; and those that tell sounds."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import structlog

from ari_conf import document
from ari_conf.accounts import AccountRecord
from ari_conf.ari.client import Client
from ari_conf.core import effects as do
from ari_conf.core import events as ev
from ari_conf.core.elements import Element, Play, Prompt
from ari_conf.errors import AnswerRefused, InvalidDocument, RequestFailed, StoreUnavailable, TooManyWaiting
from ari_conf.http.fetch import Enough, Fetcher, Reply
from ari_conf.http.hop import without_query
from ari_conf.shares import Shares
from ari_conf.store import Store

log = structlog.get_logger()
T = TypeVar("T")
Complaints = Callable[[Iterable[Element]], list[str]]

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
ACCOUNT_S = 5.0
"""For which an account that was never seen is looked up again and again while Redis is away."""
MOST_NAMED = 300
"""Characters of a source in what is said of it."""
MOST_UNREAD = 100
"""Long documents of an account that wait to be read: 10 MB."""
CHARSET = re.compile(r""";\s{0,9}charset\s{0,9}=\s{0,9}["']?([^\s"';]{1,100})""")
REFUSES_POST = (400, 403, 405, 411, 501)
"""How servers of files, which know nothing but GET, answer the POST for a sound document."""
AUDIO_NAME = re.compile(r"\.(mp3|wav)$", re.IGNORECASE)


class Documents:
    def __init__(
        self, store: Store, fetcher: Fetcher, folder: Path, ari: Client, complaints: Complaints = lambda _: []
    ) -> None:
        """Whoever may ask nothing of Asterisk asks nobody. `complaints`: of the voices, about what is to be spoken."""
        self._complaints = complaints
        self._store = store
        self._fetcher = fetcher
        self._folder = folder
        self._ari = ari
        self._looking_up: dict[str, asyncio.Task[AccountRecord | None]] = {}
        # One thread, and one account after another: each that reads takes the interpreter from the loop for moments.
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="document")
        self._reading = Shares(most=1, each=1, waiting=MOST_UNREAD)

    async def fetch(self, effect: do.FetchDocument) -> ev.Event:
        try:
            found = await self._read(self._document, effect.auth_id, *await self._text_of(effect))
        except InvalidDocument as error:
            reason = f"the document of {_named(effect.source)} can't be run: {error}"
            return ev.DocumentFailed(effect.fetch_id, True, reason)
        except TooManyWaiting as error:
            return ev.DocumentFailed(effect.fetch_id, False, f"the document of {_named(effect.source)}: {error}")
        except RequestFailed as error:
            # "over 100 KB" is a bad document; one that did not come is an unreachable URL.
            return ev.DocumentFailed(effect.fetch_id, isinstance(error, AnswerRefused), str(error))
        return ev.DocumentFetched(effect.fetch_id, found.elements, found.warnings)

    async def fetch_sounds(self, effect: do.FetchSounds) -> ev.Event:
        try:
            reply = await self._asked("POST", effect.url, effect.params, effect.auth_id, enough=is_audio)
            if is_audio(_content_type(reply), reply.body):
                return ev.SoundsFetched(effect.fetch_id, (Play(effect.url),))
            text, charset = reply.body, _charset(reply)
            sounds, warnings = await self._read(self._sounds, effect.auth_id, text, charset)
        except RequestFailed as error:
            if error.status in REFUSES_POST and AUDIO_NAME.search(without_query(effect.url)):
                return ev.SoundsFetched(effect.fetch_id, (Play(effect.url),))
            return ev.SoundsFailed(effect.fetch_id, str(error))
        except (InvalidDocument, TooManyWaiting) as error:
            return ev.SoundsFailed(effect.fetch_id, str(error))
        return ev.SoundsFetched(effect.fetch_id, sounds, warnings)

    async def account(self, auth_id: str) -> AccountRecord | None:
        """None if there is none. All that ask for it at once share one look-up. Raises StoreUnavailable if Redis can't
        be asked and it was never seen."""
        looking_up = self._looking_up.get(auth_id)
        if looking_up is None:
            looking_up = self._looking_up[auth_id] = asyncio.create_task(self._looked_up(auth_id))
            looking_up.add_done_callback(lambda task: self._found(auth_id, task))
        # One call that gives up ends it for no other.
        return await asyncio.shield(looking_up)

    async def _looked_up(self, auth_id: str) -> AccountRecord | None:
        try:
            async with asyncio.timeout(ACCOUNT_S):
                while True:
                    try:
                        return await self._store.account(auth_id)
                    except StoreUnavailable as error:
                        log.error("account not looked up", auth_id=auth_id, reason=str(error))
                        await asyncio.sleep(1.0)
        except TimeoutError:
            raise StoreUnavailable(f"Redis can't be reached, and the account {auth_id} is not known yet") from None

    def _found(self, auth_id: str, task: asyncio.Task[AccountRecord | None]) -> None:
        del self._looking_up[auth_id]
        if not task.cancelled():
            task.exception()  # seen, also if nobody waits any more

    async def _text_of(self, effect: do.FetchDocument) -> tuple[bytes, str]:
        """And the encoding that came with it, if any."""
        if "://" in effect.source:
            reply = await self._asked(effect.method, effect.source, effect.params, effect.auth_id)
            return reply.body, _charset(reply)
        return await asyncio.to_thread(self._kept, effect.source), ""

    async def _asked(
        self, method: str, url: str, params: do.Params, auth_id: str, enough: Enough | None = None
    ) -> Reply:
        """Never unsigned: whoever gets it could not tell it from a forged one."""
        try:
            record = await self.account(auth_id)
        except StoreUnavailable as error:
            raise RequestFailed(
                f"{without_query(url)}: nothing was sent, since nothing could sign it: {error}"
            ) from None
        if record is None:
            raise RequestFailed(f"{without_query(url)}: nothing was sent: there is no account {auth_id} any more")
        await self._ari.permission.confirmed()
        tokens = record.tokens()
        return await self._fetcher.request(
            method, url, params, tokens=tokens, limit_bytes=document.MAX_BYTES, account=auth_id, enough=enough
        )

    async def _read(self, parse: Callable[[bytes, str], T], auth_id: str, text: bytes, charset: str = "") -> T:
        """In the loop only what is short. Raises what `parse` does, and TooManyWaiting."""
        if len(text) <= document.SHORT_BYTES:
            return parse(text, charset)
        async with self._reading.turn(auth_id):
            return await asyncio.get_running_loop().run_in_executor(self._reader, parse, text, charset)

    def _document(self, text: bytes, charset: str) -> document.Document:
        found = document.parse(text, charset)
        return replace(found, warnings=(*found.warnings, *self._complaints(found.elements)))

    def _sounds(self, text: bytes, charset: str) -> tuple[tuple[Prompt, ...], tuple[str, ...]]:
        sounds, warnings = document.parse_sounds(text, charset)
        return sounds, (*warnings, *self._complaints(sounds))

    def _kept(self, name: str) -> bytes:
        if not NAME.fullmatch(name):
            raise InvalidDocument("it is neither an http or https URL nor a document's name (letters, digits, _ . -)")
        path = self._folder / (name if name.endswith(".xml") else f"{name}.xml")
        try:
            return path.read_bytes()
        except OSError as error:
            # Where it should be is for the operator, not for the account.
            log.error("document not read", path=str(path), reason=error.strerror)
            raise RequestFailed(f"the document {name!r} can't be read: {error.strerror}") from None


def is_audio(content_type: str, beginning: bytes) -> bool:
    """A sound itself instead of a document that names sounds: "by its Content-Type or its first bytes"."""
    if beginning.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        return False
    if content_type.startswith("audio/"):
        return True
    # MP3 begins with a tag or with a frame: eleven ones, then the version and the layer. (XML in UTF-16: layer 1.)
    frame = len(beginning) > 1 and beginning[0] == 0xFF and beginning[1] & 0xE6 in (0xE2, 0xE4)
    return frame or beginning.startswith((b"RIFF", b"RIFX", b"RF64", b"ID3"))


def _content_type(reply: Reply) -> str:
    return reply.headers.get("Content-Type", "").strip().lower()


def _charset(reply: Reply) -> str:
    found = CHARSET.search(_content_type(reply))
    return found[1] if found else ""


def _named(source: str) -> str:
    source = without_query(source)
    return source if len(source) <= MOST_NAMED else source[: MOST_NAMED - 3] + "..."
