"""Fetcher: the server's requests to user URLs for documents, action URLs and sounds. On aiohttp."""

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

from ari_conf.common.fair_shares import Shares
from ari_conf.errors import RequestFailed, RequestRefused, ResponseRefused, TooManyWaiting
from ari_conf.http_client.connect_async import TooMuch, asker, pinned_session
from ari_conf.http_client.prepared_request import (
    MOST_REDIRECTS,
    NO_ANSWER,
    AttemptFailed,
    PreparedRequest,
    next_hop,
    prepare,
    too_many_redirects,
    without_query,
)
from ari_conf.http_client.response_body import iter_chunks, write
from ari_conf.http_client.retry_policy import AttemptOutcome, RetryPolicy, next_delay_ms, parse, retry_after_ms
from ari_conf.http_client.signature import Pairs
from ari_conf.http_client.url_guard import Networks

AT_ONCE, OF_ACCOUNT, OF_RECEIVER, WAITING = 512, 64, 48, 1000
"""Limits of concurrent requests (each holds a socket and up to 0.3 MB): in total, of one account, of one account to one
receiver; and of an account's waiting requests. Requests for files don't count: their callers limit them."""
BEGINNING = 64
"""Number of bytes at the beginning of a body by which `enough` decides whether the rest is needed."""
NO_TURN = f"no request was sent: {OF_ACCOUNT} of the account, or {OF_RECEIVER} to this server, are already in progress"

log = structlog.get_logger()
T = TypeVar("T")
Take = Callable[[aiohttp.ClientResponse], Awaitable[T]]
Enough = Callable[[str, bytes], bool]
"""A function of a body's Content-Type (in lower case) and beginning; true if the rest is not needed."""


@dataclass(frozen=True, slots=True)
class Response:
    status: int
    body: bytes
    headers: Mapping[str, str]
    """Response headers; look-ups ignore the case of their names."""
    url: str
    """The URL that responded, after redirects."""


@dataclass(frozen=True, slots=True)
class FileResponse:
    status: int
    """HTTP status. 304: nothing was written, because the copy that exists is current."""
    size: int
    """Number of bytes written."""
    content_type: str
    etag: str | None
    last_modified: str | None
    cache_control: str | None


class Fetcher:
    """HTTP client of a process, to be used and closed within one event loop."""

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
        # Not in __init__: aiohttp needs a running event loop.
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
    ) -> Response:
        """Return a 2xx response, after as many attempts as the URL fragment allows, each in a turn of this account.

        If `enough` accepts the beginning of the body, the body is cut there. Raises RequestRefused, RequestFailed.
        """
        take = partial(read_response, limit_bytes=limit_bytes, enough=enough)
        turn = partial(self._turns.turn, account, urlsplit(url).netloc.rpartition("@")[2])
        with _asking(account):
            return await self._request_with_retries(method, url, params, tokens, headers or {}, take, turn)

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
    ) -> FileResponse:
        """Download a file to `path`, which is replaced atomically, and only if the file was received completely.

        With `etag` or `last_modified` of an earlier FileResponse, download only a file that has changed since. Raises
        RequestRefused, RequestFailed.
        """

        async def take(response: aiohttp.ClientResponse) -> FileResponse:
            size = 0 if response.status == 304 else await write(response, path, limit_bytes)
            told = response.headers
            return FileResponse(
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
            return await self._request_with_retries("GET", url, (), tokens, headers, take, nullcontext)

    async def _request_with_retries(
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
            log.warning("invalid retry fragment", url=without_query(bare), warning=warning)
        started, tries = time.monotonic(), list[AttemptOutcome]()

        def remaining_ms() -> int:
            return policy.total_ms - int((time.monotonic() - started) * 1000)

        while True:
            try:
                # The wait for a turn counts, because tt limits how long the caller on the phone waits.
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
            delay_ms = next_delay_ms(policy, tries, policy.total_ms - remaining_ms(), random.random())
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
        policy: RetryPolicy,
        remaining_ms: int,
        headers: Mapping[str, str],
    ) -> tuple[AttemptOutcome, T | None]:
        """Make one attempt within `remaining_ms`. Return its outcome, and the result of `take` for a 2xx response.

        With `headers`, `take` also gets a 304; for other statuses and failures, its result is None.
        """
        at_ms, started = time.time_ns() // 1_000_000, time.monotonic()

        def elapsed() -> int:
            return int((time.monotonic() - started) * 1000)

        try:
            async with asyncio.timeout(remaining_ms / 1000):
                response, taken = await self._follow(method, url, params, tokens, policy, headers, take)
        except RequestRefused as error:
            return AttemptOutcome(at_ms, elapsed(), failure="refused", reason=str(error)), None
        except AttemptFailed as error:
            return AttemptOutcome(at_ms, elapsed(), failure=error.failure, reason=error.reason), None
        except TimeoutError:
            return AttemptOutcome(at_ms, elapsed(), failure="read", reason=NO_ANSWER), None
        retry_after = retry_after_ms(response.headers.get("Retry-After"), time.time_ns() // 1_000_000)
        return AttemptOutcome(at_ms, elapsed(), response.status, retry_after_ms=retry_after), taken

    async def _follow(
        self,
        method: str,
        url: str,
        params: Pairs,
        tokens: Sequence[str],
        policy: RetryPolicy,
        headers: Mapping[str, str],
        take: Take[T],
    ) -> tuple[aiohttp.ClientResponse, T | None]:
        sent_params = params
        for _ in range(MOST_REDIRECTS + 1):
            hop = prepare(method, url, sent_params, tokens)
            response, taken = await self._send(hop, policy, headers, take)
            further = next_hop(hop, response.status, response.headers.get("Location"), sent_params)
            if further is None:
                return response, taken
            method, url, sent_params = further
        raise too_many_redirects()

    async def _send(
        self, hop: PreparedRequest, policy: RetryPolicy, headers: Mapping[str, str], take: Take[T]
    ) -> tuple[aiohttp.ClientResponse, T | None]:
        connect, read = policy.connect_ms / 1000, policy.read_ms / 1000
        timeout = aiohttp.ClientTimeout(total=None, connect=connect, sock_read=read, ceil_threshold=3600)
        # encoded: yarl would otherwise normalize the URL, and the signature covers this spelling.
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
            raise _to_attempt_error(error, hop) from None
        except TooManyWaiting as error:
            raise AttemptFailed("connect", f"no connection to {hop.target.host}: {error}") from None


@contextmanager
def _asking(account: str) -> Iterator[None]:
    """Count look-ups against this account's share until the block ends."""
    before = asker.set(account)
    try:
        yield
    finally:
        asker.reset(before)


async def read_response(response: aiohttp.ClientResponse, limit_bytes: int, enough: Enough | None = None) -> Response:
    body = bytearray()
    if enough is not None and not response.headers.get("Content-Encoding"):
        body += await _beginning(response)
        if enough(response.headers.get("Content-Type", "").strip().lower(), bytes(body)):
            # The rest may have any length, so it is not read.
            response.close()
            return Response(response.status, bytes(body), response.headers, str(response.url))
    async with aclosing(iter_chunks(response, limit_bytes, len(body))) as chunks:
        async for chunk in chunks:
            body += chunk
    return Response(response.status, bytes(body), response.headers, str(response.url))


async def _beginning(response: aiohttp.ClientResponse) -> bytes:
    found = bytearray()
    while len(found) < BEGINNING and (chunk := await response.content.read(BEGINNING - len(found))):
        found += chunk
    return bytes(found)


def _to_attempt_error(error: aiohttp.ClientError, hop: PreparedRequest) -> AttemptFailed:
    host = hop.target.host
    cause = getattr(error, "os_error", None)
    why = getattr(cause, "strerror", None) or cause or error
    match error:
        case TooMuch():
            return AttemptFailed("body", str(error))
        case aiohttp.ConnectionTimeoutError():
            return AttemptFailed("connect", f"no connection to {host}: timed out")
        case aiohttp.ClientConnectorDNSError():
            return AttemptFailed("dns", f"the name {host} has no address: {why}")
        case aiohttp.ClientSSLError():
            return AttemptFailed("tls", f"no TLS connection: {why}")
        case aiohttp.ClientConnectorError():
            return AttemptFailed("connect", f"no connection to {host}: {_unconnected(error.os_error)}".lower())
        case aiohttp.ServerTimeoutError():
            return AttemptFailed("read", NO_ANSWER)
    return AttemptFailed("broken", f"its response was cut off or is not HTTP ({type(error).__name__})")


def _unconnected(error: OSError) -> str:
    """Return the reason without addresses. asyncio's own text names them, and they may be internal."""
    if error.errno is None or error.errno not in errno.errorcode:
        return "none of its addresses can be reached"
    return os.strerror(error.errno)


def _failed(url: str, tries: Sequence[AttemptOutcome]) -> RequestFailed:
    count = f"{len(tries)} tries" if len(tries) > 1 else "1 try"
    if tries[-1].failure == "refused":
        why = f"requests to this address are not allowed: {tries[-1].description}"
        return RequestRefused(f"{without_query(url)}: {why}")
    kind = ResponseRefused if tries[-1].failure == "body" else RequestFailed
    return kind(f"{without_query(url)}: {tries[-1].description} ({count})", tries[-1].status)
