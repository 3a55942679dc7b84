"""State store: the server's access to accounts, state of calls and conferences, names, problems and outbox in Redis.

The server writes to Redis, and never reads it to make a decision. The one exception is the claim of a name, which is
one atomic script.

| key | content |
|---|---|
| ari_conf:accounts | hash, auth id -> account |
| ari_conf:removals | see `store.removals` |
| ari_conf:state:ASTERISK | hash, UUID of a call or conference -> its JSON |
| ari_conf:members:CONFERENCE | see `store.members` |
| ari_conf:names:ACCOUNT | hash, conference name -> "conference_id owner" |
| ari_conf:problems:ACCOUNT | list of JSON, the newest first; expires |
| ari_conf:unknown-accounts | sorted set by time: account names that do not exist but have problems |
| ari_conf:last-batch:ASTERISK | the id of the last batch of steps written |
| ari_conf:owner:, lease:, standby:ASTERISK | see `ownership.lease` |
| ari_conf:changes:ACCOUNT | pub/sub: "conference_id owner" of each conference whose state has just been written |
| ari_conf:callbacks:… | see `queues.partitioned_queue` |
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Sequence
from itertools import count
from secrets import token_hex
from typing import Any, NamedTuple, TypeVar, cast

import redis.asyncio
import structlog
from redis import RedisError

from ari_conf.common import lua, redis_client
from ari_conf.common.redis_client import explain_error, is_refused
from ari_conf.common.redis_keys import PREFIX
from ari_conf.core.effects import ClaimName, ReleaseName
from ari_conf.errors import LeaseLost, StoreRefused, StoreUnavailable
from ari_conf.ownership.lease import last_batch_key, lease_key, owner_key
from ari_conf.queues import outbox
from ari_conf.queues.partitioned_queue import WAKEUP_LOST_MS, prefix
from ari_conf.store import accounts, removals
from ari_conf.store import members as member_fields
from ari_conf.store.accounts import AccountRecord
from ari_conf.store.redis_script import Part, RedisScript
from ari_conf.store.state_codec import is_conference
from ari_conf.store.step_batch import Batch, Command, Step, encode_batch

log = structlog.get_logger()

T = TypeVar("T")
ACCOUNT_CACHE_S = 5.0
MAX_CACHED_ACCOUNTS = 100_000
"""Maximum accounts in the cache."""
CONNECT_TIMEOUT_S, ANSWER_TIMEOUT_S = 2.0, 5.0
CALL_TIMEOUT_S = 1.0
"""Seconds that a call waits for a name or an account. After that Redis counts as hanging, and no call waits."""
PROBE_INTERVAL_S = 0.5
LOAD_BATCH = 1000
REFUSED_LOG_INTERVAL_S = 60.0
MAX_REFUSED_KEYS = 1000
"""A key that Redis refuses is logged once in REFUSED_LOG_INTERVAL_S seconds; MAX_REFUSED_KEYS are remembered."""
CLAIM_NAME = lua.load("ari_conf.store.scripts.claim_name")
WRITE_STEPS = lua.load("ari_conf.store.scripts.write_steps")
_CALLBACKS = prefix(outbox.QUEUE)

_process_id = token_hex(8)
_batch_numbers = count(1)


class WriteResult(NamedTuple):
    """Answer of the script that writes a batch."""

    claims: list[bytes | None]
    """For each claim the Asterisk that has the name; None if it is claimed."""
    refused: list[bytes]
    """Key and reason of each part that Redis refused."""
    dropped: int
    """Number of items that found no room."""


def connect(url: str) -> redis.asyncio.Redis:
    """Return a client that fails within seconds and does not retry: the step writer decides on retries."""
    options: dict[str, Any] = {"socket_connect_timeout": CONNECT_TIMEOUT_S, "socket_timeout": ANSWER_TIMEOUT_S}
    return redis_client.connect(url, **options, retry=None, health_check_interval=0)


class StateStore:
    """Access to Redis. Methods may raise StoreUnavailable: the request may have been executed, and can be repeated."""

    def __init__(
        self,
        client: redis.asyncio.Redis,
        asterisk_name: str,
        problems_kept: int = 200,
        *,
        fencing_token: Callable[[], str] = lambda: "",
        names_kept_s: float = 900.0,
        on_dropped: Callable[[int], None] = lambda number: None,
    ) -> None:
        """Create a store for one Asterisk.

        `fencing_token` returns that of the lease; "" if no other process may be writing. `on_dropped` receives the
        number of callbacks that found no room in Redis."""
        self._redis = client
        self._name = asterisk_name
        self._problems_kept = problems_kept
        self._fencing_token = fencing_token
        self._names_kept_ms = int(names_kept_s * 1000)
        self._on_dropped = on_dropped
        self._write_steps = RedisScript(client, WRITE_STEPS)
        self._accounts: dict[str, tuple[float, AccountRecord]] = {}
        self._probe: asyncio.Task[None] | None = None
        """Task that waits until Redis answers, while it hangs."""
        self._refused_logged_at: dict[str, float] = {}
        self.confirmed = ""
        """Id of the last batch that Redis is known to have."""

    async def close(self) -> None:
        if self._probe is not None:
            self._probe.cancel()
        await self._write_steps.close()

    @property
    def hangs(self) -> bool:
        """True while Redis takes too long to answer, and calls do not wait for it."""
        return self._probe is not None

    async def account(self, auth_id: str) -> AccountRecord | None:
        """Return an account, at most 5 s old; None if it does not exist. One that is being removed has `removed` set.

        While Redis is unreachable, return it as last seen. Raises StoreUnavailable if it was never seen."""
        read_at, record = self._accounts.get(auth_id, (float("-inf"), None))
        now = time.monotonic()
        if record and now - read_at < ACCOUNT_CACHE_S:
            return record
        try:
            pipe: Any = self._redis.pipeline(transaction=False)
            asked = pipe.hget(accounts.KEY, auth_id).hget(removals.KEY, auth_id).time().execute()
            found, removed, redis_time = await self._request_for_call(asked)
        except StoreUnavailable:
            if record is None:
                raise
            self._accounts[auth_id] = (now, record)  # next request in 5 s: calls must not each wait for a dead Redis
            return record
        record = accounts.decode(cast(bytes, found)) if found else removals.record_of(removed)
        if record is None:
            self._accounts.pop(auth_id, None)
            return None
        record = record.current(redis_time[0] * 1000)
        self._accounts[auth_id] = (now, record)
        if len(self._accounts) > MAX_CACHED_ACCOUNTS:
            del self._accounts[next(iter(self._accounts))]
        return record

    async def claim(self, auth_id: str, name: str, conference_id: str, owner: str | None = None) -> str | None:
        """Claim a name for a conference of `owner`, by default this Asterisk. Return None, or the other owner."""
        keys = names_key(auth_id), owner_key(self._name)
        arguments = self._fencing_token(), *self._encode_claim(name, conference_id, owner or self._name)
        answer = self._redis.eval(*cast(Any, (CLAIM_NAME, len(keys), *keys, *arguments)))
        holder = await self._request_for_call(cast("Coroutine[Any, Any, bytes | None]", answer))
        return holder.decode() if holder else None

    def _encode_claim(self, name: str, conference_id: str, owner: str) -> tuple[Part, ...]:
        """Return the arguments of `claim` in scripts/conference_names.lua after the key."""
        return name, conference_id, owner, lease_key(""), self._names_kept_ms

    async def names(self, auth_id: str) -> dict[str, tuple[str, str]]:
        """Return the account's map of conference names: name -> (conference_id, owner)."""
        found = await self._request(cast("Awaitable[dict[bytes, bytes]]", self._redis.hgetall(names_key(auth_id))))
        return {name.decode(errors="replace"): parse_name_owner(text) for name, text in found.items()}

    def batch(self) -> Batch:
        """Return a new batch, to be written after those that were created before."""
        return Batch(f"{_process_id}-{next(_batch_numbers)}", self)

    async def write(self, steps: Sequence[Step]) -> None:
        """Write steps, as `send` does, in their present state."""
        batch = self.batch()
        for step in steps:
            batch.add(step)
        batch.close()
        await self.send(batch)

    async def send(self, batch: Batch) -> None:
        """Write a batch atomically. Batches must be written in order.

        After StoreUnavailable, the same batch must be written next; if Redis did apply it, it is not applied twice.
        Raises LeaseLost if another process owns these calls now, StoreRefused if Redis will never accept the batch as a
        whole. A part that Redis refuses because a key holds something else is left out and logged.
        """
        keys = _CALLBACKS, last_batch_key(self._name), owner_key(self._name)
        arguments = encode_batch(batch, self._fencing_token(), self._problems_kept, WAKEUP_LOST_MS)
        try:
            result = WriteResult(*await self._request(self._write_steps.run(keys, arguments)))
        except (TypeError, ValueError) as error:
            raise StoreRefused(f"the batch could not be sent to Redis: {error}") from error
        self.confirmed = batch.id
        for key, reason in zip(result.refused[::2], result.refused[1::2], strict=True):
            self._log_refused(key.decode(errors="replace"), reason.decode(errors="replace"))
        if result.dropped:
            self._on_dropped(result.dropped)
        for on_conflict, owner in zip(batch.on_conflicts, result.claims, strict=True):
            if owner:
                on_conflict(owner.decode())

    def _log_refused(self, key: str, reason: str) -> None:
        now = time.monotonic()
        if now - self._refused_logged_at.get(key, float("-inf")) < REFUSED_LOG_INTERVAL_S:
            return
        self._refused_logged_at[key] = now
        if len(self._refused_logged_at) > MAX_REFUSED_KEYS:
            del self._refused_logged_at[next(iter(self._refused_logged_at))]
        log.error(
            "key write refused",
            key=key,
            reason=reason,
            action="left out",
            hint="inspect the key with `redis-cli`, and delete it if it is not ari_conf's",
        )

    # Methods of the protocol `Destination`, for `Batch`.

    def pipeline(self) -> Any:
        return self._redis.pipeline(transaction=False)

    def state_key(self) -> str:
        return state_key(self._name)

    def claim_command(self, claim: ClaimName) -> Command:
        arguments = self._encode_claim(claim.name, claim.conference_id, self._name)
        return ("CLAIM", names_key(claim.auth_id), *arguments)

    def release_command(self, released: ReleaseName) -> Command:
        return ("RELEASE", names_key(released.auth_id), released.name, released.conference_id)

    def publish_command(self, auth_id: str, conference_id: str) -> Command:
        return ("PUBLISH", changes_key(auth_id), f"{conference_id} {self._name}")

    # State that another process has written.

    async def load(self) -> dict[str, bytes]:
        """Return the state of this Asterisk. No other process may be writing it."""
        found: dict[str, bytes] = {}
        async for part in self.load_batches():
            found.update(part)
        return found

    async def load_batches(self) -> AsyncGenerator[dict[str, bytes]]:
        """Yield the state in parts; a record may come twice. The next part is requested while the caller handles one.

        All of it in one answer could take Redis and the server longer than the timeout of an answer.
        """
        asked: asyncio.Task[tuple[int, dict[bytes, bytes]]] | None = asyncio.create_task(self._part(0))
        try:
            while asked is not None:
                cursor, part = await asked
                asked = asyncio.create_task(self._part(cursor)) if cursor else None
                yield {key.decode(errors="backslashreplace"): snapshot for key, snapshot in part.items()}
        finally:
            if asked is not None:
                asked.cancel()

    async def _part(self, cursor: int) -> tuple[int, dict[bytes, bytes]]:
        return await self._request(self._read(cursor))

    async def _read(self, cursor: int) -> tuple[int, dict[bytes, bytes]]:
        scan = self._redis.hscan(state_key(self._name), cursor, count=LOAD_BATCH)
        cursor, part = await cast("Awaitable[tuple[int, dict[bytes, bytes]]]", scan)
        conferences = {key: text for key, text in part.items() if is_conference(text)}
        return cursor, part | await member_fields.load_full(self._redis, conferences)

    async def members(self, ids: Sequence[str]) -> dict[str, dict[bytes, bytes]]:
        """Return the members' JSON of conferences that can't be read as a whole."""
        return await self._request(member_fields.each(self._redis, ids))

    # Cleaning up what no longer exists.

    async def ids(self) -> AsyncGenerator[list[bytes]]:
        """Yield the ids of all persisted calls and conferences, in parts; an id may come twice."""
        cursor = 0
        while True:
            scan = self._redis.hscan(state_key(self._name), cursor, count=LOAD_BATCH)
            cursor, part = await self._request(cast("Awaitable[tuple[int, dict[bytes, bytes]]]", scan))
            yield list(part)
            if not cursor:
                return

    def forget(self, pipe: Any, ids: Sequence[bytes]) -> None:
        """Delete calls and conferences that no longer exist; for `Step.also`."""
        pipe.hdel(state_key(self._name), *ids)
        member_fields.delete(pipe, [id.decode(errors="replace") for id in ids])

    async def names_held(self) -> AsyncGenerator[list[ReleaseName]]:
        """Yield the names that this Asterisk owns, in parts, as the effects that release them."""
        cursor = 0
        while True:
            scan = self._redis.scan(cursor, match=names_key("*"), count=LOAD_BATCH)
            cursor, keys = await self._request(cast("Awaitable[tuple[int, list[bytes]]]", scan))
            for key in keys:
                auth_id = key.decode(errors="replace").removeprefix(names_key(""))
                with contextlib.suppress(StoreRefused):  # a key of another type does not hold names
                    names = await self.names(auth_id)
                    yield [ReleaseName(auth_id, name, id) for name, (id, owner) in names.items() if owner == self._name]
            if not cursor:
                return

    # Requests and their failures.

    async def _request(self, answer: Awaitable[T]) -> T:
        try:
            return await answer
        except (RedisError, OSError) as error:
            if str(error).startswith("LOST"):
                raise LeaseLost("another process has taken over") from None
            if str(error).startswith("FORGOTTEN"):
                raise StoreUnavailable("Redis has lost its data: the owner is about to be written again") from None
            if is_refused(error):
                raise StoreRefused(f"Redis refused the command: {error}") from error
            raise StoreUnavailable(explain_error(error)) from error

    async def _request_for_call(self, answer: Coroutine[Any, Any, T]) -> T:
        """Return the answer within CALL_TIMEOUT_S, so that no call waits long. While Redis hangs, calls don't wait."""
        if self._probe is not None:
            answer.close()
            raise StoreUnavailable("Redis does not answer")
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S):
                return await self._request(answer)
        except TimeoutError:
            if self._probe is None:
                log.error("redis not responding", seconds=CALL_TIMEOUT_S, action="calls do not wait for redis")
                self._probe = asyncio.create_task(self._wait_until_responding())
            raise StoreUnavailable(f"Redis has not answered within {CALL_TIMEOUT_S:g} s") from None

    async def _wait_until_responding(self) -> None:
        while True:
            try:
                async with asyncio.timeout(ANSWER_TIMEOUT_S):
                    await cast(Any, self._redis).ping()
                break
            except (RedisError, OSError):
                await asyncio.sleep(PROBE_INTERVAL_S)
        log.info("redis responding again")
        self._probe = None


def state_key(asterisk_name: str) -> str:
    return f"{PREFIX}state:{asterisk_name}"


def parse_name_owner(text: bytes) -> tuple[str, str]:
    """Return (conference id, owner) from a name's field or a message of a change."""
    conference_id, _, owner = text.decode(errors="replace").partition(" ")
    return conference_id, owner


def names_key(auth_id: str) -> str:
    return f"{PREFIX}names:{auth_id}"


def changes_key(auth_id: str) -> str:
    return f"{PREFIX}changes:{auth_id}"
