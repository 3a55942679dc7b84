"""Event stream of an account: `GET /v1/Account/{auth_id}/Events/`, server-sent events."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response
from redis import RedisError
from starlette.types import Receive, Scope, Send

from ari_conf.web import models as m
from ari_conf.web.account_feeds import ClientStream, FeedRegistry
from ari_conf.web.auth import CurrentClient, is_still_valid
from ari_conf.web.errors import ApiError

HEARTBEAT_S = 15.0
"""Seconds between heartbeats: proxies close an idle connection, often after 60 s."""
PERMISSION_INTERVAL_S = 10.0
"""Seconds between two checks of the client's permission, whatever events occur. Including Redis' response time, a
stream ends within 15 s after its auth token, session or account has ended."""
KIND = "text/event-stream"

router = APIRouter()

REPLIES: dict[int | str, Any] = {
    200: {"description": "Events, until the client disconnects.", "content": {KIND: {"schema": {"type": "string"}}}},
    **{status: {"model": m.ErrorResponse} for status in (400, 401, 404, 429, 503)},
}


@router.get("/Events/", response_class=Response, responses=REPLIES)
async def events(request: Request, client: CurrentClient) -> Response:
    """Stream the account's conferences and their members: the event `snapshot`, then `change` with each difference."""
    stream = client.resources.feeds.open(client.auth_id)

    async def is_permitted() -> bool:
        try:
            return await is_still_valid(request, client)
        except ApiError:
            return False
        except RedisError:
            return True  # unknown, but the stream sends nothing while Redis is unreachable

    return EventStream(client.resources.feeds, client.auth_id, stream, is_permitted)


class EventStream(Response):
    media_type = KIND
    charset = "utf-8"

    def __init__(
        self, feeds: FeedRegistry, auth_id: str, stream: ClientStream, is_permitted: Callable[[], Awaitable[bool]]
    ) -> None:
        # nginx buffers a response unless this header forbids it.
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._feeds, self._auth_id, self._stream, self._is_permitted = feeds, auth_id, stream, is_permitted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        writing = asyncio.create_task(self._write(send))
        disconnected = asyncio.create_task(_until_disconnected(receive))
        ended = asyncio.create_task(self._stream.ended.wait())
        forbidden = asyncio.create_task(self._until_forbidden())
        tasks = (writing, disconnected, ended, forbidden)
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._feeds.close(self._auth_id, self._stream)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if self._stream.too_slow and "abort" in scope:
            # A client that does not read would not receive an orderly end either.
            scope["abort"]()
        with suppress(OSError):
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _write(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        text = b"retry: 1000\n\n"
        while True:
            await send({"type": "http.response.body", "body": text, "more_body": True})
            try:
                text = await asyncio.wait_for(self._stream.next(), HEARTBEAT_S)
            except TimeoutError:
                text = b":\n\n"

    async def _until_forbidden(self) -> None:
        while True:
            await asyncio.sleep(PERMISSION_INTERVAL_S)
            if not await self._is_permitted():
                return


async def _until_disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
