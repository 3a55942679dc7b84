"""What happens in an account's conferences, as it happens, to all who look: a snapshot of `live`, then changes.

The owners publish the id of each conference that they have just written. For each account that somebody looks at there
is one subscription in this process: it reads those conferences again, and tells what is different from what it told.
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

from ari_conf import member_fields
from ari_conf.command_queue import Asker
from ari_conf.seldom import Seldom
from ari_conf.store import changes_key, holder, names_key, state_key
from ari_conf.web import live
from ari_conf.web.errors import Refused, unavailable

log = structlog.get_logger()

GATHER_S = 0.1
"""What happens within it is one change: a hundred who join at once are not a hundred."""
LISTEN_S = 1.0
TRY_AGAIN_S = 0.5
MOST_WAITING = 200
"""Events that wait for one client: some 20 s of a busy account. A slower client gets a snapshot when it is back."""
MOST_WAITING_BYTES = 4 * 1024 * 1024
"""The same, of more than one event; the clients of an account share the bytes."""
CALLS_AT_ONCE = 20
"""Read in one piece: a call is kept with its document, which may have 100 KB."""
LEASE_MS = 30_000
RENEW_MS = 10_000
RETRY_AFTER_S = 5

encode = msgspec.json.Encoder().encode


class Stream:
    """One client's."""

    def __init__(self) -> None:
        self._waiting: asyncio.Queue[bytes] = asyncio.Queue(MOST_WAITING)
        self._bytes = 0
        self.ended = asyncio.Event()
        self.too_slow = False

    def put(self, event: bytes) -> None:
        if self._waiting.full() or (self._bytes and self._bytes + len(event) > MOST_WAITING_BYTES):
            self.too_slow = True
            self.ended.set()
            return
        self._waiting.put_nowait(event)
        self._bytes += len(event)

    async def next(self) -> bytes:
        event = await self._waiting.get()
        self._bytes -= len(event)
        return event


class Feed:
    """Of one account."""

    def __init__(self, redis: Redis, asker: Asker, auth_id: str) -> None:
        self.streams: set[Stream] = set()
        self.closed = False
        """Beside its task's being cancelled: redis, while it connects, may swallow that."""
        self._redis: Any = redis
        self._asker = asker
        self._auth_id = auth_id
        self._view: live.View | None = None
        """None: nothing is known (yet, or any more)."""
        self._owners: dict[str, str] = {}
        """conference id -> its Asterisk"""
        self._calls: dict[str, live.Shot] = {}
        """Of all who are shown. What is shown of a call never changes: each is read once."""
        self._said: dict[str, float] = {}
        """Asterisk -> when it was last told that somebody looks, by our own clock"""
        self._last_id = time.time_ns() // 1_000_000

    def add(self) -> Stream:
        stream = Stream()
        self.streams.add(stream)
        if self._view is not None:
            stream.put(self._event("snapshot", self._view))
        return stream

    async def run(self) -> None:
        """Until it is closed."""
        away = Seldom()
        while not self.closed:
            listening = self._redis.pubsub(ignore_subscribe_messages=True)
            try:
                await self._follow(listening)
            except (RedisError, OSError) as error:
                if away.due():
                    log.warning("changes can't be heard", reason=str(error) or type(error).__name__)
            except Exception as error:
                # It costs this account's streams a moment, and other accounts nothing.
                log.error("an event stream broke: this is a defect of ari_conf, please report it", exc_info=error)
            finally:
                await listening.aclose()
            if self._view is not None:
                self._view = None
                self._tell("away", {})
            await asyncio.sleep(TRY_AGAIN_S)

    async def _follow(self, listening: Any) -> None:
        await listening.subscribe(changes_key(self._auth_id))
        while not listening.subscribed and not self.closed:
            await listening.get_message(timeout=LISTEN_S)
        # First listen, then look: so nothing is missed in between.
        await self._look()
        while not self.closed:
            changed = dict[str, str]()
            wait = LISTEN_S
            while (message := await listening.get_message(timeout=wait)) is not None:
                conference_id, asterisk = holder(message["data"])
                changed[conference_id] = asterisk
                wait = 0.0
            if changed:
                await self._changed(changed)
            await self._say_that_somebody_looks()
            if changed:
                await asyncio.sleep(GATHER_S)

    async def _look(self) -> None:
        names = await self._redis.hgetall(names_key(self._auth_id))
        self._owners, self._calls, self._said = {}, {}, {}
        self._view = await self._read(dict(map(holder, names.values())))
        self._tell("snapshot", self._view)
        await self._say_that_somebody_looks()

    async def _changed(self, changed: dict[str, str]) -> None:
        assert self._view is not None
        found = await self._read(changed)
        view = {key: value for key, value in self._view.items() if key not in changed} | found
        change = live.difference(self._view, view)
        self._view = view
        if change:
            self._tell("change", change)

    async def _read(self, wanted: dict[str, str]) -> live.View:
        shots = []
        for asterisk in set(wanted.values()):
            ids = [conference_id for conference_id, owner in wanted.items() if owner == asterisk]
            found = await member_fields.read(self._redis, state_key(asterisk), ids)
            mine = [shot for text in found if (shot := live.readable(text)) and shot["auth_id"] == self._auth_id]
            await self._read_calls(asterisk, mine)
            shots += mine
        view = live.view((shot, self._calls) for shot in shots)
        for conference_id, asterisk in wanted.items():
            self._owners.pop(conference_id, None)
            if conference_id in view:
                self._owners[conference_id] = asterisk
        self._forget_calls(view, wanted)
        return view

    async def _read_calls(self, asterisk: str, shots: Iterable[live.Shot]) -> None:
        members = {m["call_uuid"] for shot in shots for m in live.present(shot)}
        new = sorted(members - self._calls.keys())
        for first in range(0, len(new), CALLS_AT_ONCE):
            some = new[first : first + CALLS_AT_ONCE]
            texts = await self._redis.hmget(state_key(asterisk), some)
            self._calls |= {key: call for key, text in zip(some, texts, strict=True) if (call := live.call(text))}

    def _forget_calls(self, view: live.View, read: Iterable[str]) -> None:
        others = {key: one for key, one in (self._view or {}).items() if key not in read}
        shown = {m["call_uuid"] for one in (*others.values(), *view.values()) for m in one["members"].values()}
        self._calls = {key: call for key, call in self._calls.items() if key in shown}

    async def _say_that_somebody_looks(self) -> None:
        now = time.monotonic()
        for asterisk in set(self._owners.values()):
            if now - self._said.get(asterisk, float("-inf")) >= RENEW_MS / 1000:
                try:
                    await self._asker.watch(asterisk, self._auth_id, LEASE_MS)
                except RedisError as error:
                    # Said again at the next turn; whether Redis is there is the subscription's to tell.
                    log.warning("talk detection is not asked for", reason=str(error) or type(error).__name__)
                    return
                self._said[asterisk] = now

    def _tell(self, kind: str, what: Any) -> None:
        event = self._event(kind, what)
        for stream in self.streams:
            stream.put(event)

    def _event(self, kind: str, what: Any) -> bytes:
        self._last_id += 1
        return f"id: {self._last_id}\nevent: {kind}\ndata: ".encode() + encode(what) + b"\n\n"


class Feeds:
    """Of this process."""

    def __init__(self, redis: Redis, asker: Asker, most: int) -> None:
        """`most`: streams of an account."""
        self._redis, self._asker, self._most = redis, asker, most
        self.group: asyncio.TaskGroup | None = None
        """Of the process' tasks; there while it runs."""
        self._ended = False
        self._feeds: dict[str, tuple[Feed, asyncio.Task[None]]] = {}

    @property
    def streams(self) -> int:
        return sum(len(feed.streams) for feed, _ in self._feeds.values())

    def open(self, auth_id: str) -> Stream:
        """Raises Refused: 429, 503."""
        if self._ended:
            raise unavailable("this process ends: try again")
        if auth_id not in self._feeds:
            assert self.group is not None, "requests come only while the process runs"
            feed = Feed(self._redis, self._asker, auth_id)
            self._feeds[auth_id] = feed, self.group.create_task(feed.run())
        feed, _ = self._feeds[auth_id]
        if len(feed.streams) >= self._most:
            error = f"more than {self._most} event streams of this account are open: close one"
            raise Refused(429, error, {"Retry-After": str(RETRY_AFTER_S)})
        return feed.add()

    def close(self, auth_id: str, stream: Stream) -> None:
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
        """The process ends: who listens goes to another."""
        self._ended = True
        for feed, _ in self._feeds.values():
            for stream in feed.streams:
                stream.ended.set()
