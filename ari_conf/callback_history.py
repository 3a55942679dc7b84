"""How an account's callbacks stand: those that wait in their lanes, the newest delivered ones, dead letters."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from redis import Redis

from ari_conf import dead_letters
from ari_conf.lanes import prefix
from ari_conf.outbox import QUEUE, Entry, decode

State = Literal["waiting", "trying", "delivered", "dead"]

MOST_LANES, MOST_OF_A_LANE, MOST_DEAD = 2000, 200, 1000
"""Looked at, so that a page of them costs a few milliseconds whatever waits."""
KEPT_MS = 7 * 24 * 3600 * 1000
"""For how long a delivered one is: who looks for it does so soon, and it holds phone numbers."""


@dataclass(frozen=True, slots=True)
class Callback:
    state: State
    entry: Entry
    next_try_ms: int | None = None
    """trying: when. None: now."""
    letter_id: str | None = None
    """dead: which letter it is."""

    @property
    def conference_uuid(self) -> str:
        return dict(self.entry.params).get("ConferenceUUID", "")


def listed(
    redis: Redis, auth_id: str, conference_uuid: str | None, limit: int, offset: int
) -> tuple[int, list[Callback]]:
    """(how many there are, some of them), the newest first; with a conference only those about it."""
    found = [*_waiting(redis, auth_id), *_delivered(redis, auth_id), *_dead(redis, auth_id)]
    if conference_uuid is not None:
        found = [one for one in found if one.conference_uuid == conference_uuid]
    found.sort(key=lambda one: -one.entry.at_ms)
    return len(found), found[offset : offset + limit]


def _delivered(redis: Any, auth_id: str) -> Iterator[Callback]:
    for text in redis.lrange(f"{prefix(QUEUE)}delivered:{auth_id}", 0, -1):
        yield Callback("delivered", decode(text))


def _dead(redis: Redis, auth_id: str) -> Iterator[Callback]:
    for letter in dead_letters.listed(redis, auth_id, MOST_DEAD):
        yield Callback("dead", letter.entry, letter_id=letter.id)


def _waiting(redis: Any, auth_id: str) -> Iterator[Callback]:
    keys = prefix(QUEUE)
    lanes = _lanes(redis, auth_id)
    pipe = redis.pipeline(transaction=False)
    for lane in lanes:
        pipe.lrange(f"{keys}lane:{lane}", 0, MOST_OF_A_LANE - 1)
    for due_ms, texts in zip(lanes.values(), pipe.execute(), strict=True):
        for place, text in enumerate(texts):
            entry = decode(text)
            if place == 0 and entry.tries:
                yield Callback("trying", entry, due_ms)
            else:
                yield Callback("waiting", entry)


def _lanes(redis: Any, auth_id: str) -> dict[str, int | None]:
    """Those of the account, wherever they are -> when the first of each is due; None: now."""
    keys = prefix(QUEUE)
    found: dict[str, int | None] = {}
    for lane, due in redis.zscan_iter(keys + "waiting", match=f"{auth_id}:*", count=1000):
        found[lane.decode()] = int(due)
        if len(found) >= MOST_LANES:
            return found
    flows = [flow.decode() for flow in redis.lrange(f"{keys}flows:{auth_id}", 0, -1)]
    pipe = redis.pipeline(transaction=False)
    for flow in flows:
        pipe.lrange(f"{keys}ready:{flow}", 0, MOST_LANES - 1)
    for worker in redis.zrange(keys + "workers", 0, -1):
        pipe.hkeys(f"{keys}held:{worker.decode()}")
    for some in pipe.execute():
        for lane in some:
            if lane.startswith(f"{auth_id}:".encode()):
                found.setdefault(lane.decode(), None)
    return dict(list(found.items())[:MOST_LANES])
