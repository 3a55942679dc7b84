"""Telling workers that there is something to take: Celery's side of `serve`."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from ari_conf.redis_client import connect_in_threads

if TYPE_CHECKING:
    from tasks.tokens import Tokens

CELERY_WAITS_S = 3.0
TELL_S = 0.005


class Workers:
    def __init__(self, redis_url: str) -> None:
        self._redis_url = redis_url
        self._tokens: Tokens | None = None

    async def begin(self, compared: asyncio.Event) -> None:
        """Celery is a third of the time that we take to start, and calls don't wait for it."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(compared.wait(), CELERY_WAITS_S)
        self._tokens = await asyncio.to_thread(_tokens, self._redis_url)
        self._tokens.start()
        self._tokens.wake()

    def letter(self, token: str) -> str | None:
        """What brings a worker this token, to be written with what there is to take; None: `wake` tells them."""
        return self._tokens.letter(token) if self._tokens is not None else None

    def wake(self) -> None:
        # What is to be done now goes first: who is told works in a thread of his own, for which this one would wait.
        if self._tokens is not None and not self._tokens.has_letters:
            asyncio.get_running_loop().call_later(TELL_S, self._tokens.wake)

    def end(self) -> None:
        if self._tokens is not None:
            self._tokens.end()


def _tokens(redis_url: str) -> Tokens:
    from tasks.tokens import Tokens

    return Tokens(connect_in_threads(redis_url, socket_timeout=5.0))
