"""Account feeds: send each event-stream client of an account a snapshot of its live view (`live_view`), then changes.

Owners publish the id of each conference that they have just written. For each account with viewers, this process has
one subscription. It reads those conferences again, and sends the differences from the view that it sent before. The
calls on their way into conferences are no part of them: they are read every second, and sent as a whole if they differ.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from typing import Any

import msgspec
import structlog
from redis import RedisError
from redis.asyncio import Redis

from ari_conf.common.log_throttle import LogThrottle
from ari_conf.errors import REPORT_HINT
from ari_conf.queues.command_queue import CommandClient
from ari_conf.store.live_state import CallRecord
from ari_conf.store.state_store import changes_key, names_key, parse_name_owner
from ari_conf.web import live_view
from ari_conf.web.calls_on_the_way import Calls, CallsOnTheWay
from ari_conf.web.conference_view import ConferenceView, read_views
from ari_conf.web.errors import ApiError, unavailable

log = structlog.get_logger()

COALESCE_S = 0.1
"""Seconds whose events are combined into one change, so that a hundred simultaneous joins are not a hundred changes."""
POLL_TIMEOUT_S = 1.0
CALLS_INTERVAL_S = 0.5
"""Minimum seconds between two reads of the calls on their way."""
RETRY_DELAY_S = 0.5
MAX_QUEUED_EVENTS = 200
"""Maximum number of events queued for one client, about 20 s of a busy account. A slower client is disconnected,
and gets a snapshot when it reconnects."""
MAX_QUEUED_BYTES = 4 * 1024 * 1024
"""Maximum size of the events queued for one client, in bytes, if they are more than one. The clients of an account
share the bytes objects."""
LEASE_MS = 30_000
RENEW_INTERVAL_MS = 10_000
RETRY_AFTER_S = 5

encode = msgspec.json.Encoder().encode


class ClientStream:
    """Event stream of one client: the events that are queued for it."""

    def __init__(self) -> None:
        self._waiting: asyncio.Queue[bytes] = asyncio.Queue(MAX_QUEUED_EVENTS)
        self._bytes = 0
        self.ended = asyncio.Event()
        self.too_slow = False

    def put(self, event: bytes) -> None:
        if self._waiting.full() or (self._bytes and self._bytes + len(event) > MAX_QUEUED_BYTES):
            self.too_slow = True
            self.ended.set()
            return
        self._waiting.put_nowait(event)
        self._bytes += len(event)

    async def next(self) -> bytes:
        event = await self._waiting.get()
        self._bytes -= len(event)
        return event


class AccountFeed:
    """Feed of one account: its view, and the streams of the clients that receive it."""

    def __init__(self, redis: Redis, command_client: CommandClient, auth_id: str) -> None:
        self.streams: set[ClientStream] = set()
        self.closed = False
        """Set in addition to canceling the task: redis-py may swallow a cancellation while it connects."""
        self._redis: Any = redis
        self._command_client = command_client
        self._auth_id = auth_id
        self._view: live_view.View | None = None
        """Current view; None before the first read, and after a failure until the next read."""
        self._owners: dict[str, str] = {}
        """Conference id -> name of its Asterisk."""
        self._calls: dict[str, CallRecord] = {}
        """Calls of all members in the view, by call UUID. The fields shown never change, so each call is read once."""
        self._on_the_way = CallsOnTheWay(redis, auth_id)
        self._calls_sent: Calls = {}
        """Calls on their way that the clients know; a snapshot has none."""
        self._calls_read_at = float("-inf")
        self._watched_at: dict[str, float] = {}
        """Name of an Asterisk -> time of the last watch request to it, by this process's monotonic clock."""
        self._last_id = time.time_ns() // 1_000_000

    def add(self) -> ClientStream:
        stream = ClientStream()
        self.streams.add(stream)
        if self._view is not None:
            stream.put(self._message("snapshot", self._view))
            if self._calls_sent:
                stream.put(self._message("calls", self._calls_sent))
        return stream

    async def run(self) -> None:
        """Read changes and send them to the streams, until the feed is closed."""
        throttle = LogThrottle()
        while not self.closed:
            pubsub = self._redis.pubsub(ignore_subscribe_messages=True)
            try:
                await self._consume(pubsub)
            except (RedisError, OSError) as error:
                if throttle.should_log():
                    log.warning("change subscription failed", reason=str(error) or type(error).__name__)
            except Exception as error:
                # The streams of this account are interrupted briefly; other accounts are not affected.
                log.error("event stream raised", hint=REPORT_HINT, exc_info=error)
            finally:
                await pubsub.aclose()
            if self._view is not None:
                self._view = None
                self._broadcast("away", {})
            await asyncio.sleep(RETRY_DELAY_S)

    async def _consume(self, pubsub: Any) -> None:
        await pubsub.subscribe(changes_key(self._auth_id))
        while not pubsub.subscribed and not self.closed:
            await pubsub.get_message(timeout=POLL_TIMEOUT_S)
        # Subscribe before the first read, so that no change in between is missed.
        await self._load()
        while not self.closed:
            changed = dict[str, str]()
            wait = POLL_TIMEOUT_S
            while (message := await pubsub.get_message(timeout=wait)) is not None:
                conference_id, asterisk = parse_name_owner(message["data"])
                changed[conference_id] = asterisk
                wait = 0.0
            if changed:
                await self._read_changes(changed)
            if time.monotonic() - self._calls_read_at >= CALLS_INTERVAL_S:
                await self._read_calls()
            await self._renew_watch()
            if changed:
                await asyncio.sleep(COALESCE_S)

    async def _load(self) -> None:
        names = await self._redis.hgetall(names_key(self._auth_id))
        self._owners, self._calls, self._watched_at = {}, {}, {}
        self._view = await self._read_conferences(dict(map(parse_name_owner, names.values())))
        self._calls_sent = {}
        self._broadcast("snapshot", self._view)
        await self._read_calls()
        await self._renew_watch()

    async def _read_calls(self) -> None:
        found = await self._on_the_way.read()
        self._calls_read_at = time.monotonic()
        if found != self._calls_sent:
            self._calls_sent = found
            self._broadcast("calls", found)

    async def _read_changes(self, changed: dict[str, str]) -> None:
        assert self._view is not None
        found = await self._read_conferences(changed)
        view = {key: value for key, value in self._view.items() if key not in changed} | found
        change = live_view.diff(self._view, view)
        self._view = view
        if change:
            self._broadcast("change", change)

    async def _read_conferences(self, wanted: dict[str, str]) -> live_view.View:
        found: list[ConferenceView] = []
        for asterisk in set(wanted.values()):
            ids = [conference_id for conference_id, owner in wanted.items() if owner == asterisk]
            found += await read_views(self._redis, asterisk, self._auth_id, ids, self._calls)
        view = live_view.build_view(found)
        for conference_id, asterisk in wanted.items():
            self._owners.pop(conference_id, None)
            if conference_id in view:
                self._owners[conference_id] = asterisk
        self._forget_calls(view, wanted)
        return view

    def _forget_calls(self, view: live_view.View, read: Iterable[str]) -> None:
        others = {key: one for key, one in (self._view or {}).items() if key not in read}
        shown = {m["call_uuid"] for one in (*others.values(), *view.values()) for m in one["members"].values()}
        self._calls = {key: call for key, call in self._calls.items() if key in shown}

    async def _renew_watch(self) -> None:
        now = time.monotonic()
        for asterisk in set(self._owners.values()):
            if now - self._watched_at.get(asterisk, float("-inf")) >= RENEW_INTERVAL_MS / 1000:
                try:
                    await self._command_client.watch(asterisk, self._auth_id, LEASE_MS)
                except RedisError as error:
                    # Retried in the next round. If Redis is unreachable, the subscription reports it.
                    log.warning("talk detection request failed", reason=str(error) or type(error).__name__)
                    return
                self._watched_at[asterisk] = now

    def _broadcast(self, event: str, data: Any) -> None:
        message = self._message(event, data)
        for stream in self.streams:
            stream.put(message)

    def _message(self, event: str, data: Any) -> bytes:
        self._last_id += 1
        return f"id: {self._last_id}\nevent: {event}\ndata: ".encode() + encode(data) + b"\n\n"


class FeedRegistry:
    """Feeds of this process, one for each account with viewers."""

    def __init__(self, redis: Redis, command_client: CommandClient, most_streams: int) -> None:
        """`most_streams`: maximum number of streams of an account."""
        self._redis, self._command_client, self._most_streams = redis, command_client, most_streams
        self.group: asyncio.TaskGroup | None = None
        """Task group of the process; set while the process runs."""
        self._ended = False
        self._feeds: dict[str, tuple[AccountFeed, asyncio.Task[None]]] = {}

    @property
    def streams(self) -> int:
        return sum(len(feed.streams) for feed, _ in self._feeds.values())

    def open(self, auth_id: str) -> ClientStream:
        """Return a new stream for a client.

        Raises ApiError 429 if the account has too many streams, and 503 if the process is ending."""
        if self._ended:
            raise unavailable("this web process is stopping: try again")
        if auth_id not in self._feeds:
            assert self.group is not None, "requests come only while the process runs"
            feed = AccountFeed(self._redis, self._command_client, auth_id)
            self._feeds[auth_id] = feed, self.group.create_task(feed.run())
        feed, _ = self._feeds[auth_id]
        if len(feed.streams) >= self._most_streams:
            many = f"this account already has {self._most_streams} open"
            error = f"too many event streams: {many}; close another event stream"
            raise ApiError(429, error, {"Retry-After": str(RETRY_AFTER_S)})
        return feed.add()

    def close(self, auth_id: str, stream: ClientStream) -> None:
        found = self._feeds.get(auth_id)
        if found is None:
            return
        feed, _ = found
        feed.streams.discard(stream)
        if not feed.streams:
            self._close(auth_id)

    def close_all(self) -> None:
        for auth_id in tuple(self._feeds):
            self._close(auth_id)

    def _close(self, auth_id: str) -> None:
        feed, running = self._feeds.pop(auth_id)
        feed.closed = True
        running.cancel()

    def end(self) -> None:
        """End all streams, because the process is ending. Clients reconnect to another process."""
        self._ended = True
        for feed, _ in self._feeds.values():
            for stream in feed.streams:
                stream.ended.set()
