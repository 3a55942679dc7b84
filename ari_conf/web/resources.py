"""Resources: what all requests of a web process share, created when the process starts."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast
from uuid import uuid4

import structlog
from fastapi import FastAPI, Request
from redis import Redis, RedisError
from redis.asyncio import Redis as AsyncRedis

from ari_conf.common import redis_client, state_version
from ari_conf.common.supervision import Tasks
from ari_conf.errors import StateVersionRefused
from ari_conf.history.database import HistoryDatabase
from ari_conf.queues import command_queue
from ari_conf.queues.command_queue import CommandClient
from ari_conf.settings import Settings
from ari_conf.web.account_feeds import FeedRegistry
from ari_conf.web.async_calls import AbandonedCalls
from ari_conf.web.request_threads import Threads

log = structlog.get_logger()

SHUTDOWN_GRACE_S = 10.0
VERSION_RETRY_S = 0.5
READS, READS_EACH = 8, 2
"""Maximum number of lists that are read from Redis concurrently: in this process, and for one account."""
HISTORY, HISTORY_EACH = 6, 2
"""Maximum number of concurrent queries of the history: of this process, and for one account."""
STORAGE, STORAGE_EACH = 8, 2
"""Maximum number of concurrent requests to S3: of this process, and for one account."""
MAX_WAITING = 50
"""Maximum number of an account's requests that wait for a thread of one pool; further ones are refused."""
LISTENING: dict[str, Any] = {
    "socket_connect_timeout": 2.0,
    "retry": None,
    # Without keepalive, a dead connection looks like one on which nothing happens.
    "socket_keepalive": True,
    "socket_keepalive_options": {socket.TCP_KEEPIDLE: 10, socket.TCP_KEEPINTVL: 5, socket.TCP_KEEPCNT: 3},
}


@dataclass(slots=True)
class Resources:
    settings: Settings
    redis: AsyncRedis
    sync_redis: Redis
    """Blocking client for code that commands and workers use, too. Use it only in a thread."""
    command_client: CommandClient
    feeds: FeedRegistry
    history: HistoryDatabase
    """It connects with the first query, and blocks: use it only in a thread."""
    history_reads: Threads = field(default_factory=lambda: Threads("history", HISTORY, HISTORY_EACH, MAX_WAITING))
    """Threads for the history, apart from those for Redis: what lives does not wait for the database."""
    reads: Threads = field(default_factory=lambda: Threads("redis", READS, READS_EACH, MAX_WAITING))
    storage: Threads = field(default_factory=lambda: Threads("s3", STORAGE, STORAGE_EACH, MAX_WAITING))
    """Threads for S3, apart from those for Redis: S3 may be slow, and requests to Redis must not wait for it."""
    async_call_counts: Counter[str] = field(default_factory=Counter)
    """Asynchronous calls in progress in this process, by account."""
    stream_counts: Counter[str] = field(default_factory=Counter)
    """Recordings that this process is streaming to API clients, by account."""
    csv_counts: Counter[str] = field(default_factory=Counter)
    """CSV files that this process is sending to API clients, by account."""
    tasks: Tasks = field(default_factory=Tasks)
    """Tasks that outlive their request, such as asynchronous calls."""


@asynccontextmanager
async def open_resources(settings: Settings, *watching: Coroutine[Any, Any, None]) -> AsyncIterator[Resources]:
    """Open the resources and close them at the end. `watching`: further tasks that run as long as the process does."""
    url = settings.redis_url.get_secret_value()
    client = command_queue.connect(url)
    sync_redis = redis_client.connect_in_threads(url, socket_timeout=5.0, socket_connect_timeout=2.0)
    # Subscriptions occupy connections for a long time, so they do not use those of the requests.
    listening_client = redis_client.connect(url, **LISTENING)
    command_client = CommandClient(client, f"web-{uuid4()}")
    feeds = FeedRegistry(listening_client, command_client, settings.event_streams)
    history = HistoryDatabase(settings)
    resources = Resources(settings, client, sync_redis, command_client, feeds, history)
    abandoned = AbandonedCalls(client, command_client.stored_reply, settings.problems_kept)
    try:
        # A task that raises ends the process: see `WebServer.broken`.
        async with asyncio.TaskGroup() as group:
            resources.feeds.group = group
            works = (_check_state_version(client), command_client.receive_replies(), abandoned.watch(), *watching)
            running = [group.create_task(work) for work in works]
            yield resources
            await resources.tasks.finish(SHUTDOWN_GRACE_S)
            resources.feeds.close_all()
            for task in running:
                task.cancel()
    finally:
        for threads in (resources.reads, resources.storage, resources.history_reads):
            threads.close()
        history.close()
        sync_redis.close()
        await listening_client.aclose()
        await client.aclose()


async def _check_state_version(client: AsyncRedis) -> None:
    """Check the state's version as soon as Redis is reachable. Raises StateVersionRefused, which ends the process."""
    while True:
        try:
            return await state_version.check_async(client)
        except StateVersionRefused as refused:
            log.critical("state version refused", reason=str(refused), action="exiting")
            raise
        except (RedisError, OSError):
            await asyncio.sleep(VERSION_RETRY_S)


def resources_of(request: Request) -> Resources:
    return cast(Resources, cast(FastAPI, request.app).state.resources)
