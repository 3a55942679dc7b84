"""Metrics of `ari-conf web` for Prometheus, at `/metrics`: requests of the web process, and the queues in Redis."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from ari_conf.observability.server_metrics import LATENCY_BUCKETS, add_build_info
from ari_conf.queues import history_inbox, outbox, queue_names, worker_health
from ari_conf.queues.history_inbox import Backlog
from ari_conf.recordings import jobs
from ari_conf.recordings.jobs import QUEUES
from ari_conf.web.resources import Resources

WORKERS = {
    outbox.QUEUE: "workers",
    jobs.STORE_QUEUE: "recording_workers",
    jobs.TRANSCRIPTION_QUEUE: "transcription_workers",
}
OUTCOMES = {
    outbox.QUEUE: {"delivered": "delivered", "retried": "retried", "dead": "dead"},
    jobs.STORE_QUEUE: {"delivered": "stored", "retried": "retried", "dead": "dead"},
    jobs.TRANSCRIPTION_QUEUE: {"delivered": "done", "retried": "retried"},
}
"""Field of `outbox.QueueTotals` -> value of the label `outcome`, by queue."""
LAG_INTERVAL_S = 0.25
UPDATE_INTERVAL_S = 1.0
"""Seconds between two reads of Redis; requests in between get the same numbers."""
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class WebMetrics:
    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        # A separate thread, so that no API request waits for a measurement.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="metrics")
        self._update_lock = asyncio.Lock()
        self._updated_at = float("-inf")
        labels = ("method", "path", "status")
        self._requests = Counter(
            "ari_conf_api_requests", "API requests by method, path and status.", labels, registry=registry
        )
        self._seconds = Histogram(
            "ari_conf_api_seconds",
            "Time until the response starts, by method and path.",
            ("method", "path"),
            buckets=SECONDS,
            registry=registry,
        )

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"ari_conf_{name}", text, labels, registry=registry)

        add_build_info(registry)
        self._redis = gauge("redis_ping_seconds", "Round-trip time of the latest Redis PING.")
        self._streams = gauge("event_streams", "Open event streams of this process.")
        self._lag = Histogram(
            "ari_conf_web_loop_lag_seconds",
            "Delay of the web process's event loop.",
            buckets=LATENCY_BUCKETS,
            registry=registry,
        )
        self._lanes = gauge("callback_lanes", "Partitions that hold undelivered callbacks.")
        self._deepest = gauge("callback_lane_depth", "Undelivered callbacks in the longest partition.")
        self._queues = {
            queue: (
                gauge(f"{queue}_waiting", f"Entries of the queue '{queue}' that are not done."),
                gauge(f"{queue}_oldest_seconds", "Age of the oldest entry of the queue."),
                gauge(f"{queue}_total", f"Attempts of the queue '{queue}' by outcome, as counted in Redis.", "outcome"),
                gauge(WORKERS[queue], f"Live workers of the queue '{queue}'."),
            )
            for queue in QUEUES
        }
        self._history = (
            gauge("history_waiting", "Entries of the history that wait for its database."),
            gauge("history_oldest_seconds", "Age of the oldest of them."),
            gauge("history_total", "Entries of the history by outcome, as counted in Redis.", "outcome"),
            gauge("history_workers", "Live workers that write the history."),
        )
        self._stuck = gauge("stuck_workers", "Workers that do not work off the queue.", "queue")

    def observe(self, method: str, path: str, status: int, seconds: float) -> None:
        # A client may send any word as the method: all unknown ones share one label, so that labels stay bounded.
        known = method if method in ("GET", "POST", "DELETE", "HEAD", "OPTIONS", "PUT", "PATCH") else "other"
        self._requests.labels(known, path, str(status)).inc()
        self._seconds.labels(known, path).observe(seconds)

    async def watch_loop(self) -> None:
        """Measure the lag of the event loop until canceled."""
        while True:
            began = time.perf_counter()
            await asyncio.sleep(LAG_INTERVAL_S)
            self._lag.observe(max(0.0, time.perf_counter() - began - LAG_INTERVAL_S))

    async def response(self, resources: Resources) -> Response:
        """Return the metrics as an HTTP response.

        The request needs no login, so its cost must grow neither with the content of Redis nor with the request rate.
        """
        async with self._update_lock:
            if time.monotonic() - self._updated_at > UPDATE_INTERVAL_S:
                await self._update(resources)
                self._updated_at = time.monotonic()
        return Response(generate_latest(self._registry), media_type=CONTENT_TYPE_LATEST)

    async def _update(self, resources: Resources) -> None:
        redis: Any = resources.redis
        began = time.perf_counter()
        await redis.ping()
        self._redis.set(time.perf_counter() - began)
        self._streams.set(resources.feeds.streams)
        for queue in QUEUES:
            running = asyncio.get_running_loop().run_in_executor(self._thread, _read_queue, resources, queue)
            self._set_queue_gauges(queue, *await running)
        found = await asyncio.get_running_loop().run_in_executor(self._thread, _read_history, resources)
        self._set_history_gauges(*found)
        stuck = await asyncio.get_running_loop().run_in_executor(self._thread, _stuck_workers, resources)
        for queue, count in stuck.items():
            self._stuck.labels(queue).set(count)

    def _set_history_gauges(self, backlog: Backlog, workers: int) -> None:
        waiting, oldest, outcomes, live_workers = self._history
        waiting.set(backlog.entries)
        oldest.set(backlog.oldest_ms / 1000)
        live_workers.set(workers)
        for outcome, count in (
            ("written", backlog.written),
            ("failed", backlog.failures),
            ("dropped", backlog.dropped),
            ("unreadable", backlog.unreadable),
        ):
            outcomes.labels(outcome).set(count)

    def _set_queue_gauges(self, queue: str, totals: outbox.QueueTotals, depths: list[int], oldest_ms: int) -> None:
        waiting, oldest, outcomes, workers = self._queues[queue]
        waiting.set(totals.waiting)
        oldest.set(oldest_ms / 1000)
        workers.set(totals.workers)
        for outcome, word in OUTCOMES[queue].items():
            outcomes.labels(word).set(getattr(totals, outcome))
        if queue == outbox.QUEUE:
            self._lanes.set(totals.partitions)
            self._deepest.set(max(depths, default=0))


class _EnqueuedAt(msgspec.Struct):
    """The creation time of an entry, which all queues have: epoch milliseconds."""

    at_ms: int


def _read_queue(resources: Resources, queue: str) -> tuple[outbox.QueueTotals, list[int], int]:
    """Return (totals, entries in each partition, age in ms of the oldest entry) of a queue's first 1000 partitions."""
    seconds, micros = resources.sync_redis.time()
    now_ms = seconds * 1000 + micros // 1000
    heads = outbox.partition_heads(resources.sync_redis, queue)
    made = [at_ms for head in heads if (at_ms := _enqueued_at_ms(head.first_entry)) is not None]
    oldest_ms = max(0, now_ms - min(made, default=now_ms))
    return outbox.counted(resources.sync_redis, queue), [head.length for head in heads], oldest_ms


def _read_history(resources: Resources) -> tuple[Backlog, int]:
    """Return what waits for the history's database, and the number of workers that write it."""
    redis = resources.sync_redis
    return history_inbox.backlog(redis), len(worker_health.threads_of_live(redis, history_inbox.QUEUE))


def _stuck_workers(resources: Resources) -> dict[str, int]:
    """Return the number of workers that do not work, by queue."""
    redis = resources.sync_redis
    return {queue: sum(bool(each.fault) for each in worker_health.read(redis, queue)) for queue in queue_names.ALL}


def _enqueued_at_ms(head: bytes) -> int | None:
    """Return the creation time of an entry in epoch ms, or None if another version wrote the entry."""
    try:
        return msgspec.json.decode(head, type=_EnqueuedAt).at_ms
    except msgspec.MsgspecError:
        return None
