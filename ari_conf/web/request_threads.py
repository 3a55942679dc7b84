"""Request threads: run blocking work of requests. An account with many requests waits, and other accounts don't."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from ari_conf.common.fair_shares import Shares

P = ParamSpec("P")
T = TypeVar("T")


class Threads:
    def __init__(self, name: str, most: int, each: int, waiting: int) -> None:
        """Create `most` threads, of which one account may use `each`; at most `waiting` further requests of it wait."""
        self._executor = ThreadPoolExecutor(most, thread_name_prefix=name)
        self._turns = Shares(most, each, waiting)

    async def run(self, auth_id: str, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return the result of the work. Raises TooManyWaiting, and any exception of the work."""
        async with self._turns.turn(auth_id):
            running = asyncio.wrap_future(self._executor.submit(work, *args, **kwargs))
            try:
                return await asyncio.shield(running)
            except asyncio.CancelledError:
                # The thread continues, so it must keep its share until it ends.
                await asyncio.wait([running])
                raise

    def close(self) -> None:
        self._executor.shutdown(wait=False, cancel_futures=True)
