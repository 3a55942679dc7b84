"""What the requests of this process share, made when it starts."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast
from uuid import uuid4

from fastapi import FastAPI, Request
from redis import Redis
from redis.asyncio import Redis as AsyncRedis

from ari_conf import command_queue, redis_client
from ari_conf.command_queue import Asker
from ari_conf.settings import Settings
from ari_conf.supervision import Tasks
from ari_conf.web import later
from ari_conf.web.feeds import Feeds
from ari_conf.web.turns import Threads

LAST_CALLBACKS_S = 10.0
READS, READS_EACH = 8, 2
"""Lists that are read at once, and of these one account's."""
STORAGE, STORAGE_EACH = 8, 2
"""Requests to S3, likewise."""
MOST_WAITING = 50
"""More requests of an account that wait for one of these are refused."""
LISTENING: dict[str, Any] = {
    "socket_connect_timeout": 2.0,
    "retry": None,
    # A connection that is silently dead looks like one on which nothing happens.
    "socket_keepalive": True,
    "socket_keepalive_options": {socket.TCP_KEEPIDLE: 10, socket.TCP_KEEPINTVL: 5, socket.TCP_KEEPCNT: 3},
}


@dataclass(slots=True)
class Parts:
    settings: Settings
    redis: AsyncRedis
    blocking: Redis
    """For what is shared with the commands and the workers: only in a thread."""
    asker: Asker
    feeds: Feeds
    reads: Threads = field(default_factory=lambda: Threads("redis", READS, READS_EACH, MOST_WAITING))
    storage: Threads = field(default_factory=lambda: Threads("s3", STORAGE, STORAGE_EACH, MOST_WAITING))
    """S3 may take long: what asks Redis doesn't wait for it."""
    promises: Counter[str] = field(default_factory=Counter)
    """Of each account, asynchronous calls that are under way here."""
    streams: Counter[str] = field(default_factory=Counter)
    """Of each account, recordings that are being passed on."""
    tasks: Tasks = field(default_factory=Tasks)
    """What goes on when its request is answered."""


@asynccontextmanager
async def running(settings: Settings, *watching: Coroutine[Any, Any, None]) -> AsyncIterator[Parts]:
    """`watching`: what else runs as long as the process does."""
    url = settings.redis_url.get_secret_value()
    client = command_queue.connect(url)
    blocking = redis_client.connect_in_threads(url, socket_timeout=5.0, socket_connect_timeout=2.0)
    # Those who listen keep their connections for long: not those of the requests.
    listening_client = redis_client.connect(url, **LISTENING)
    asker = Asker(client, f"web-{uuid4()}")
    parts = Parts(settings, client, blocking, asker, Feeds(listening_client, asker, settings.event_streams))
    try:
        # What ends here by itself ends the process: see `server`.
        async with asyncio.TaskGroup() as group:
            parts.feeds.group = group
            kept = [group.create_task(work) for work in (asker.listen(), later.watch(parts, asker.replied), *watching)]
            yield parts
            await parts.tasks.finish(LAST_CALLBACKS_S)
            parts.feeds.close_all()
            for task in kept:
                task.cancel()
    finally:
        for threads in (parts.reads, parts.storage):
            threads.close()
        blocking.close()
        await listening_client.aclose()
        await client.aclose()


def parts_of(request: Request) -> Parts:
    return cast(Parts, cast(FastAPI, request.app).state.parts)
