"""Outbox: the encoding of undelivered callbacks in their partitions, and the view of the partitions for operators."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2s
from itertools import chain, islice
from typing import Any, Literal, NamedTuple, TypeVar
from urllib.parse import urlsplit

import msgspec
from redis import Redis

from ari_conf.core.effects import PostCallback
from ari_conf.core.elements import without_login
from ari_conf.errors import CallbackTooLong
from ari_conf.queues import queue_names
from ari_conf.queues.partitioned_queue import Outcome, prefix
from ari_conf.queues.worker_health import threads_of_live

QUEUE = queue_names.CALLBACKS
DROPPED = "dropped"
"""Field of the counts for entries that found no room; the others are outcomes."""
MAX_BYTES = 64 * 1024
"""Maximum bytes of a callback's entry. A longer one is not sent, and is reported in the account's problems."""
MAX_TRANSCRIPTION_BYTES = 1024 * 1024
"""Maximum bytes of an entry with the transcription of a recording, of up to four hours."""
NO_LIMIT = 1 << 40
MAX_RECEIVERS = 10_000
"""Maximum receivers whose partitions are counted for the metrics."""
MAX_URL_LENGTH = 200
"""Maximum characters of a URL in a problem."""
PartitionState = Literal["ready", "leased", "waiting"]
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
    attempts: tuple[Attempt, ...] = ()
    reason: str | None = None
    """Reason why it is a dead letter, if its attempts do not show it."""

    @property
    def elapsed_ms(self) -> int:
        """Total time of all attempts and the waits between them.

        Not measured by the clock: time in which a worker was stopped does not count against the receiver."""
        return sum(t.ms + t.delay_ms for t in self.attempts)


encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder(CallbackEntry).decode


def _hash(*parts: str) -> str:
    return blake2s("\0".join(parts).encode(), digest_size=8).hexdigest()


def partition_key(callback: PostCallback) -> str:
    """Return ACCOUNT:ORIGIN:HASH; the origin is the receiver. Spec: "The callbacks of one conference to one URL"."""
    parts = urlsplit(callback.url)
    receiver = parts.netloc.rpartition("@")[2].lower()
    return f"{callback.auth_id}:{_hash(parts.scheme, receiver)}:{_hash(callback.ordering_scope, callback.url)}"


def enqueue_item(callback: PostCallback, now_ms: int, max_bytes: int = MAX_BYTES) -> tuple[str, bytes]:
    """Return (partition, JSON) for `partitioned_queue.enqueue`. Raises CallbackTooLong beyond `max_bytes`."""
    entry = encode(CallbackEntry(callback.auth_id, callback.url, callback.method, callback.params, now_ms))
    if len(entry) > max_bytes:
        url = without_login(callback.url.partition("?")[0].partition("#")[0])
        raise CallbackTooLong(
            f"a callback to {url[:MAX_URL_LENGTH]} was dropped: it takes {len(entry)} bytes, at most {max_bytes} are "
            "allowed; shorten what makes it so long, such as a URL or SIP headers"
        )
    return partition_key(callback), entry


@dataclass(frozen=True, slots=True)
class PartitionStatus:
    id: str
    auth_id: str
    url: str
    depth: int
    oldest_ms: int
    """Age of its first callback, in milliseconds."""
    state: PartitionState
    due_in_ms: int = 0
    """Milliseconds until the next attempt in state waiting."""


class PartitionPlace(NamedTuple):
    """Place of a partition in its queue."""

    state: PartitionState
    due_in_ms: int = 0
    """Milliseconds until the next attempt in state waiting."""


class PartitionHead(NamedTuple):
    """Partition, its place and its first entry."""

    partition: str
    place: PartitionPlace
    length: int
    """Number of entries."""
    first_entry: bytes


@dataclass(frozen=True, slots=True)
class QueueTotals:
    waiting: int
    """Undelivered callbacks in all partitions."""
    partitions: int
    workers: int
    """Workers with a lease."""
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
    for head in partition_heads(client, QUEUE, limit):
        try:
            first = decode(head.first_entry)
        except msgspec.MsgspecError:  # the worker logs it
            continue
        age_ms = max(0, now_ms - first.at_ms)
        found.append(PartitionStatus(head.partition, first.auth_id, first.url, head.length, age_ms, *head.place))
    return sorted(found, key=lambda partition: -partition.oldest_ms)


def partition_heads(client: Redis, queue: str, limit: int = 1000) -> list[PartitionHead]:
    """Return the partitions of a queue that have entries; at most `limit` are examined."""
    redis: Any = client  # by redis-py's types, answers could be str as well
    keys, places, found = prefix(queue), _places(redis, queue, limit), []
    for partitions in _chunks(list(places)[:limit], 500):
        pipe = redis.pipeline(transaction=False)
        for partition in partitions:
            pipe.llen(f"{keys}partition:{partition}").lindex(f"{keys}partition:{partition}", 0)
        answers = pipe.execute()
        for partition, length, first_entry in zip(partitions, answers[::2], answers[1::2], strict=True):
            if first_entry is not None:  # otherwise it was emptied in the meantime
                found.append(PartitionHead(partition, places[partition], length, first_entry))
    return found


def partitions_of(client: Redis, queue: str, auth_id: str) -> list[str]:
    """Return an account's partitions of a queue that have entries."""
    redis: Any = client
    found = [one for one in _places(redis, queue, NO_LIMIT) if one.startswith(f"{auth_id}:")]
    lengths = list[int]()
    for some in _chunks(found, 500):
        pipe = redis.pipeline(transaction=False)
        for partition in some:
            pipe.llen(f"{prefix(queue)}partition:{partition}")
        lengths += pipe.execute()
    return [one for one, length in zip(found, lengths, strict=True) if length]


def _places(redis: Any, queue: str, limit: int) -> dict[str, PartitionPlace]:
    """Return the place of each partition, without a scan of all keys: there may be millions of others."""
    keys, now_ms = prefix(queue), _now_ms(redis)
    ready, leased = PartitionPlace("ready"), PartitionPlace("leased")
    places: dict[str, PartitionPlace] = {}

    def add_ready() -> None:
        places.update((partition, ready) for partition in _ready_partitions(redis, queue, limit))

    def add_claimed() -> None:
        for worker in _workers(redis, queue):
            places.update((partition.decode(), leased) for partition in redis.hkeys(f"{keys}claims:{worker}"))

    # In the order in which partitions move: one that moves in the meantime is found twice, but not missed. One whose
    # retry is due moves twice in one script.
    add_ready()
    add_claimed()
    for partition, due_ms in redis.zrange(keys + "delayed", 0, limit - 1, withscores=True):
        places[partition.decode()] = PartitionPlace("waiting", max(0, int(due_ms) - now_ms))
    add_ready()
    add_claimed()
    return places


def totals(client: Redis, queue: str = QUEUE) -> QueueTotals:
    """Return the totals of a queue. For recordings and transcriptions, `delivered` counts finished jobs."""
    redis: Any = client
    keys, number, waiting = prefix(queue), 0, 0
    for partitions in _chunks(_places(redis, queue, NO_LIMIT), 500):
        pipe = redis.pipeline(transaction=False)
        for partition in partitions:
            pipe.llen(f"{keys}partition:{partition}")
        lengths = pipe.execute()
        number, waiting = number + sum(1 for length in lengths if length), waiting + sum(lengths)
    threads = threads_of_live(client, queue).values()
    outcomes = _outcome_counts(redis.hgetall(keys + "counts"))
    return QueueTotals(waiting, number, len(threads), sum(threads), *outcomes)


def counted(client: Redis, queue: str = QUEUE) -> QueueTotals:
    """Return the totals from running counters, at a cost that does not grow with the number of queued entries.

    Of more than MAX_RECEIVERS receivers, the partitions of the others are left out."""
    redis: Any = client
    keys = prefix(queue)
    pipe = redis.pipeline(transaction=False)
    pipe.zcard(keys + "delayed").hgetall(keys + "counts").hvals(keys + "entries")
    partitions, counts, entries = pipe.execute()
    threads = threads_of_live(client, queue).values()
    for worker in _workers(redis, queue):
        pipe.hlen(f"{keys}claims:{worker}")
    partitions += sum(pipe.execute())
    for receivers in _chunks(islice(_ready_receivers(redis, queue), MAX_RECEIVERS), 500):
        for receiver in receivers:
            pipe.llen(f"{keys}ready:{receiver}")
        partitions += sum(pipe.execute())
    # In the other queues each partition has one entry.
    waiting = sum(map(int, entries)) if queue == QUEUE else partitions
    return QueueTotals(waiting, partitions, len(threads), sum(threads), *_outcome_counts(counts))


def _outcome_counts(counts: dict[bytes, bytes]) -> tuple[int, int, int, int]:
    """Return the numbers of delivered, retried, dead-lettered and dropped entries."""
    delivered, retried, dead, dropped = (
        int(counts.get(outcome.encode(), 0)) for outcome in (Outcome.ACK, Outcome.RETRY, Outcome.DEAD_LETTER, DROPPED)
    )
    return delivered, retried, dead, dropped


def _now_ms(redis: Redis) -> int:
    seconds, micros = redis.time()
    return seconds * 1000 + micros // 1000


def _workers(redis: Any, queue: str) -> list[str]:
    return [worker.decode() for worker in redis.zrange(prefix(queue) + "workers", 0, -1)]


def _ready_partitions(redis: Any, queue: str, limit: int) -> Iterator[str]:
    keys = prefix(queue)
    for receivers in _chunks(_ready_receivers(redis, queue), 100):
        pipe = redis.pipeline(transaction=False)
        for receiver in receivers:
            pipe.lrange(f"{keys}ready:{receiver}", 0, limit - 1)
        for partition in chain.from_iterable(pipe.execute()):
            yield partition.decode()
            limit -= 1
            if limit <= 0:
                return


def _ready_receivers(redis: Any, queue: str) -> Iterator[str]:
    """Yield the receivers with ready partitions."""
    keys = prefix(queue)
    for account in redis.lrange(keys + "accounts", 0, -1):
        for receiver in redis.lrange(f"{keys}receivers:{account.decode()}", 0, -1):
            yield receiver.decode()


def _chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    chunk: list[T] = []
    for item in items:
        chunk.append(item)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
