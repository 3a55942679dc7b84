"""Wake-up messages for Celery workers: publishes as many as there are free threads worth starting, never more."""

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

from ari_conf.queues.partitioned_queue import PartitionedQueue
from ari_conf.settings import settings
from tasks import supervised_threads
from tasks.app import app

log = structlog.get_logger()
TASKS = {
    "callbacks": "tasks.callbacks.deliver",
    "recordings": "tasks.recordings.store",
    "transcriptions": "tasks.transcriptions.transcribe",
}
MIN_ROUND_INTERVAL_S = 0.005
"""The minimum time between two rounds: one round handles all partitions that became ready in the meantime."""


class WakeupPublisher(threading.Thread):
    """A thread that publishes wake-up messages after `wake`, which never blocks. With `every_s` it also polls.

    A component that fills partitions with a script of its own can issue wake-ups in it: then no poll is needed.
    """

    def __init__(self, redis: Redis, every_s: float | None = None, queue: str = "callbacks") -> None:
        super().__init__(name=f"tokens {queue}", daemon=True)
        self._queue = queue
        self._lanes = PartitionedQueue(redis, queue)
        self._every_s = every_s
        self._near = settings().broker == settings().redis_url.get_secret_value()
        self._woken = threading.Event()
        self._ended = threading.Event()

    def wake(self) -> None:
        self._woken.set()

    @property
    def can_inline(self) -> bool:
        """Return True once the message template is known, if the queue's list and the partitions share one Redis."""
        return self._near and self._queue in _templates

    def wakeup_message(self, token: str) -> str | None:
        """Return the Celery message with this wake-up id, for the queue's list; None if `can_inline` is False."""
        return render(_templates[self._queue], token) if self.can_inline else None

    def stop(self) -> None:
        self._ended.set()
        self._woken.set()

    def run(self) -> None:
        supervised_threads.kept(self.name, self._tell, self._ended.is_set)

    def _tell(self) -> None:
        working = True
        while not self._ended.is_set():
            self._woken.wait(self._every_s)
            self._woken.clear()
            try:
                publish_wakeups(self._lanes.issue_wakeups(), self._queue)
            except Exception as error:  # any error of Redis or the broker: this thread must survive it
                if working:
                    log.warning("wake-up publishing failed", queue=self._queue, reason=str(error))
                working = False
                self._ended.wait(0.5)
            else:
                working = True
                self._ended.wait(MIN_ROUND_INTERVAL_S)


def publish_wakeups(tokens: list[str], queue: str) -> None:
    """Publish all messages in one round trip.

    They are the same as those of `app.send_task`, at a tenth of its cost (docs/development/performance.md).
    """
    if not tokens and queue in _templates:
        return
    with app.producer_or_acquire() as producer:
        letter = template_for(queue, producer.channel)
        if tokens:
            producer.channel.client.lpush(queue, *(render(letter, token) for token in tokens))


def render(letter: MessageTemplate, token: str) -> str:
    """Return the message for a wake-up id, in the format of the broker's list."""
    body = b64encode(letter.body.replace(_TOKEN, token).encode()).decode()
    new = {_BODY: body, _ID: str(uuid4()), _TAG: str(uuid4())}
    filled = (piece + new[mark] for piece, mark in zip(letter.pieces, letter.marks, strict=False))
    return "".join(filled) + letter.pieces[-1]


@dataclass(frozen=True, slots=True)
class MessageTemplate:
    """Template of a Celery message (protocol 2, in kombu's envelope), split where one message differs from the next."""

    pieces: tuple[str, ...]
    """The constant parts; `marks` name the values between them."""
    marks: tuple[str, ...]
    body: str


_BODY, _ID, _TAG, _TOKEN = "@BODY@", "@ID@", "@TAG@", "@TOKEN@"
_templates: dict[str, MessageTemplate] = {}


def template_for(queue: str, channel: Any) -> MessageTemplate:
    """Return the queue's template, which Celery and kombu build once. `channel` is a Redis channel of kombu."""
    if queue not in _templates:
        headers, properties, body, _ = app.amqp.create_task_message(_ID, TASKS[queue], (_TOKEN,), {})
        content_type, encoding, payload = serialization.dumps(body, "json")  # type: ignore[no-untyped-call]
        properties |= {"delivery_mode": 2}
        message = channel.prepare_message(_BODY, 0, content_type, encoding, headers, properties)
        channel._inplace_augment_message(message, "", queue)
        message["body"], message["properties"]["delivery_tag"] = _BODY, _TAG
        parts = re.split(f"({_BODY}|{_ID}|{_TAG})", json.dumps(message))
        _templates[queue] = MessageTemplate(tuple(parts[::2]), tuple(parts[1::2]), payload)
    return _templates[queue]
