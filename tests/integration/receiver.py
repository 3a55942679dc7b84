"""A user's web application: returns documents, receives events, and checks each sender with Plivo's SDK."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from aiohttp import web
from plivo.utils import validate_signature, validate_v3_signature  # type: ignore[import-untyped]

from tests.lateness import SOON_S, Patience

POLL_INTERVAL_S = 0.25

Document = str | bytes | Callable[[Mapping[str, str]], str]
"""XML, a function that makes XML from the request's parameters, or the bytes of a file."""


@dataclass(frozen=True)
class Request:
    at_ms: float
    """Epoch ms at which the body had arrived."""
    method: str
    path: str
    query: Mapping[str, str]
    params: Mapping[str, str]
    """The fields of the form, or of the query for a GET."""
    headers: Mapping[str, str]
    body: bytes
    url: str

    def signed_with(self, token: str) -> bool:
        """Return True if the SDK accepts both signatures, V3 and V2."""
        form = dict(self.params) if self.method == "POST" else {}
        v3, nonce = self.headers.get("X-Plivo-Signature-V3", ""), self.headers.get("X-Plivo-Signature-V3-Nonce", "")
        v2, nonce_2 = self.headers.get("X-Plivo-Signature-V2", ""), self.headers.get("X-Plivo-Signature-V2-Nonce", "")
        return bool(
            validate_v3_signature(self.method, self.url, nonce, token, v3, form)
            and validate_signature(self.url, nonce_2, v2, token)
        )


class Receiver:
    """A server on 127.0.0.1 while its context is open, by default on a free port. Its tables may be changed anytime.

    A path without a document is answered 200 with an empty body, and is in `requests` like any other.
    """

    def __init__(
        self, documents: Mapping[str, Document] | None = None, token: str | None = None, port: int = 0
    ) -> None:
        self.port = port
        self.documents = dict(documents or {})
        self.delays: dict[str, float] = {}
        """Seconds between a path's request and its answer."""
        self.held: dict[str, asyncio.Event] = {}
        """Paths that are not answered before their event is set."""
        self.statuses: dict[str, list[int]] = {}
        """The next statuses of each path; the last one stays."""
        self.token = token
        self.requests: list[Request] = []
        self.still_of_use: Callable[[], None] = lambda: None
        """Called during a wait; raises once the awaited request can no longer come."""
        self._arrived = asyncio.Condition()

    async def __aenter__(self) -> Receiver:
        app = web.Application(client_max_size=1 << 24)
        app.router.add_route("*", "/{path:.*}", self._receive)
        # An answer that is delayed on purpose must not hold up the end of the test.
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port)
        await site.start()
        self.port = int(self._runner.addresses[0][1])
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    def url(self, path: str) -> str:
        """Return the URL of a path, which may have a query and a fragment."""
        return f"http://127.0.0.1:{self.port}{path}"

    def holds(self, path: str) -> asyncio.Event:
        """Hold back the path's answers until the returned event is set: nothing earlier can have waited for them."""
        return self.held.setdefault(path, asyncio.Event())

    def requests_to(self, path: str) -> list[Request]:
        return [request for request in self.requests if request.path == path]

    async def wait_for(self, predicate: Callable[[Request], bool], timeout: float = SOON_S) -> Request:
        """Return the first request, past or future, that matches. Raises TimeoutError with the requests that came."""
        patience = Patience(timeout)
        async with self._arrived:
            while True:
                for request in self.requests:
                    if predicate(request):
                        return request
                self.still_of_use()
                if patience.over:
                    came = "\n".join(f"{one.method} {one.path} {dict(one.params)}" for one in self.requests)
                    raise TimeoutError(f"no such request within {timeout} s; these came:\n{came or '(none)'}")
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(min(timeout, POLL_INTERVAL_S)):
                        await self._arrived.wait()

    async def event(self, name: str, timeout: float = SOON_S, **params: str) -> Request:
        """Return the first request with that Event and those parameters."""
        wanted = {"Event": name, **params}
        return await self.wait_for(lambda request: wanted.items() <= request.params.items(), timeout)

    def all_signed(self) -> None:
        """Assert that the token signed every request. (Play's files are fetched unsigned.)"""
        assert self.token, "give the Receiver a token"
        for request in self.requests:
            if isinstance(self.documents.get(request.path), bytes):
                continue
            assert request.signed_with(self.token), f"not signed: {request.method} {request.url} {dict(request.params)}"

    async def _receive(self, request: web.Request) -> web.StreamResponse:
        query = dict(request.query)
        body = await request.read()
        form = {name: str(value) for name, value in (await request.post()).items()}
        params = form if request.method == "POST" else query
        # The URL as the sender wrote it: the signature covers that form.
        url = f"http://{request.host}{request.raw_path}"
        seen = Request(
            time.time() * 1000, request.method, request.path, query, params, request.headers.copy(), body, url
        )
        async with self._arrived:
            self.requests.append(seen)
            self._arrived.notify_all()
        await asyncio.sleep(self.delays.get(request.path, 0))
        if request.path in self.held:
            await self.held[request.path].wait()
        status = 200
        if statuses := self.statuses.get(request.path):
            status = statuses.pop(0) if len(statuses) > 1 else statuses[0]
        document = self.documents.get(request.path, "")
        if isinstance(document, bytes):
            return web.Response(status=status, body=document)
        text = document if isinstance(document, str) else document(params)
        return web.Response(status=status, text=text, content_type="application/xml" if text else "text/plain")
