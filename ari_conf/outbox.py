"""The callbacks that wait: how one is kept in its lane, and what an operator sees of the lanes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2s
from itertools import chain, islice
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit

import msgspec
from redis import Redis

from ari_conf.core.effects import PostCallback
from ari_conf.core.elements import without_login
from ari_conf.errors import CallbackTooLong
from ari_conf.lanes import prefix

QUEUE = "callbacks"
MOST_BYTES = 64 * 1024
"""Of a callback's entry. A longer one is not sent, which is told in the account's problems."""
MOST_TRANSCRIPTION_BYTES = 1024 * 1024
"""Of one that brings what was said in a recording, of up to four hours."""
ALL = 1 << 40
MOST_FLOWS = 10_000
"""Whose lanes are counted for the metrics."""
SHOWN = 200
"""Characters of a URL that are told."""
Place = tuple[Literal["ready", "leased", "waiting"], int]
"""Where a lane is; if it waits, in how many ms it is due."""
T = TypeVar("T")


class Try(msgspec.Struct, frozen=True, omit_defaults=True):
    """As `http.retry.Outcome` has it."""

    at_ms: int
    ms: int
    status: int = 0
    """0: there was no answer; then `error` says what happened."""
    error: str = ""
    delay_ms: int = 0
    """How long was to be waited after it."""


class Entry(msgspec.Struct, frozen=True, omit_defaults=True):
    """A callback in its lane, as JSON."""

    auth_id: str
    url: str
    method: str
    params: tuple[tuple[str, str], ...]
    at_ms: int
    tries: tuple[Try, ...] = ()
    reason: str | None = None
    """Why it is a dead letter, if its tries don't tell."""

    @property
    def elapsed_ms(self) -> int:
        """Over all tries and the waits between them. Not by the clock: if we were stopped, he isn't to blame."""
        return sum(t.ms + t.delay_ms for t in self.tries)


encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder(Entry).decode


def _hash(*parts: str) -> str:
    return blake2s("\0".join(parts).encode(), digest_size=8).hexdigest()


def lane_id(callback: PostCallback) -> str:
    """ACCOUNT:ORIGIN:LANE. "The callbacks of one conference to one URL"; the origin is who receives them."""
    parts = urlsplit(callback.url)
    receiver = parts.netloc.rpartition("@")[2].lower()
    return f"{callback.auth_id}:{_hash(parts.scheme, receiver)}:{_hash(callback.lane, callback.url)}"


def entry(callback: PostCallback, now_ms: int, most_bytes: int = MOST_BYTES) -> tuple[str, bytes]:
    """(lane, JSON), as `lanes.enqueue` takes them. Raises CallbackTooLong."""
    kept = encode(Entry(callback.auth_id, callback.url, callback.method, callback.params, now_ms))
    if len(kept) > most_bytes:
        url = without_login(callback.url.partition("?")[0].partition("#")[0])
        raise CallbackTooLong(
            f"a callback to {url[:SHOWN]} was dropped: it takes {len(kept)} bytes, {most_bytes} are allowed; "
            "see what makes it so long, such as a URL or SIP headers"
        )
    return lane_id(callback), kept


@dataclass(frozen=True, slots=True)
class Lane:
    id: str
    auth_id: str
    url: str
    depth: int
    oldest_ms: int
    """Age of the first callback in it."""
    state: Literal["ready", "leased", "waiting"]
    due_in_ms: int = 0
    """waiting: until the next try."""


@dataclass(frozen=True, slots=True)
class Totals:
    waiting: int
    """Callbacks not delivered yet, in all lanes."""
    lanes: int
    workers: int
    threads: int
    delivered: int
    retried: int
    dead: int
    """Since ever: how many became dead letters."""
    dropped: int = 0
    """Since ever: how many found no room in their lane, or of their account."""


def overview(client: Redis, limit: int = 1000) -> list[Lane]:
    """The lanes, the one that waits for longest first; `limit` bounds how many are looked at."""
    now_ms, found = _now_ms(client), []
    for lane, (state, due), depth, head in heads(client, QUEUE, limit):
        try:
            first = decode(head)
        except msgspec.MsgspecError:  # its worker says so
            continue
        found.append(Lane(lane, first.auth_id, first.url, depth, max(0, now_ms - first.at_ms), state, due))
    return sorted(found, key=lambda lane: -lane.oldest_ms)


def heads(client: Redis, queue: str, limit: int = 1000) -> list[tuple[str, Place, int, bytes]]:
    """(lane, where it is, how many entries it has, the first of them) of the lanes of a queue."""
    redis: Any = client  # as typed by redis-py, answers could be str as well
    keys, places, found = prefix(queue), _places(redis, queue, limit), []
    for some in _chunks(list(places)[:limit], 500):
        pipe = redis.pipeline(transaction=False)
        for lane in some:
            pipe.llen(f"{keys}lane:{lane}").lindex(f"{keys}lane:{lane}", 0)
        answers = pipe.execute()
        for lane, depth, head in zip(some, answers[::2], answers[1::2], strict=True):
            if head is not None:  # else it was emptied meanwhile
                found.append((lane, places[lane], depth, head))
    return found


def _places(redis: Any, queue: str, limit: int) -> dict[str, Place]:
    """Where each lane is. Never by looking through all keys: there may be millions of others."""
    keys, now_ms = prefix(queue), _now_ms(redis)
    places: dict[str, Place] = {}
    # In the order in which a lane goes from one to the next: one that moves meanwhile is met again, not missed.
    places.update((lane, ("ready", 0)) for lane in _ready(redis, queue, limit))
    for worker in _workers(redis, queue):
        places.update((lane.decode(), ("leased", 0)) for lane in redis.hkeys(f"{keys}held:{worker}"))
    for lane, due in redis.zrange(keys + "waiting", 0, limit - 1, withscores=True):
        places[lane.decode()] = ("waiting", max(0, int(due) - now_ms))
    places.update((lane, ("ready", 0)) for lane in _ready(redis, queue, limit))
    return places


def totals(client: Redis, queue: str = QUEUE) -> Totals:
    """Of a queue: in those of recordings and transcriptions "delivered" are those that are done."""
    redis: Any = client
    keys, lanes, waiting = prefix(queue), 0, 0
    for some in _chunks(_places(redis, queue, ALL), 500):
        pipe = redis.pipeline(transaction=False)
        for lane in some:
            pipe.llen(f"{keys}lane:{lane}")
        depths = pipe.execute()
        lanes, waiting = lanes + sum(1 for depth in depths if depth), waiting + sum(depths)
    counts = {word.decode(): int(count) for word, count in redis.hgetall(keys + "counts").items()}
    threads = [int(n) for n in redis.hvals(keys + "threads")]
    words = (counts.get(word, 0) for word in ("done", "retry", "dead", "dropped"))
    return Totals(waiting, lanes, len(threads), sum(threads), *words)


def counted(client: Redis, queue: str = QUEUE) -> Totals:
    """As `totals`, at a cost that doesn't grow with what waits: by what is counted all along. Of more than MOST_FLOWS
    receivers the lanes of the others are left out."""
    redis: Any = client
    keys = prefix(queue)
    pipe = redis.pipeline(transaction=False)
    pipe.zcard(keys + "waiting").hgetall(keys + "counts").hvals(keys + "threads").hvals(keys + "entries")
    lanes, counts, threads, entries = pipe.execute()
    workers = _workers(redis, queue)
    for worker in workers:
        pipe.hlen(f"{keys}held:{worker}")
    lanes += sum(pipe.execute())
    for some in _chunks(islice(_flows(redis, queue), MOST_FLOWS), 500):
        for flow in some:
            pipe.llen(f"{keys}ready:{flow}")
        lanes += sum(pipe.execute())
    # In the other queues each lane has one entry.
    waiting = sum(map(int, entries)) if queue == QUEUE else lanes
    known = {word.decode(): int(count) for word, count in counts.items()}
    words = (known.get(word, 0) for word in ("done", "retry", "dead", "dropped"))
    return Totals(waiting, lanes, len(threads), sum(map(int, threads)), *words)


def _now_ms(redis: Redis) -> int:
    seconds, micros = redis.time()
    return seconds * 1000 + micros // 1000


def _workers(redis: Any, queue: str) -> list[str]:
    return [worker.decode() for worker in redis.zrange(prefix(queue) + "workers", 0, -1)]


def _ready(redis: Any, queue: str, limit: int) -> Iterator[str]:
    keys = prefix(queue)
    for some in _chunks(_flows(redis, queue), 100):
        pipe = redis.pipeline(transaction=False)
        for flow in some:
            pipe.lrange(f"{keys}ready:{flow}", 0, limit - 1)
        for lane in chain.from_iterable(pipe.execute()):
            yield lane.decode()
            limit -= 1
            if limit <= 0:
                return


def _flows(redis: Any, queue: str) -> Iterator[str]:
    """Those with ready lanes."""
    keys = prefix(queue)
    for account in redis.lrange(keys + "accounts", 0, -1):
        for flow in redis.lrange(f"{keys}flows:{account.decode()}", 0, -1):
            yield flow.decode()


def _chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    chunk: list[T] = []
    for item in items:
        chunk.append(item)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
