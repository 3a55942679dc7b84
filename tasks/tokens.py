"""Tells Celery that there is something to do: as many messages as free threads are worth starting, never more."""

from __future__ import annotations

import json
import re
import threading
from base64 import b64encode
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import structlog
from kombu import serialization
from redis import Redis

from ari_conf.lanes import Lanes
from ari_conf.settings import settings
from tasks import supervised
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
    """`wake` says that lanes may have become ready, and never blocks. With `every_s` it also looks by itself.

    Who fills lanes in a script of his own can tell workers in it: then nobody need look."""

    def __init__(self, redis: Redis, every_s: float | None = None, queue: str = "callbacks") -> None:
        super().__init__(name=f"tokens {queue}", daemon=True)
        self._queue = queue
        self._lanes = Lanes(redis, queue)
        self._every_s = every_s
        self._near = settings().broker == settings().redis_url.get_secret_value()
        self._woken = threading.Event()
        self._ended = threading.Event()

    def wake(self) -> None:
        self._woken.set()

    @property
    def has_letters(self) -> bool:
        """Not until it is known how they are made, nor if the queue's list is not in the Redis that has the lanes."""
        return self._near and self._queue in _letters

    def letter(self, token: str) -> str | None:
        """Celery's message that brings a worker this token, to be put into the queue's list; None: it has none."""
        return text(_letters[self._queue], token) if self.has_letters else None

    def end(self) -> None:
        self._ended.set()
        self._woken.set()

    def run(self) -> None:
        supervised.kept(self.name, self._tell, self._ended.is_set)

    def _tell(self) -> None:
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
    """All in one round trip. As `app.send_task` does it, at a tenth of its cost (docs/performance.md)."""
    if not tokens and queue in _letters:
        return
    with app.producer_or_acquire() as producer:
        letter = letter_of(queue, producer.channel)
        if tokens:
            producer.channel.client.lpush(queue, *(text(letter, token) for token in tokens))


def text(letter: Letter, token: str) -> str:
    """The message that tells of a token, as it lies in the broker's queue."""
    body = b64encode(letter.body.replace(_TOKEN, token).encode()).decode()
    new = {_BODY: body, _ID: str(uuid4()), _TAG: str(uuid4())}
    filled = (piece + new[mark] for piece, mark in zip(letter.pieces, letter.marks, strict=False))
    return "".join(filled) + letter.pieces[-1]


@dataclass(frozen=True, slots=True)
class Letter:
    """A message of Celery's (protocol 2, in kombu's envelope), cut where one differs from the next."""

    pieces: tuple[str, ...]
    """Between them stand the marks that follow."""
    marks: tuple[str, ...]
    body: str


_BODY, _ID, _TAG, _TOKEN = "@BODY@", "@ID@", "@TAG@", "@TOKEN@"
_letters: dict[str, Letter] = {}


def letter_of(queue: str, channel: Any) -> Letter:
    """Made by Celery and kombu themselves, once. `channel` is one of kombu's to Redis."""
    if queue not in _letters:
        headers, properties, body, _ = app.amqp.create_task_message(_ID, TASKS[queue], (_TOKEN,), {})
        content_type, encoding, payload = serialization.dumps(body, "json")  # type: ignore[no-untyped-call]
        properties |= {"delivery_mode": 2}
        message = channel.prepare_message(_BODY, 0, content_type, encoding, headers, properties)
        channel._inplace_augment_message(message, "", queue)
        message["body"], message["properties"]["delivery_tag"] = _BODY, _TAG
        parts = re.split(f"({_BODY}|{_ID}|{_TAG})", json.dumps(message))
        _letters[queue] = Letter(tuple(parts[::2]), tuple(parts[1::2]), payload)
    return _letters[queue]
