"""Tells Celery that there are callbacks to deliver: as many messages as free threads are worth starting, never more."""

from __future__ import annotations

import threading

import structlog
from redis import Redis

from ari_conf.lanes import Lanes
from tasks.app import app

log = structlog.get_logger()
REST_S = 0.005
"""Between two rounds: what became ready meanwhile is one round's work."""


class Tokens(threading.Thread):
    """`wake` says that lanes may have become ready, and never blocks. With `every_s` it also looks by itself."""

    def __init__(self, redis: Redis, every_s: float | None = None) -> None:
        super().__init__(name="tokens", daemon=True)
        self._lanes = Lanes(redis)
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
                publish(self._lanes.tokens())
            except Exception as error:  # of Redis, of the broker: this thread must outlive them
                if working:
                    log.warning("workers not told of callbacks", reason=str(error))
                working = False
                self._ended.wait(0.5)
            else:
                working = True
                self._ended.wait(REST_S)


def publish(tokens: list[str]) -> None:
    if tokens:
        with app.producer_or_acquire() as producer:
            for token in tokens:
                app.send_task("tasks.callbacks.deliver", (token,), producer=producer, queue="callbacks")
