"""`/metrics` of `ari-conf web`, for Prometheus: its requests, and the callbacks that wait in Redis."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from ari_conf import outbox
from ari_conf.web.parts import Parts

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Web:
    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        labels = ("method", "path", "status")
        self._requests = Counter("ari_conf_api_requests", "Requests answered.", labels, registry=registry)
        self._seconds = Histogram(
            "ari_conf_api_seconds", "How long they took.", ("method", "path"), buckets=SECONDS, registry=registry
        )
        self._redis = Gauge("ari_conf_redis_ping_seconds", "How long Redis took to answer just now.", registry=registry)
        self._waiting = Gauge("ari_conf_callbacks_waiting", "Callbacks not delivered yet.", registry=registry)
        self._lanes = Gauge("ari_conf_callback_lanes", "Lanes in which they wait.", registry=registry)
        self._oldest = Gauge(
            "ari_conf_callbacks_oldest_seconds", "Age of the one that waits longest.", registry=registry
        )
        self._outcomes = Gauge(
            "ari_conf_callbacks_total", "What became of callbacks, since ever.", ("outcome",), registry=registry
        )
        self._workers = Gauge("ari_conf_workers", "Workers that deliver callbacks.", registry=registry)

    def observe(self, method: str, path: str, status: int, seconds: float) -> None:
        # A method may be any word: those that no route knows are one.
        known = method if method in ("GET", "POST", "DELETE", "HEAD", "OPTIONS", "PUT", "PATCH") else "other"
        self._requests.labels(known, path, str(status)).inc()
        self._seconds.labels(known, path).observe(seconds)

    async def response(self, parts: Parts) -> Response:
        redis: Any = parts.redis
        began = time.perf_counter()
        await redis.ping()
        self._redis.set(time.perf_counter() - began)
        totals, lanes = await asyncio.to_thread(_look, parts)
        self._waiting.set(totals.waiting)
        self._lanes.set(totals.lanes)
        self._workers.set(totals.workers)
        self._oldest.set(max((lane.oldest_ms for lane in lanes), default=0) / 1000)
        for outcome in ("delivered", "retried", "dead"):
            self._outcomes.labels(outcome).set(getattr(totals, outcome))
        return Response(generate_latest(self._registry), media_type=CONTENT_TYPE_LATEST)


def _look(parts: Parts) -> tuple[outbox.Totals, list[outbox.Lane]]:
    return outbox.totals(parts.blocking), outbox.overview(parts.blocking)
