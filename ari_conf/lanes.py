"""Lanes in Redis: what must be done in order, handed out fairly to a fleet of workers, one entry of a lane at a time.

A lane is a Redis list. Its head stays there until it is done. A lane that isn't empty is in exactly one place:

    ready:FLOW     a list: waits for a thread         FLOW = ACCOUNT:ORIGIN, the lanes of one account to one receiver
    held:WORKER    a hash lane -> token: being served by a thread of that worker
    waiting        a sorted set by time: to be tried again then

`accounts` are those with ready flows, `flows:ACCOUNT` those with ready lanes: both go round, so that each gets its turn
after every single entry. `failing:FLOW` and `failing:ACCOUNT` say what came to nothing lately: such a flow's lanes stay
ready, and are handed out more seldom (docs/callbacks.md, "When a receiver fails again and again"). `workers` holds each
worker's lease: what a worker without one holds is ready again. `spoiled` says that something else stood in the place of
one of these keys: the next beat rebuilds them. The clock is Redis' own, since workers run on any number of machines.

Every script may be asked again after a lost answer: what is done is named by its token, which then holds no more.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, cast

from redis import Redis
from redis.commands.core import Script
from redis.exceptions import NoScriptError

from ari_conf import lane_scripts

PREFIX = "ari_conf:"
CELERYS_PREFIX = PREFIX + "celery:"
"""Of all of Celery's keys and channels, so that an ACL of Redis' can name whatever is ours by PREFIX alone."""
LEASE_MS = 6_000
SURE_MS = 4_500
"""How much of a lease is left after each turn: one that finds as much doesn't renew it."""
BEAT_MS = 1_000
TOKEN_MS = 2_000
"""A token that no worker took up for so long is lost."""


@dataclass(frozen=True, slots=True)
class Taken:
    lane: str
    token: int
    entry: bytes
    given_up: bool = False
    """Its receiver has failed for so long that it isn't waited for: nothing is sent now."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of the entry that `taken` holds, by one of the functions below."""

    taken: Taken
    word: str
    arguments: tuple[bytes | str | int, ...] = field(default=())
    wasted: int = 0
    """Requests that came to nothing; below 0: as many of those before are forgotten."""


def done(taken: Taken, entry: bytes = b"", kept: int = 0, kept_ms: int = 1, *, wasted: int = 0) -> Verdict:
    """With an entry: it is shown among the account's newest `kept` that are done, for `kept_ms` after the last."""
    return Verdict(taken, "done", (entry, kept, kept_ms) if entry and kept else (), wasted)


def back(taken: Taken) -> Verdict:
    """It was not tried; another may."""
    return Verdict(taken, "back")


def retry(taken: Taken, entry: bytes, delay_ms: int, *, wasted: int = 0) -> Verdict:
    return Verdict(taken, "retry", (entry, delay_ms), wasted)


def dead(
    taken: Taken,
    entry: bytes,
    kept: int,
    kept_ms: int,
    told: tuple[str, bytes, int] | None = None,
    *,
    wasted: int = 0,
) -> Verdict:
    """Out of the lane, to the account's dead letters: the newest `kept` of them, for `kept_ms`.

    In the same step `told`, a problem: the list's key, the problem as JSON, and how many are kept.
    """
    return Verdict(taken, "dead", (entry, kept, kept_ms, *(told or ())), wasted)


class Lanes:
    """The lanes of one Celery queue. Each method is one round trip and raises redis.RedisError."""

    def __init__(self, redis: Redis, queue: str = "callbacks") -> None:
        self.redis = redis
        self.prefix = prefix(queue)
        self._own = threading.local()
        self._turn = redis.register_script(lane_scripts.TURN)
        self._beat = redis.register_script(lane_scripts.BEAT)
        self._tokens = redis.register_script(lane_scripts.TOKENS)
        self._resend = redis.register_script(lane_scripts.RESEND)

    def turn(
        self, worker: str, threads: int, token: int | None, verdict: Verdict | None = None, came: str = ""
    ) -> Taken | None:
        """Tells what became of one entry, and takes the next as `token`: this worker's numbers, each above the last.

        `came`: one of `tokens` that somebody came for. None: this worker may take nothing now. A verdict on a lane that
        it holds no more changes nothing.
        """
        told: tuple[str | bytes | int, ...] = ("", "", "", SURE_MS, 0)
        if verdict:
            taken = verdict.taken
            told = (taken.lane, taken.token, verdict.word, SURE_MS, verdict.wasted, *verdict.arguments)
        answer = self._asked(self._turn, worker, threads, "" if token is None else token, LEASE_MS, came, *told)
        if not answer or token is None:
            return None
        lane, entry, given_up = answer
        return Taken(lane.decode(), token, entry, bool(given_up))

    def _asked(self, script: Script, *arguments: str | bytes | int) -> Any:
        """As `script(...)`, over a connection that this thread keeps: that takes a third of its time."""
        connection = getattr(self._own, "connection", None)
        if connection is None:
            connection = self._own.connection = self._connection()
        try:
            connection.send_command("EVALSHA", script.sha, 1, self.prefix, *arguments)
            return connection.read_response()
        except NoScriptError:
            return script([self.prefix], arguments)
        except BaseException:
            connection.disconnect()  # an answer that comes late must not be the next one's
            raise

    def _connection(self) -> Any:
        pool = self.redis.connection_pool
        return pool.connection_class(**pool.connection_kwargs)

    def beat(self, worker: str, threads: int, serving: Iterable[int], last: int, *, reclaim: bool) -> int:
        """Renews the worker's lease. What it holds under a token up to `last` that it isn't `serving` is ready again:
        an answer was lost. With `reclaim` also what workers without a lease hold. Returns how many lanes."""
        return cast(int, self._beat([self.prefix], [worker, threads, LEASE_MS, last, int(reclaim), *serving]))

    def leave(self, worker: str) -> None:
        """The worker ends: what it holds is ready for others at once."""
        self._beat([self.prefix], [worker, 0, 0, 0, 0])

    def tokens(self, most: int = 1000) -> list[str]:
        """Counts as on their way, and returns, as many new tokens as free threads are worth starting now."""
        return [token.decode() for token in cast("list[bytes]", self._tokens([self.prefix], [most, TOKEN_MS]))]

    def resend(self, auth_id: str, letters: Iterable[tuple[str, bytes]], *, pace_ms: int = 0, before: int = 0) -> int:
        """Moves each dead letter (id, entry) to the end of its lane. Returns how many there still were. With a pace a
        lane that was empty begins so much later than the one before it; `before`: how many were sent already."""
        flat: list[str | bytes] = [part for letter in letters for part in letter]
        return cast(int, self._resend([self.prefix], [auth_id, pace_ms, before, *flat]))


def prefix(queue: str) -> str:
    return f"{PREFIX}{queue}:"


def enqueue(redis: Any, entries: Iterable[tuple[str, bytes]], queue: str = "callbacks") -> Any:
    """Appends (lane, entry) pairs; `redis` may be a pipeline, sync or async. EVAL, since in a transaction there is no
    second try for a script that a restarted Redis doesn't know."""
    flat = [part for entry in entries for part in entry]
    return redis.eval(lane_scripts.ENQUEUE, 1, prefix(queue), *flat)
