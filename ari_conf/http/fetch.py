"""Requests to users' URLs whose answer is needed, for the application: documents, action URLs, sounds. On aiohttp."""

from __future__ import annotations

import asyncio
import errno
import os
import random
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import aiohttp
import structlog
from yarl import URL

from ari_conf.errors import AnswerRefused, RequestFailed, RequestRefused, TooManyWaiting
from ari_conf.http.body import pieces, write
from ari_conf.http.connect_async import TooMuch, asker, pinned_session
from ari_conf.http.guard import Networks
from ari_conf.http.hop import (
    MOST_REDIRECTS,
    NO_ANSWER,
    Hop,
    TryFailed,
    prepare,
    redirected,
    too_many_redirects,
    without_query,
)
from ari_conf.http.retry import Outcome, Policy, next_try, parse, retry_after_ms
from ari_conf.http.signature import Pairs
from ari_conf.shares import Shares

AT_ONCE, OF_ACCOUNT, OF_RECEIVER, WAITING = 512, 64, 48, 1000
"""Requests under way (each holds a socket and up to 0.3 MB), of these one account's, of these to one receiver; and how
many more of an account's wait. Those for files don't count: whoever wants files bounds them."""
BEGINNING = 64
"""Bytes of a body by which it is judged whether the rest is wanted."""
NO_TURN = f"it was not asked: {OF_ACCOUNT} requests of the account, or {OF_RECEIVER} to this server, are under way"

log = structlog.get_logger()
T = TypeVar("T")
Take = Callable[[aiohttp.ClientResponse], Awaitable[T]]
Enough = Callable[[str, bytes], bool]
"""Whether no more of a body is wanted: by its Content-Type, in lower case, and its beginning."""


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    body: bytes
    headers: Mapping[str, str]
    """Whatever the case of their names."""
    url: str
    """The one that answered, after redirects."""


@dataclass(frozen=True, slots=True)
class FileReply:
    status: int
    """304: nothing was written, what the caller has is still right."""
    size: int
    """Bytes written."""
    content_type: str
    etag: str | None
    last_modified: str | None
    cache_control: str | None


class Fetcher:
    """One for a process; to be used within one event loop, and closed in it."""

    def __init__(self, allowed_networks: Networks = ()) -> None:
        self._networks = allowed_networks
        self._turns = Shares(AT_ONCE, OF_ACCOUNT, WAITING, OF_RECEIVER)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Fetcher:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _open(self) -> aiohttp.ClientSession:
        # Not in __init__: aiohttp wants a running loop.
        if self._session is None:
            self._session = pinned_session(self._networks)
        return self._session

    async def request(
        self,
        method: str,
        url: str,
        params: Pairs = (),
        *,
        tokens: Sequence[str],
        limit_bytes: int,
        headers: Mapping[str, str] | None = None,
        account: str = "",
        enough: Enough | None = None,
    ) -> Reply:
        """A 2xx answer, after as many tries as the URL's fragment allows, each of them in this account's turn. If its
        beginning is `enough`, the body is no more than that.

        Raises RequestRefused, RequestFailed.
        """
        take = partial(whole, limit_bytes=limit_bytes, enough=enough)
        turn = partial(self._turns.turn, account, urlsplit(url).netloc.rpartition("@")[2])
        with _asking(account):
            return await self._tries(method, url, params, tokens, headers or {}, take, turn)

    async def get_file(
        self,
        url: str,
        path: Path,
        limit_bytes: int,
        etag: str | None = None,
        last_modified: str | None = None,
        *,
        tokens: Sequence[str] = (),
        account: str = "",
    ) -> FileReply:
        """Into `path`, which is replaced in one step and only by what came whole. With `etag` or `last_modified`, as an
        earlier FileReply told them, only if it changed since. Raises RequestRefused, RequestFailed."""

        async def take(response: aiohttp.ClientResponse) -> FileReply:
            size = 0 if response.status == 304 else await write(response, path, limit_bytes)
            told = response.headers
            return FileReply(
                response.status,
                size,
                response.content_type,
                told.get("ETag"),
                told.get("Last-Modified"),
                told.get("Cache-Control"),
            )

        conditions = {"If-None-Match": etag, "If-Modified-Since": last_modified}
        headers = {name: value for name, value in conditions.items() if value}
        with _asking(account):
            return await self._tries("GET", url, (), tokens, headers, take, nullcontext)

    async def _tries(
        self,
        method: str,
        url: str,
        params: Pairs,
        tokens: Sequence[str],
        headers: Mapping[str, str],
        take: Take[T],
        turn: Callable[[], AbstractAsyncContextManager[None]],
    ) -> T:
        bare, policy, warnings = parse(url)
        for warning in warnings:
            log.warning("url fragment", url=without_query(bare), warning=warning)
        started, tries = time.monotonic(), list[Outcome]()

        def remaining_ms() -> int:
            return policy.total_ms - int((time.monotonic() - started) * 1000)

        while True:
            try:
                # What is waited for the turn counts: tt is what the caller on the phone waits.
                async with asyncio.timeout(remaining_ms() / 1000) as waiting, turn():
                    waiting.reschedule(None)
                    outcome, taken = await self.attempt(
                        method,
                        bare,
                        params,
                        take,
                        tokens=tokens,
                        policy=policy,
                        remaining_ms=remaining_ms(),
                        headers=headers,
                    )
            except TimeoutError:
                raise RequestFailed(f"{without_query(bare)}: {NO_TURN}") from None
            except TooManyWaiting as error:
                raise RequestFailed(f"{without_query(bare)}: {error}") from None
            if taken is not None:
                return taken
            tries.append(outcome)
            delay_ms = next_try(policy, tries, policy.total_ms - remaining_ms(), random.random())
            if delay_ms is None:
                raise _failed(bare, tries)
            await asyncio.sleep(delay_ms / 1000)

    async def attempt(
        self,
        method: str,
        url: str,
        params: Pairs,
        take: Take[T],
        *,
        tokens: Sequence[str],
        policy: Policy,
        remaining_ms: int,
        headers: Mapping[str, str],
    ) -> tuple[Outcome, T | None]:
        """One try, within `remaining_ms`, and what `take` made of a 2xx answer (or a 304, if there are `headers`)."""
        at_ms, started = time.time_ns() // 1_000_000, time.monotonic()

        def elapsed() -> int:
            return int((time.monotonic() - started) * 1000)

        try:
            async with asyncio.timeout(remaining_ms / 1000):
                response, taken = await self._follow(method, url, params, tokens, policy, headers, take)
        except RequestRefused as error:
            return Outcome(at_ms, elapsed(), failure="refused", reason=str(error)), None
        except TryFailed as error:
            return Outcome(at_ms, elapsed(), failure=error.failure, reason=error.reason), None
        except TimeoutError:
            return Outcome(at_ms, elapsed(), failure="read", reason=NO_ANSWER), None
        retry_after = retry_after_ms(response.headers.get("Retry-After"), time.time_ns() // 1_000_000)
        return Outcome(at_ms, elapsed(), response.status, retry_after_ms=retry_after), taken

    async def _follow(
        self,
        method: str,
        url: str,
        params: Pairs,
        tokens: Sequence[str],
        policy: Policy,
        headers: Mapping[str, str],
        take: Take[T],
    ) -> tuple[aiohttp.ClientResponse, T | None]:
        sent_params = params
        for _ in range(MOST_REDIRECTS + 1):
            hop = prepare(method, url, sent_params, tokens)
            response, taken = await self._send(hop, policy, headers, take)
            further = redirected(hop, response.status, response.headers.get("Location"), sent_params)
            if further is None:
                return response, taken
            method, url, sent_params = further
        raise too_many_redirects()

    async def _send(
        self, hop: Hop, policy: Policy, headers: Mapping[str, str], take: Take[T]
    ) -> tuple[aiohttp.ClientResponse, T | None]:
        connect, read = policy.connect_ms / 1000, policy.read_ms / 1000
        timeout = aiohttp.ClientTimeout(total=None, connect=connect, sock_read=read, ceil_threshold=3600)
        # encoded: yarl would spell the URL in its own way, and what was signed is this one.
        url = URL(hop.url, encoded=True)
        wanted = {304} if headers else set()
        try:
            async with self._open().request(
                hop.method,
                url,
                data=hop.body,
                headers={**headers, **hop.headers},
                timeout=timeout,
                allow_redirects=False,
            ) as response:
                fine = 200 <= response.status < 300 or response.status in wanted
                return response, await take(response) if fine else None
        except aiohttp.ClientError as error:
            raise _told(error, hop) from None
        except TooManyWaiting as error:
            raise TryFailed("connect", f"no connection to {hop.target.host}: {error}") from None


@contextmanager
def _asking(account: str) -> Iterator[None]:
    """Names are looked up for this account meanwhile."""
    before = asker.set(account)
    try:
        yield
    finally:
        asker.reset(before)


async def whole(response: aiohttp.ClientResponse, limit_bytes: int, enough: Enough | None = None) -> Reply:
    body = bytearray()
    if enough is not None and not response.headers.get("Content-Encoding"):
        body += await _beginning(response)
        if enough(response.headers.get("Content-Type", "").strip().lower(), bytes(body)):
            # The rest is not waited for, and may be of any length.
            response.close()
            return Reply(response.status, bytes(body), response.headers, str(response.url))
    async with aclosing(pieces(response, limit_bytes, len(body))) as chunks:
        async for chunk in chunks:
            body += chunk
    return Reply(response.status, bytes(body), response.headers, str(response.url))


async def _beginning(response: aiohttp.ClientResponse) -> bytes:
    found = bytearray()
    while len(found) < BEGINNING and (chunk := await response.content.read(BEGINNING - len(found))):
        found += chunk
    return bytes(found)


def _told(error: aiohttp.ClientError, hop: Hop) -> TryFailed:
    host = hop.target.host
    cause = getattr(error, "os_error", None)
    why = getattr(cause, "strerror", None) or cause or error
    match error:
        case TooMuch():
            return TryFailed("body", str(error))
        case aiohttp.ConnectionTimeoutError():
            return TryFailed("connect", f"no connection to {host}: timed out")
        case aiohttp.ClientConnectorDNSError():
            return TryFailed("dns", f"the name {host} has no address: {why}")
        case aiohttp.ClientSSLError():
            return TryFailed("tls", f"no TLS connection: {why}")
        case aiohttp.ClientConnectorError():
            return TryFailed("connect", f"no connection to {host}: {_unconnected(error.os_error)}".lower())
        case aiohttp.ServerTimeoutError():
            return TryFailed("read", NO_ANSWER)
    return TryFailed("broken", f"its answer broke off or is not HTTP ({type(error).__name__})")


def _unconnected(error: OSError) -> str:
    """asyncio's own text names the addresses, which may be ones inside."""
    if error.errno is None or error.errno not in errno.errorcode:
        return "none of its addresses can be reached"
    return os.strerror(error.errno)


def _failed(url: str, tries: Sequence[Outcome]) -> RequestFailed:
    count = f"{len(tries)} tries" if len(tries) > 1 else "1 try"
    if tries[-1].failure == "refused":
        return RequestRefused(f"{without_query(url)}: no request may go there: {tries[-1].told}")
    kind = AnswerRefused if tries[-1].failure == "body" else RequestFailed
    return kind(f"{without_query(url)}: {tries[-1].told} ({count})", tries[-1].status)
