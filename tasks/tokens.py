"""Tells Celery that there is something to do: as many messages as free threads are worth starting, never more."""

from __future__ import annotations

import threading

import structlog
from redis import Redis

from ari_conf.lanes import Lanes
from tasks.app import app

log = structlog.get_logger()
TASKS = {
    "callbacks": "tasks.callbacks.deliver",
    "recordings": "tasks.recordings.store",
    "transcriptions": "tasks.transcriptions.transcribe",
}
REST_S = 0.005
"""Between two rounds: what became ready meanwhile is one round's work."""


class Tokens(threading.Thread):
    """`wake` says that lanes may have become ready, and never blocks. With `every_s` it also looks by itself."""

    def __init__(self, redis: Redis, every_s: float | None = None, queue: str = "callbacks") -> None:
        super().__init__(name=f"tokens {queue}", daemon=True)
        self._queue = queue
        self._lanes = Lanes(redis, queue)
        self._every_s = every_s
        self._woken = threading.Event()
        self._ended = threading.Event()

    def wake(self) -> None:
        self._woken.set()

    def end(self) -> None:
        self._ended.set()
        self._woken.set()

    def run(self) -> None:
        working = True
        while not self._ended.is_set():
            self._woken.wait(self._every_s)
            self._woken.clear()
            try:
                publish(self._lanes.tokens(), self._queue)
            except Exception as error:  # of Redis, of the broker: this thread must outlive them
                if working:
                    log.warning("workers not told of what waits", queue=self._queue, reason=str(error))
                working = False
                self._ended.wait(0.5)
            else:
                working = True
                self._ended.wait(REST_S)


def publish(tokens: list[str], queue: str) -> None:
    if tokens:
        with app.producer_or_acquire() as producer:
            for token in tokens:
                app.send_task(TASKS[queue], (token,), producer=producer, queue=queue)
