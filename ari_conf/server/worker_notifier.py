"""Worker notifier: sends Celery workers wake-up messages when the server has queued entries."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from ari_conf.common.redis_client import connect_in_threads

if TYPE_CHECKING:
    from tasks.wakeups import WakeupPublisher

CELERY_WAITS_S = 3.0
NOTIFY_DELAY_S = 0.005


class WorkerNotifier:
    def __init__(self, redis_url: str) -> None:
        self._redis_url = redis_url
        self._tokens: WakeupPublisher | None = None

    async def start(self, compared: asyncio.Event) -> None:
        """Load Celery and wake the workers, once `compared` is set or CELERY_WAITS_S have passed.

        Loading Celery is a third of the server's start time, and calls don't wait for it.
        """
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(compared.wait(), CELERY_WAITS_S)
        self._tokens = await asyncio.to_thread(_tokens, self._redis_url)
        self._tokens.start()
        self._tokens.wake()

    def wakeup_message(self, token: str) -> str | None:
        """Return the wake-up message with this wake-up id, to be written with the entries; None: `wake` sends it."""
        return self._tokens.wakeup_message(token) if self._tokens is not None else None

    def wake(self) -> None:
        """Wake workers in NOTIFY_DELAY_S, unless wake-up messages are written with the entries."""
        # The work that is due now goes first: this thread would have to wait for the publisher's thread.
        if self._tokens is not None and not self._tokens.can_inline:
            asyncio.get_running_loop().call_later(NOTIFY_DELAY_S, self._tokens.wake)

    def stop(self) -> None:
        if self._tokens is not None:
            self._tokens.stop()


def _tokens(redis_url: str) -> WakeupPublisher:
    from tasks.wakeups import WakeupPublisher

    return WakeupPublisher(connect_in_threads(redis_url, socket_timeout=5.0))
