"""Outbox: the encoding of undelivered callbacks in their partitions, and the view of the partitions for operators."""

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
from ari_conf.queues.partitioned_queue import prefix

QUEUE = "callbacks"
MOST_BYTES = 64 * 1024
"""Maximum bytes of a callback's entry. A longer one is not sent, and is reported in the account's problems."""
MOST_TRANSCRIPTION_BYTES = 1024 * 1024
"""Maximum bytes of an entry with the transcription of a recording, of up to four hours."""
ALL = 1 << 40
MOST_FLOWS = 10_000
"""Maximum receivers whose partitions are counted for the metrics."""
SHOWN = 200
"""Maximum characters of a URL in a problem."""
PartitionState = tuple[Literal["ready", "leased", "waiting"], int]
"""Place of a partition; if it is waiting, milliseconds until it is due."""
T = TypeVar("T")


class Attempt(msgspec.Struct, frozen=True, omit_defaults=True):
    """Attempt to deliver a callback, from `http_client.retry_policy.AttemptOutcome`."""

    at_ms: int
    ms: int
    status: int = 0
    """HTTP status; 0 without a response, and `error` then says what happened."""
    error: str = ""
    delay_ms: int = 0
    """Milliseconds of the wait after the attempt."""


class CallbackEntry(msgspec.Struct, frozen=True, omit_defaults=True):
    """Callback in its partition, stored as JSON."""

    auth_id: str
    url: str
    method: str
    params: tuple[tuple[str, str], ...]
    at_ms: int
    tries: tuple[Attempt, ...] = ()
    reason: str | None = None
    """Reason why it is a dead letter, if its attempts do not show it."""

    @property
    def elapsed_ms(self) -> int:
        """Total time of all attempts and the waits between them.

        Not measured by the clock: time in which a worker was stopped does not count against the receiver."""
        return sum(t.ms + t.delay_ms for t in self.tries)


encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder(CallbackEntry).decode


def _hash(*parts: str) -> str:
    return blake2s("\0".join(parts).encode(), digest_size=8).hexdigest()


def partition_key(callback: PostCallback) -> str:
    """Return ACCOUNT:ORIGIN:LANE; the origin is the receiver. Spec: "The callbacks of one conference to one URL"."""
    parts = urlsplit(callback.url)
    receiver = parts.netloc.rpartition("@")[2].lower()
    return f"{callback.auth_id}:{_hash(parts.scheme, receiver)}:{_hash(callback.ordering_scope, callback.url)}"


def enqueue_item(callback: PostCallback, now_ms: int, most_bytes: int = MOST_BYTES) -> tuple[str, bytes]:
    """Return (partition, JSON) for `partitioned_queue.enqueue`. Raises CallbackTooLong beyond `most_bytes`."""
    kept = encode(CallbackEntry(callback.auth_id, callback.url, callback.method, callback.params, now_ms))
    if len(kept) > most_bytes:
        url = without_login(callback.url.partition("?")[0].partition("#")[0])
        raise CallbackTooLong(
            f"a callback to {url[:SHOWN]} was dropped: it takes {len(kept)} bytes, at most {most_bytes} are allowed; "
            "shorten what makes it so long, such as a URL or SIP headers"
        )
    return partition_key(callback), kept


@dataclass(frozen=True, slots=True)
class PartitionStatus:
    id: str
    auth_id: str
    url: str
    depth: int
    oldest_ms: int
    """Age of its first callback, in milliseconds."""
    state: Literal["ready", "leased", "waiting"]
    due_in_ms: int = 0
    """Milliseconds until the next attempt in state waiting."""


@dataclass(frozen=True, slots=True)
class QueueTotals:
    waiting: int
    """Undelivered callbacks in all partitions."""
    lanes: int
    workers: int
    threads: int
    delivered: int
    retried: int
    dead: int
    """Callbacks that became dead letters, since Redis was set up."""
    dropped: int = 0
    """Callbacks that were dropped because their partition or account had no room, since Redis was set up."""


def list_partitions(client: Redis, limit: int = 1000) -> list[PartitionStatus]:
    """Return the partitions, the one with the oldest callback first; at most `limit` are examined."""
    now_ms, found = _now_ms(client), []
    for lane, (state, due), depth, head in partition_heads(client, QUEUE, limit):
        try:
            first = decode(head)
        except msgspec.MsgspecError:  # the worker logs it
            continue
        found.append(PartitionStatus(lane, first.auth_id, first.url, depth, max(0, now_ms - first.at_ms), state, due))
    return sorted(found, key=lambda lane: -lane.oldest_ms)


def partition_heads(client: Redis, queue: str, limit: int = 1000) -> list[tuple[str, PartitionState, int, bytes]]:
    """Return (partition, its place, number of entries, first entry) for the partitions of a queue."""
    redis: Any = client  # by redis-py's types, answers could be str as well
    keys, places, found = prefix(queue), _places(redis, queue, limit), []
    for some in _chunks(list(places)[:limit], 500):
        pipe = redis.pipeline(transaction=False)
        for lane in some:
            pipe.llen(f"{keys}lane:{lane}").lindex(f"{keys}lane:{lane}", 0)
        answers = pipe.execute()
        for lane, depth, head in zip(some, answers[::2], answers[1::2], strict=True):
            if head is not None:  # otherwise it was emptied in the meantime
                found.append((lane, places[lane], depth, head))
    return found


def _places(redis: Any, queue: str, limit: int) -> dict[str, PartitionState]:
    """Return the place of each partition, without a scan of all keys: there may be millions of others."""
    keys, now_ms = prefix(queue), _now_ms(redis)
    places: dict[str, PartitionState] = {}
    # In the order in which partitions move: one that moves in the meantime is found twice, but not missed.
    places.update((lane, ("ready", 0)) for lane in _ready(redis, queue, limit))
    for worker in _workers(redis, queue):
        places.update((lane.decode(), ("leased", 0)) for lane in redis.hkeys(f"{keys}held:{worker}"))
    for lane, due in redis.zrange(keys + "waiting", 0, limit - 1, withscores=True):
        places[lane.decode()] = ("waiting", max(0, int(due) - now_ms))
    places.update((lane, ("ready", 0)) for lane in _ready(redis, queue, limit))
    return places


def totals(client: Redis, queue: str = QUEUE) -> QueueTotals:
    """Return the totals of a queue. For recordings and transcriptions, `delivered` counts finished jobs."""
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
    return QueueTotals(waiting, lanes, len(threads), sum(threads), *words)


def counted(client: Redis, queue: str = QUEUE) -> QueueTotals:
    """Return the totals from running counters, at a cost that does not grow with the number of queued entries.

    Of more than MOST_FLOWS receivers, the partitions of the others are left out."""
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
    # In the other queues each partition has one entry.
    waiting = sum(map(int, entries)) if queue == QUEUE else lanes
    known = {word.decode(): int(count) for word, count in counts.items()}
    words = (known.get(word, 0) for word in ("done", "retry", "dead", "dropped"))
    return QueueTotals(waiting, lanes, len(threads), sum(map(int, threads)), *words)


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
    """Yield the receivers with ready partitions."""
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
