"""Removals: accounts that are being removed, or were removed and left data.

| key | content |
|---|---|
| ari_conf:removals | hash, auth id -> JSON: what was asked, how far it is, and the account's record |

From the beginning of its removal, an account exists for nobody: it is no longer in `accounts.KEY`, so that new calls,
the API and the dashboard refuse it. Its record signs the requests of its last calls until the last callback is out.
`administration.removal` decides, and a worker carries it out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, cast

import msgspec
import structlog
from redis import Redis

from ari_conf.errors import AccountUnreadable
from ari_conf.queues import partitioned_queue, queue_names
from ari_conf.store import accounts
from ari_conf.store.accounts import AccountRecord

log = structlog.get_logger()

KEY = accounts.REMOVALS_KEY
QUEUE = queue_names.REMOVALS
Calls = Literal["end", "keep"]
Phase = Literal["calls", "callbacks", "data", "removed"]
"""calls: until no call is left. callbacks: until the last callbacks are out. data: while data is deleted. removed: the
account no longer exists, but data of it does."""


class Remains(msgspec.Struct, frozen=True, omit_defaults=True):
    """Numbers of things that an account still has."""

    calls: int = 0
    """Live calls."""
    conferences: int = 0
    """Live conferences."""
    callbacks: int = 0
    """Callbacks that are not delivered yet."""
    recordings: int = 0
    """Stored recordings."""
    recording_jobs: int = 0
    """Recordings that are to be stored or transcribed."""
    delivered_callbacks: int = 0
    dead_letters: int = 0
    """Callbacks, recordings and transcriptions that were given up."""
    problems: int = 0
    history_entries: int = 0
    """Entries of the history, in the database or on their way to it."""

    @property
    def is_live(self) -> bool:
        """True while the account has calls or conferences."""
        return bool(self.calls or self.conferences)

    def counted(self) -> dict[str, int]:
        """Return the numbers that are not 0, by name."""
        return {name: number for name, number in msgspec.structs.asdict(self).items() if number}

    def described(self) -> str:
        """Return them as words: "3 recordings, 1 dead letter"."""
        found = [(name.replace("_", " "), number) for name, number in self.counted().items()]
        return ", ".join(
            f"{number} {name if number > 1 else name.removesuffix('s').replace('entrie', 'entry')}"
            for name, number in found
        )


class Removal(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    auth_id: str
    record: AccountRecord | None
    """Record of the account, which signs; None: it could not be read, or the last callbacks are out."""
    calls: Calls
    """end: hang up its calls. keep: wait until they end by themselves."""
    purge: bool = False
    """True: its data is deleted."""
    phase: Phase = "calls"
    began_ms: int
    phase_ms: int
    """Epoch milliseconds of the beginning of the phase, by Redis' clock."""
    total: Remains = Remains()
    """Things that were there at the beginning."""
    left: Remains = Remains()
    """Things that were left when a worker last looked."""
    error: str = ""
    """Reason why the last attempt could not continue; empty: it did."""

    def __repr__(self) -> str:
        # Tokens never get into a log.
        return f"Removal({self.auth_id}, {self.phase})"


class RemovalJob(msgspec.Struct, frozen=True, omit_defaults=True):
    """Entry of the queue: the removal itself is in its hash."""

    auth_id: str
    at_ms: int
    attempts: int = 0


encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Removal).decode
Also = Callable[[Any], None]
"""Function that adds commands to the transaction, such as the entry of the audit log."""


def decode(auth_id: str, found: bytes) -> Removal:
    """Raises AccountUnreadable."""
    try:
        return _decode(found)
    except ValueError as error:
        raise AccountUnreadable(f"the removal of account {auth_id} in Redis could not be read ({error})") from error


def get(redis: Redis, auth_id: str) -> Removal | None:
    """Return the removal of an account; None if it is not being removed. Raises AccountUnreadable."""
    found = cast("bytes | None", redis.hget(KEY, auth_id))
    return decode(auth_id, found) if found else None


def record_of(found: bytes | None) -> AccountRecord | None:
    """Return the record that a removal keeps for signing; None without one, or if it can't be read."""
    try:
        return _decode(found).record if found else None
    except ValueError:
        return None


def signer(redis: Redis, auth_id: str) -> AccountRecord | None:
    """Return the account whose tokens sign requests, also while it is being removed; None if nothing can sign.

    Raises AccountUnreadable."""
    pipe: Any = redis.pipeline(transaction=False)
    kept, removed, time = pipe.hget(accounts.KEY, auth_id).hget(KEY, auth_id).time().execute()
    record = accounts.read(auth_id, kept) if kept else record_of(removed)
    return record.current(time[0] * 1000) if record is not None else None


def begin(
    redis: Redis, auth_id: str, make: Callable[[AccountRecord | None, Removal | None], Removal], also: Also
) -> Removal:
    """Begin a removal, or change one, and queue it. `make` gets the account's record, or the removal to change.

    Raises AccountError if neither exists."""

    def transaction(pipe: Any) -> Any:
        kept, found = pipe.hget(accounts.KEY, auth_id), pipe.hget(KEY, auth_id)
        if not kept and not found:
            raise accounts.does_not_exist(auth_id)
        removal = make(_record_or_none(auth_id, kept), decode(auth_id, found) if found else None)
        pipe.multi()
        pipe.hdel(accounts.KEY, auth_id)
        pipe.hset(KEY, auth_id, encode(removal))
        entry = msgspec.json.encode(RemovalJob(auth_id, removal.phase_ms))
        partitioned_queue.enqueue(pipe, [(partition(auth_id), entry)], QUEUE)
        also(pipe)
        return removal

    return cast(Removal, redis.transaction(transaction, accounts.KEY, KEY, value_from_callable=True))


def _record_or_none(auth_id: str, kept: bytes | None) -> AccountRecord | None:
    try:
        return accounts.read(auth_id, kept) if kept else None
    except AccountUnreadable as error:
        log.error("account record unreadable", auth_id=auth_id, reason=str(error))
        return None


def partition(auth_id: str) -> str:
    """Return ACCOUNT:ORIGIN:HASH, so that the attempts at one removal follow one another."""
    return f"{auth_id}:-:-"


def change(
    redis: Redis, auth_id: str, changed: Callable[[Removal], Removal | None], also: Also | None
) -> Removal | None:
    """Replace a removal by what `changed` returns; None deletes it. Return None if it does not exist."""

    def transaction(pipe: Any) -> Any:
        found = pipe.hget(KEY, auth_id)
        if not found:
            pipe.multi()
            return None
        removal = changed(decode(auth_id, found))
        pipe.multi()
        if removal is None:
            pipe.hdel(KEY, auth_id)
        else:
            pipe.hset(KEY, auth_id, encode(removal))
        if also is not None:
            also(pipe)
        return removal

    return cast("Removal | None", redis.transaction(transaction, KEY, value_from_callable=True))


def is_purged(redis: Redis, auth_id: str) -> bool:
    """Return whether the account is being removed together with its data."""
    try:
        removal = get(redis, auth_id)
    except AccountUnreadable:
        return False
    return removal is not None and removal.purge
