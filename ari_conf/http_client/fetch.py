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
from ari_conf.http_client.connect_async import current_account, pinned_session
from ari_conf.http_client.policy import (
    FAILURES,
    AttemptFailed,
    BodyLimit,
    Exchange,
    no_address,
    not_connected,
    not_http,
    timed_out,
    tls_failed,
)
from ari_conf.http_client.prepared_request import PreparedRequest, without_query
from ari_conf.http_client.response_body import iter_chunks, write
from ari_conf.http_client.retry_policy import AttemptOutcome, RetryPolicy, next_delay_ms, parse
from ari_conf.http_client.signature import Pairs
from ari_conf.http_client.url_guard import Networks

MAX_REQUESTS, MAX_PER_ACCOUNT, MAX_PER_RECEIVER, MAX_WAITING = 512, 64, 48, 1000
"""Limits of concurrent requests (each holds a socket and up to 0.3 MB): in total, of one account, of one account to one
receiver; and of an account's waiting requests. Requests for files don't count: their callers limit them."""
SNIFF_BYTES = 64
"""Number of bytes at the beginning of a body by which `enough` decides whether the rest is needed."""
NO_TURN = (
    f"no request was sent: {MAX_PER_ACCOUNT} of the account, or {MAX_PER_RECEIVER} to this server, "
    "are already in progress"
)

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
        self._turns = Shares(MAX_REQUESTS, MAX_PER_ACCOUNT, MAX_WAITING, MAX_PER_RECEIVER)
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
        account: str = "",
        enough: Enough | None = None,
    ) -> Response:
        """Return a 2xx response, after as many attempts as the URL fragment allows, each in a turn of this account.

        If `enough` accepts the beginning of the body, the body is cut there. Raises RequestRefused, RequestFailed.
        """
        take = partial(read_response, limit_bytes=limit_bytes, enough=enough)
        turn = partial(self._turns.turn, account, urlsplit(url).netloc.rpartition("@")[2])
        with _on_behalf_of(account):
            return await self._request_with_retries(method, url, params, tokens, {}, take, turn)

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
            headers = response.headers
            return FileResponse(
                response.status,
                size,
                response.content_type,
                headers.get("ETag"),
                headers.get("Last-Modified"),
                headers.get("Cache-Control"),
            )

        validators = {"If-None-Match": etag, "If-Modified-Since": last_modified}
        conditions = {name: value for name, value in validators.items() if value}
        with _on_behalf_of(account):
            return await self._request_with_retries("GET", url, (), tokens, conditions, take, nullcontext)

    async def _request_with_retries(
        self,
        method: str,
        url: str,
        params: Pairs,
        tokens: Sequence[str],
        conditions: Mapping[str, str],
        take: Take[T],
        turn: Callable[[], AbstractAsyncContextManager[None]],
    ) -> T:
        bare, policy, warnings = parse(url)
        for warning in warnings:
            log.warning("invalid retry fragment", url=without_query(bare), warning=warning)
        started, attempts = time.monotonic(), list[AttemptOutcome]()

        def remaining_ms() -> int:
            return policy.total_ms - int((time.monotonic() - started) * 1000)

        while True:
            try:
                # The wait for a turn counts, because tt limits how long the caller on the phone waits.
                async with asyncio.timeout(remaining_ms() / 1000) as waiting, turn():
                    waiting.reschedule(None)
                    outcome, result = await self.attempt(
                        method,
                        bare,
                        params,
                        take,
                        tokens=tokens,
                        policy=policy,
                        remaining_ms=remaining_ms(),
                        conditions=conditions,
                    )
            except TimeoutError:
                raise RequestFailed(f"{without_query(bare)}: {NO_TURN}") from None
            except TooManyWaiting as error:
                raise RequestFailed(f"{without_query(bare)}: {error}") from None
            if result is not None:
                return result
            attempts.append(outcome)
            delay_ms = next_delay_ms(policy, attempts, policy.total_ms - remaining_ms(), random.random())
            if delay_ms is None:
                raise _request_failed(bare, attempts)
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
        conditions: Mapping[str, str],
    ) -> tuple[AttemptOutcome, T | None]:
        """Make one attempt within `remaining_ms`. Return its outcome, and the result of `take` for a 2xx response.

        With `conditions`, `take` also gets a 304; for other statuses and failures, its result is None.
        """
        clock = asyncio.get_running_loop().time
        exchange = Exchange(
            method,
            url,
            params,
            tokens=tokens,
            policy=policy,
            remaining_ms=remaining_ms,
            at_ms=time.time_ns() // 1_000_000,
            now=clock(),
            conditions=conditions,
        )
        result: T | None = None
        try:
            async with asyncio.timeout_at(exchange.deadline):
                while (request := exchange.next_request()) is not None:
                    result = await self._send(request, exchange, take)
        except FAILURES as error:
            exchange.fail(error)
            return exchange.outcome(clock()), None
        return exchange.outcome(clock()), result

    async def _send(self, request: PreparedRequest, exchange: Exchange, take: Take[T]) -> T | None:
        timeout = aiohttp.ClientTimeout(
            total=None, connect=exchange.connect_s, sock_read=exchange.read_s, ceil_threshold=3600
        )
        # encoded: yarl would otherwise normalize the URL, and the signature covers this spelling.
        url = URL(request.url, encoded=True)
        try:
            async with self._open().request(
                request.method,
                url,
                data=request.body,
                headers=request.headers,
                timeout=timeout,
                allow_redirects=False,
            ) as response:
                exchange.receive_head(response.status, response.headers)
                return await take(response) if exchange.is_accepted else None
        except aiohttp.ClientError as error:
            raise _to_attempt_error(error, request.target.host) from None
        except TooManyWaiting as error:
            raise not_connected(request.target.host, error) from None


@contextmanager
def _on_behalf_of(account: str) -> Iterator[None]:
    """Count look-ups against this account's share until the block ends."""
    before = current_account.set(account)
    try:
        yield
    finally:
        current_account.reset(before)


async def read_response(response: aiohttp.ClientResponse, limit_bytes: int, enough: Enough | None = None) -> Response:
    limit, body = BodyLimit(limit_bytes), bytearray()
    if enough is not None and not response.headers.get("Content-Encoding"):
        body += await _read_beginning(response)
        if enough(response.headers.get("Content-Type", "").strip().lower(), bytes(body)):
            # The rest may have any length, so it is not read.
            response.close()
            return Response(response.status, bytes(body), response.headers, str(response.url))
        limit.receive(len(body))
    async with aclosing(iter_chunks(response, limit)) as chunks:
        async for chunk in chunks:
            body += chunk
    return Response(response.status, bytes(body), response.headers, str(response.url))


async def _read_beginning(response: aiohttp.ClientResponse) -> bytes:
    beginning = bytearray()
    while len(beginning) < SNIFF_BYTES and (chunk := await response.content.read(SNIFF_BYTES - len(beginning))):
        beginning += chunk
    return bytes(beginning)


def _to_attempt_error(error: aiohttp.ClientError, host: str) -> AttemptFailed:
    cause = getattr(error, "os_error", None)
    why = getattr(cause, "strerror", None) or cause or error
    match error:
        case aiohttp.ConnectionTimeoutError():
            return not_connected(host, "timed out")
        case aiohttp.ClientConnectorDNSError():
            return no_address(host, why)
        case aiohttp.ClientSSLError():
            return tls_failed(why)
        case aiohttp.ClientConnectorError():
            return not_connected(host, _without_addresses(error.os_error).lower())
        case aiohttp.ServerTimeoutError():
            return timed_out()
    return not_http(error)


def _without_addresses(error: OSError) -> str:
    """Return the reason without addresses. asyncio's own text names them, and they may be internal."""
    if error.errno is None or error.errno not in errno.errorcode:
        return "none of its addresses can be reached"
    return os.strerror(error.errno)


def _request_failed(url: str, attempts: Sequence[AttemptOutcome]) -> RequestFailed:
    last, count = attempts[-1], f"{len(attempts)} tries" if len(attempts) > 1 else "1 try"
    if last.failure == "refused":
        why = f"requests to this address are not allowed: {last.description}"
        return RequestRefused(f"{without_query(url)}: {why}")
    error_type = ResponseRefused if last.failure == "body" else RequestFailed
    return error_type(f"{without_query(url)}: {last.description} ({count})", last.status)
