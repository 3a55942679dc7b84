"""Document loader: loads calls' documents, from URLs or from the folder of local documents, and sound documents."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import structlog

from ari_conf.ari.client import Client
from ari_conf.common.fair_shares import Shares
from ari_conf.core import effects as do
from ari_conf.core import events as ev
from ari_conf.core.elements import Element, Play, Prompt
from ari_conf.core.problem_kinds import ProblemKind
from ari_conf.documents import parser
from ari_conf.errors import (
    InvalidDocument,
    RequestFailed,
    RequestRefused,
    ResponseRefused,
    StoreUnavailable,
    TooManyWaiting,
)
from ari_conf.http_client.fetch import Enough, Fetcher, Response
from ari_conf.http_client.prepared_request import without_query
from ari_conf.store.accounts import AccountRecord
from ari_conf.store.state_store import StateStore

log = structlog.get_logger()
T = TypeVar("T")
Complaints = Callable[[Iterable[Element]], list[str]]

LOCAL_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
ACCOUNT_TIMEOUT_S = 5.0
"""Seconds for which the look-up of an account that was never seen is retried while Redis is unreachable."""
MAX_SOURCE_CHARS = 300
"""Maximum number of characters of a source in messages about it."""
MAX_UNPARSED = 100
"""Maximum number of long documents of an account that wait to be parsed: 10 MB."""
CHARSET = re.compile(r""";\s{0,9}charset\s{0,9}=\s{0,9}["']?([^\s"';]{1,100})""")
REFUSES_POST = (400, 403, 405, 411, 501)
"""Status codes with which file servers, which support only GET, answer the POST for a sound document."""
AUDIO_NAME = re.compile(r"\.(mp3|wav)$", re.IGNORECASE)


class DocumentLoader:
    def __init__(
        self, store: StateStore, fetcher: Fetcher, folder: Path, ari: Client, complaints: Complaints = lambda _: []
    ) -> None:
        """Create the loader. It sends requests only while `ari` has permission to, that is, while the lease is held.

        `complaints` returns the voices' warnings about the elements that are to be spoken.
        """
        self._complaints = complaints
        self._store = store
        self._fetcher = fetcher
        self._folder = folder
        self._ari = ari
        self._looking_up: dict[str, asyncio.Task[AccountRecord | None]] = {}
        # One thread, with accounts in turn: each parsing thread takes the interpreter from the event loop for moments.
        self._parsing_thread = ThreadPoolExecutor(1, thread_name_prefix="document")
        self._parsing_shares = Shares(most=1, each=1, waiting=MAX_UNPARSED)

    async def fetch(self, effect: do.FetchDocument) -> ev.Event:
        try:
            found = await self._parse(self._parse_document, effect.auth_id, *await self._load_text(effect))
        except InvalidDocument as error:
            return ev.DocumentFailed(effect.fetch_id, ProblemKind.DOCUMENT_INVALID, _not_run_text(effect.source, error))
        except TooManyWaiting as error:
            return ev.DocumentFailed(
                effect.fetch_id, ProblemKind.DOCUMENT_UNREACHABLE, _not_run_text(effect.source, error)
            )
        except RequestFailed as error:
            return ev.DocumentFailed(effect.fetch_id, _failure_kind(error), str(error))
        return ev.DocumentFetched(effect.fetch_id, found.elements, found.warnings)

    async def fetch_sounds(self, effect: do.FetchSoundDocument) -> ev.Event:
        try:
            response = await self._request("POST", effect.url, effect.params, effect.auth_id, enough=is_audio)
            if is_audio(_content_type(response), response.body):
                return ev.SoundDocumentFetched(effect.fetch_id, (Play(effect.url),))
            text, charset = response.body, _charset(response)
            sounds, warnings = await self._parse(self._parse_sounds, effect.auth_id, text, charset)
        except RequestFailed as error:
            if error.status in REFUSES_POST and AUDIO_NAME.search(without_query(effect.url)):
                return ev.SoundDocumentFetched(effect.fetch_id, (Play(effect.url),))
            refused = isinstance(error, RequestRefused)
            kind = ProblemKind.URL_NOT_ALLOWED if refused else ProblemKind.SOUND_DOCUMENT_FAILED
            return ev.SoundDocumentFailed(effect.fetch_id, kind, str(error))
        except (InvalidDocument, TooManyWaiting) as error:
            return ev.SoundDocumentFailed(effect.fetch_id, ProblemKind.SOUND_DOCUMENT_FAILED, str(error))
        return ev.SoundDocumentFetched(effect.fetch_id, sounds, warnings)

    async def account(self, auth_id: str) -> AccountRecord | None:
        """Return the account, or None if it does not exist. Concurrent requests share one look-up.

        Raises StoreUnavailable if Redis is unreachable and the account was never seen.
        """
        looking_up = self._looking_up.get(auth_id)
        if looking_up is None:
            looking_up = self._looking_up[auth_id] = asyncio.create_task(self._look_up_account(auth_id))
            looking_up.add_done_callback(lambda task: self._on_looked_up(auth_id, task))
        # A call that stops waiting must not cancel the look-up for the others.
        return await asyncio.shield(looking_up)

    async def _look_up_account(self, auth_id: str) -> AccountRecord | None:
        try:
            async with asyncio.timeout(ACCOUNT_TIMEOUT_S):
                while True:
                    try:
                        return await self._store.account(auth_id)
                    except StoreUnavailable as error:
                        log.error("account not looked up", auth_id=auth_id, reason=str(error))
                        await asyncio.sleep(1.0)
        except TimeoutError:
            raise StoreUnavailable(f"Redis is unreachable, and account {auth_id!r} is not known yet") from None

    def _on_looked_up(self, auth_id: str, task: asyncio.Task[AccountRecord | None]) -> None:
        del self._looking_up[auth_id]
        if not task.cancelled():
            task.exception()  # retrieves it: otherwise asyncio logs an error if no task waits any more

    async def _load_text(self, effect: do.FetchDocument) -> tuple[bytes, str]:
        """Return the document's text, and the encoding that its response names, or ""."""
        if "://" in effect.source:
            response = await self._request(effect.method, effect.source, effect.params, effect.auth_id)
            return response.body, _charset(response)
        return await asyncio.to_thread(self._read_local, effect.source), ""

    async def _request(
        self, method: str, url: str, params: do.Params, auth_id: str, enough: Enough | None = None
    ) -> Response:
        """Send a signed request, and return the response. Raises RequestFailed.

        Nothing is sent unsigned: the receiver could not tell an unsigned request from a forged one.
        """
        try:
            record = await self.account(auth_id)
        except StoreUnavailable as error:
            raise RequestFailed(
                f"{without_query(url)}: request not sent, because it could not be signed: {error}"
            ) from None
        if record is None:
            raise RequestFailed(f"{without_query(url)}: request not sent: account {auth_id!r} no longer exists")
        await self._ari.permission.wait_until_held()
        tokens = record.signing_tokens()
        return await self._fetcher.request(
            method, url, params, tokens=tokens, limit_bytes=parser.MAX_BYTES, account=auth_id, enough=enough
        )

    async def _parse(self, parse: Callable[[bytes, str], T], auth_id: str, text: bytes, charset: str = "") -> T:
        """Parse the text, in the event loop only if it is short. Raises what `parse` raises, and TooManyWaiting."""
        if len(text) <= parser.SHORT_BYTES:
            return parse(text, charset)
        async with self._parsing_shares.turn(auth_id):
            return await asyncio.get_running_loop().run_in_executor(self._parsing_thread, parse, text, charset)

    def _parse_document(self, text: bytes, charset: str) -> parser.Document:
        found = parser.parse(text, charset)
        return replace(found, warnings=(*found.warnings, *self._complaints(found.elements)))

    def _parse_sounds(self, text: bytes, charset: str) -> tuple[tuple[Prompt, ...], tuple[str, ...]]:
        sounds, warnings = parser.parse_sounds(text, charset)
        return sounds, (*warnings, *self._complaints(sounds))

    def _read_local(self, name: str) -> bytes:
        if not LOCAL_NAME.fullmatch(name):
            raise InvalidDocument("expected an http or https URL, or a document name (letters, digits, _ . -)")
        path = self._folder / (name if name.endswith(".xml") else f"{name}.xml")
        try:
            return path.read_bytes()
        except OSError as error:
            # The path concerns the operator, not the account.
            log.error("document not read", path=str(path), reason=error.strerror)
            raise RequestFailed(f"document {name!r} could not be read: {error.strerror}") from None


def is_audio(content_type: str, beginning: bytes) -> bool:
    """Return True if a response is audio instead of a document that names sounds.

    Spec: "by its Content-Type or its first bytes".
    """
    if beginning.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        return False
    if content_type.startswith("audio/"):
        return True
    # MP3 begins with a tag or with a frame: eleven one bits, then version and layer. (UTF-16 XML looks like layer 1.)
    frame = len(beginning) > 1 and beginning[0] == 0xFF and beginning[1] & 0xE6 in (0xE2, 0xE4)
    return frame or beginning.startswith((b"RIFF", b"RIFX", b"RF64", b"ID3"))


def _content_type(response: Response) -> str:
    return response.headers.get("Content-Type", "").strip().lower()


def _charset(response: Response) -> str:
    found = CHARSET.search(_content_type(response))
    return found[1] if found else ""


def _failure_kind(error: RequestFailed) -> ProblemKind:
    if isinstance(error, ResponseRefused):
        # "over 100 KB" is a bad document; a document that did not arrive is an unreachable URL.
        return ProblemKind.DOCUMENT_INVALID
    return ProblemKind.URL_NOT_ALLOWED if isinstance(error, RequestRefused) else ProblemKind.DOCUMENT_UNREACHABLE


def _not_run_text(source: str, error: Exception) -> str:
    source = without_query(source)
    named = source if len(source) <= MAX_SOURCE_CHARS else source[: MAX_SOURCE_CHARS - 3] + "..."
    return f"document {named} could not be run: {error}"
