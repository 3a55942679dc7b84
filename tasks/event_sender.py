"""Event sender: task events of Celery on their way to the broker.

Celery's dispatcher sends an event in the thread that reports it, and one thread at a time. A broker that does not
answer would delay every attempt, so one thread sends the events of all.
"""

from __future__ import annotations

import time
from contextlib import suppress
from queue import Empty, Full, Queue
from typing import Any

import structlog

from ari_conf.common.log_throttle import LogThrottle
from tasks import supervised_threads

log = structlog.get_logger()

MAX_WAITING_EVENTS = 10_000
"""Maximum number of events that wait to be sent; further ones are dropped. They have some hundred bytes each."""
SLOW_S = 1.0
"""Seconds of one event after which the broker counts as hanging, and the waiting events are dropped."""


class EventSender:
    """Stands in for Celery's event dispatcher in the requests of a worker. No method waits."""

    def __init__(self, celery_worker: Any) -> None:
        self._celery_worker = celery_worker
        self._waiting: Queue[tuple[str, dict[str, Any]]] = Queue(MAX_WAITING_EVENTS)
        self._dropped = LogThrottle()

    def start(self) -> None:
        supervised_threads.run("task events", self._run, lambda: False)

    @property
    def enabled(self) -> bool:
        dispatcher = self._dispatcher
        return dispatcher is not None and bool(dispatcher.enabled)

    def send(self, type: str, **fields: Any) -> None:
        try:
            self._waiting.put_nowait((type, {"timestamp": time.time()} | fields))
        except Full:
            self._log_dropped("the broker takes them too slowly")

    def _run(self) -> None:
        while True:
            kind, fields = self._waiting.get()
            dispatcher, began = self._dispatcher, time.monotonic()
            if dispatcher is not None:
                try:
                    dispatcher.send(kind, **fields)
                except Exception as error:
                    self._log_dropped(f"{type(error).__name__}: {error}")
            if time.monotonic() - began > SLOW_S:
                self._discard()
                # Celery's main thread waits for the dispatcher too, which is never free otherwise.
                time.sleep(SLOW_S)

    def _discard(self) -> None:
        with suppress(Empty):
            while True:
                self._waiting.get_nowait()
                self._log_dropped("the broker takes them too slowly")

    def _log_dropped(self, reason: str) -> None:
        if self._dropped.should_log():
            log.warning("celery events dropped", reason=reason)

    @property
    def _dispatcher(self) -> Any:
        """Return Celery's event dispatcher; None while the broker is unreachable."""
        consumer = self._celery_worker.consumer
        return consumer.event_dispatcher if getattr(consumer, "connection", None) else None
