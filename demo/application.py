"""A minimal application of an ari_conf user: answers calls with documents and receives callbacks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType

from aiohttp import web

from ari_conf.http_client.signature import headers


@dataclass(frozen=True)
class ReceivedRequest:
    """One request that the application received."""

    at: float
    """Epoch seconds."""
    path: str
    params: Mapping[str, str]
    signed: bool
    """True if the account's token signed the request, by the check of Plivo's SDKs."""

    def __getitem__(self, name: str) -> str:
        return self.params.get(name, "")


class Application:
    """An HTTP server that answers calls. `documents` maps each caller's number to that caller's document."""

    def __init__(self, documents: Mapping[str, str], on_request: Callable[[ReceivedRequest], None]) -> None:
        self.received: list[ReceivedRequest] = []
        self.token = ""
        self._documents = documents
        self._on_request = on_request
        self._arrival = asyncio.Condition()
        self._runner: web.AppRunner | None = None
        self.url = ""

    async def __aenter__(self) -> Application:
        app = web.Application()
        app.router.add_post("/{path:.*}", self._handle_request)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        return self

    async def __aexit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        if self._runner:
            await self._runner.cleanup()

    async def wait_for_request(
        self, what: Callable[[ReceivedRequest], bool], times: int = 1, within: float = 15.0
    ) -> bool:
        """Return True once `times` matching requests have arrived, or False if they don't within `within` seconds."""
        try:
            async with asyncio.timeout(within), self._arrival:
                await self._arrival.wait_for(lambda: sum(map(what, self.received)) >= times)
        except TimeoutError:
            return False
        return True

    async def _handle_request(self, request: web.Request) -> web.Response:
        params = {name: str(value) for name, value in (await request.post()).items()}
        received_request = ReceivedRequest(time.time(), request.path, params, self._is_signed(request, params))
        self.received.append(received_request)
        self._on_request(received_request)
        async with self._arrival:
            self._arrival.notify_all()
        document = self._documents.get(received_request["From"], "<Response/>") if request.path == "/answer" else ""
        return web.Response(text=document.replace("APPLICATION", self.url), content_type="application/xml")

    def _is_signed(self, request: web.Request, params: Mapping[str, str]) -> bool:
        nonce = request.headers.get("X-Plivo-Signature-V3-Nonce", "")
        expected = headers("POST", self.url + request.path, list(params.items()), [self.token], nonce)
        given = request.headers.get("X-Plivo-Signature-V3", "").split(",")
        # The header may list several signatures: one per token, and one per way in which Plivo's SDKs read a URL.
        return expected["X-Plivo-Signature-V3"].partition(",")[0] in given
