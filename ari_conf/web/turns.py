"""Blocking work of requests, in threads of its own: an account that asks for much waits, and others don't."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from ari_conf.shares import Shares

P = ParamSpec("P")
T = TypeVar("T")


class Threads:
    def __init__(self, name: str, most: int, each: int, waiting: int) -> None:
        """`most` at once, `each` of them one account's; so many more of an account's wait."""
        self._executor = ThreadPoolExecutor(most, thread_name_prefix=name)
        self._turns = Shares(most, each, waiting)

    async def run(self, auth_id: str, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Raises TooManyWaiting, and what `work` raises."""
        async with self._turns.turn(auth_id):
            running = asyncio.wrap_future(self._executor.submit(work, *args, **kwargs))
            try:
                return await asyncio.shield(running)
            except asyncio.CancelledError:
                # The thread goes on, and so does its turn.
                await asyncio.wait([running])
                raise

    def close(self) -> None:
        self._executor.shutdown(wait=False, cancel_futures=True)
