"""`/metrics` of `ari-conf web`, for Prometheus: its requests, and what waits in Redis."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from ari_conf import outbox, recordings
from ari_conf.metrics import SHORT
from ari_conf.web.parts import Parts

QUEUES = (outbox.QUEUE, recordings.QUEUE, recordings.TRANSCRIPTIONS)
WORKERS = {
    outbox.QUEUE: "workers",
    recordings.QUEUE: "recording_workers",
    recordings.TRANSCRIPTIONS: "transcription_workers",
}
OUTCOMES = {
    outbox.QUEUE: {"delivered": "delivered", "retried": "retried", "dead": "dead"},
    recordings.QUEUE: {"delivered": "stored", "retried": "retried", "dead": "dead"},
    recordings.TRANSCRIPTIONS: {"delivered": "done", "retried": "retried"},
}
"""What `outbox.Totals` calls them -> how they are told."""
LAG_EVERY_S = 0.25
LOOK_EVERY_S = 1.0
"""Redis is looked at; who asks in between is told the same."""
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Web:
    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        # Of its own: no request waits for those who measure.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="metrics")
        self._looking = asyncio.Lock()
        self._looked_at = float("-inf")
        labels = ("method", "path", "status")
        self._requests = Counter("ari_conf_api_requests", "Requests answered.", labels, registry=registry)
        self._seconds = Histogram(
            "ari_conf_api_seconds", "How long they took.", ("method", "path"), buckets=SECONDS, registry=registry
        )

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"ari_conf_{name}", text, labels, registry=registry)

        self._redis = gauge("redis_ping_seconds", "How long Redis took to answer just now.")
        self._streams = gauge("event_streams", "Event streams that are open here.")
        self._lag = Histogram("ari_conf_web_loop_lag_seconds", "How late we are.", buckets=SHORT, registry=registry)
        self._lanes = gauge("callback_lanes", "Lanes in which callbacks wait.")
        self._deepest = gauge("callback_lane_depth", "Callbacks in the lane that has most.")
        self._queues = {
            queue: (
                gauge(f"{queue}_waiting", f"{queue.capitalize()} not done yet."),
                gauge(f"{queue}_oldest_seconds", "Age of the one that waits longest."),
                gauge(f"{queue}_total", f"What became of {queue}, since ever.", "outcome"),
                gauge(WORKERS[queue], f"Workers for {queue}."),
            )
            for queue in QUEUES
        }

    def observe(self, method: str, path: str, status: int, seconds: float) -> None:
        # A method may be any word: those that no route knows are one.
        known = method if method in ("GET", "POST", "DELETE", "HEAD", "OPTIONS", "PUT", "PATCH") else "other"
        self._requests.labels(known, path, str(status)).inc()
        self._seconds.labels(known, path).observe(seconds)

    async def watch_loop(self) -> None:
        """For ever."""
        while True:
            began = time.perf_counter()
            await asyncio.sleep(LAG_EVERY_S)
            self._lag.observe(max(0.0, time.perf_counter() - began - LAG_EVERY_S))

    async def response(self, parts: Parts) -> Response:
        """Asked for without a login: its cost grows neither with what is in Redis, nor with how often it is asked."""
        async with self._looking:
            if time.monotonic() - self._looked_at > LOOK_EVERY_S:
                await self._look(parts)
                self._looked_at = time.monotonic()
        return Response(generate_latest(self._registry), media_type=CONTENT_TYPE_LATEST)

    async def _look(self, parts: Parts) -> None:
        redis: Any = parts.redis
        began = time.perf_counter()
        await redis.ping()
        self._redis.set(time.perf_counter() - began)
        self._streams.set(parts.feeds.streams)
        for queue in QUEUES:
            running = asyncio.get_running_loop().run_in_executor(self._thread, _look, parts, queue)
            self._tell(queue, *await running)

    def _tell(self, queue: str, totals: outbox.Totals, depths: list[int], oldest_ms: int) -> None:
        waiting, oldest, outcomes, workers = self._queues[queue]
        waiting.set(totals.waiting)
        oldest.set(oldest_ms / 1000)
        workers.set(totals.workers)
        for outcome, word in OUTCOMES[queue].items():
            outcomes.labels(word).set(getattr(totals, outcome))
        if queue == outbox.QUEUE:
            self._lanes.set(totals.lanes)
            self._deepest.set(max(depths, default=0))


class _Made(msgspec.Struct):
    """Of any queue's entry, when it was made."""

    at_ms: int


def _look(parts: Parts, queue: str) -> tuple[outbox.Totals, list[int], int]:
    """(numbers, how deep the lanes are, the age in ms of the oldest entry)"""
    seconds, micros = parts.blocking.time()
    now_ms = seconds * 1000 + micros // 1000
    heads = outbox.heads(parts.blocking, queue)
    made = [at_ms for *_, head in heads if (at_ms := _made(head)) is not None]
    oldest_ms = max(0, now_ms - min(made, default=now_ms))
    return outbox.counted(parts.blocking, queue), [depth for _, _, depth, _ in heads], oldest_ms


def _made(head: bytes) -> int | None:
    """None: another version wrote it."""
    try:
        return msgspec.json.decode(head, type=_Made).at_ms
    except msgspec.MsgspecError:
        return None
