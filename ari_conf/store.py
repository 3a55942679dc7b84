"""Redis, as the application sees it: accounts, the state of its calls and conferences, names, problems, the outbox.

Redis is written, never asked, to decide; the one exception is claiming a name, one atomic step.

| key | is |
|---|---|
| ari_conf:accounts | hash, auth id -> account |
| ari_conf:state:ASTERISK | hash, a call's UUID or a conference's -> its JSON |
| ari_conf:members:CONFERENCE | see `member_fields` |
| ari_conf:names:ACCOUNT | hash, conference name -> "conference_id owner" |
| ari_conf:problems:ACCOUNT | list of JSON, the newest first; expires |
| ari_conf:strangers | sorted set by time: names that no account has, which have problems |
| ari_conf:written:ASTERISK | the id of the last batch of steps written |
| ari_conf:owner:, lease:, standby:ASTERISK | see `lease` |
| ari_conf:changes:ACCOUNT | pub/sub: "conference_id owner" of each conference whose state has just been written |
| ari_conf:callbacks:… | see `lanes` |
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Sequence
from itertools import count
from secrets import token_hex
from typing import Any, TypeVar, cast

import redis.asyncio
import structlog
from redis import RedisError

from ari_conf import accounts, member_fields, outbox, redis_client
from ari_conf.accounts import AccountRecord
from ari_conf.batch import Batch, Command
from ari_conf.batch import Step as Step
from ari_conf.core.effects import ClaimName, ReleaseName
from ari_conf.errors import LeaseLost, StoreRefused, StoreUnavailable
from ari_conf.fenced import Fenced
from ari_conf.lanes import CELERYS_PREFIX, PREFIX, TOKEN_MS, prefix
from ari_conf.lease import lease_key, owner_key, written_key
from ari_conf.redis_client import is_refused, why
from ari_conf.store_scripts import CLAIM, WRITE
from ari_conf.written import is_conference

log = structlog.get_logger()

T = TypeVar("T")
ACCOUNT_CACHE_S = 5.0
MOST_ACCOUNTS = 100_000
"""Remembered."""
CONNECT_S, ANSWER_S = 2.0, 5.0
ASK_S = 1.0
"""A call waits no longer for a name or an account. Redis hangs then, and until it answers again no other call waits."""
LOOK_AGAIN_S = 0.5
LOADED_AT_ONCE = 1000
REFUSED_TOLD_S = 60.0
MOST_REFUSED = 1000
"""Keys that Redis refuses are told of so seldom each, and so many are remembered."""
_CALLBACKS = prefix(outbox.QUEUE)

_process = token_hex(8)
_batches = count(1)


def connect(url: str) -> redis.asyncio.Redis:
    """Fails within seconds, and doesn't try again by itself: who writes decides that."""
    options: dict[str, Any] = {"socket_connect_timeout": CONNECT_S, "socket_timeout": ANSWER_S}
    return redis_client.connect(url, **options, retry=None, health_check_interval=0)


class Store:
    """Each method may raise StoreUnavailable; what was asked may then have been done or not, and can be asked again."""

    def __init__(
        self,
        client: redis.asyncio.Redis,
        asterisk_name: str,
        problems_kept: int = 200,
        *,
        token: Callable[[], str] = lambda: "",
        names_kept_s: float = 900.0,
        letter: Callable[[str], str | None] = lambda token: None,
        dropped: Callable[[int], None] = lambda number: None,
    ) -> None:
        """`token`: of the lease under which is written; "" if nobody else may be writing. `letter`: Celery's message
        that brings a worker this token; None if workers are told otherwise. `dropped` is told how many callbacks
        found no room in Redis."""
        self._redis = client
        self._name = asterisk_name
        self._problems_kept = problems_kept
        self._token = token
        self._names_kept_ms = int(names_kept_s * 1000)
        self._letter = letter
        self._dropped = dropped
        self._fenced = Fenced(client, WRITE)
        self._accounts: dict[str, tuple[float, AccountRecord]] = {}
        self._looking: asyncio.Task[None] | None = None
        """While Redis hangs: waits until it answers."""
        self._refused: dict[str, float] = {}
        self.confirmed = ""
        """The id of the last batch that Redis is known to have."""

    async def close(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
        await self._fenced.close()

    @property
    def hangs(self) -> bool:
        """Redis takes long to answer: it is not waited for."""
        return self._looking is not None

    async def account(self, auth_id: str) -> AccountRecord | None:
        """At most 5 s old; while Redis can't be reached as it was last, or StoreUnavailable if it was never seen."""
        read_at, record = self._accounts.get(auth_id, (float("-inf"), None))
        now = time.monotonic()
        if record and now - read_at < ACCOUNT_CACHE_S:
            return record
        try:
            pipe: Any = self._redis.pipeline(transaction=False)
            found, redis_time = await self._asked_for_a_call(pipe.hget(accounts.KEY, auth_id).time().execute())
        except StoreUnavailable:
            if record is None:
                raise
            self._accounts[auth_id] = (now, record)  # asked again in 5 s: else each call would wait for a dead Redis
            return record
        if found is None:
            self._accounts.pop(auth_id, None)
            return None
        record = accounts.decode(cast(bytes, found)).current(redis_time[0] * 1000)
        self._accounts[auth_id] = (now, record)
        if len(self._accounts) > MOST_ACCOUNTS:
            del self._accounts[next(iter(self._accounts))]
        return record

    async def claim(self, auth_id: str, name: str, conference_id: str, owner: str | None = None) -> str | None:
        """None: the name is ours, for this conference. Else who owns it. `owner` is this asterisk_name if not given."""
        keys = names_key(auth_id), owner_key(self._name)
        rest = self._token(), *self._claim(name, conference_id, owner or self._name)
        asked = self._redis.eval(*cast(Any, (CLAIM, len(keys), *keys, *rest)))
        holder = await self._asked_for_a_call(cast("Coroutine[Any, Any, bytes | None]", asked))
        return holder.decode() if holder else None

    def _claim(self, name: str, conference_id: str, owner: str) -> tuple[str | int, ...]:
        return name, conference_id, owner, lease_key(""), self._names_kept_ms

    async def names(self, auth_id: str) -> dict[str, tuple[str, str]]:
        """The account's map of conference names: name -> (conference_id, owner)."""
        found = await self._asked(cast("Awaitable[dict[bytes, bytes]]", self._redis.hgetall(names_key(auth_id))))
        return {name.decode(errors="replace"): holder(text) for name, text in found.items()}

    def batch(self) -> Batch:
        """A new one, to be written after those that were made before."""
        return Batch(f"{_process}-{next(_batches)}", self)

    async def write(self, steps: Sequence[Step]) -> None:
        """As `send`, of steps that are as they are now."""
        batch = self.batch()
        for step in steps:
            batch.add(step)
        batch.close()
        await self.send(batch)

    async def send(self, batch: Batch) -> None:
        """All of it or nothing, in one step of Redis'. Batches must be written in their order. After StoreUnavailable
        the same one comes next: if it was written all the same, it is not written twice.

        Raises LeaseLost if another process owns these calls now, StoreRefused if Redis will never take it as a whole.
        What it refuses of it, since a key holds something else, is left out, and told.
        """
        keys = _CALLBACKS, written_key(self._name), owner_key(self._name), CELERYS_PREFIX + outbox.QUEUE
        given = self._token(), batch.id, self._problems_kept, TOKEN_MS
        try:
            claims, wrong, full = await self._asked(self._fenced.run(keys, (*given, *batch.arguments())))
        except (TypeError, ValueError) as error:
            raise StoreRefused(f"it can't be sent to Redis: {error}") from error
        self.confirmed = batch.id
        for key, reason in zip(wrong[::2], wrong[1::2], strict=True):
            self._tell_refused(key.decode(errors="replace"), reason.decode(errors="replace"))
        if full:
            self._dropped(full)
        for tell, owner in zip(batch.tells, claims, strict=True):
            if owner:
                tell(owner.decode())

    def _tell_refused(self, key: str, reason: str) -> None:
        now = time.monotonic()
        if now - self._refused.get(key, float("-inf")) < REFUSED_TOLD_S:
            return
        self._refused[key] = now
        if len(self._refused) > MOST_REFUSED:
            del self._refused[next(iter(self._refused))]
        log.error(
            "redis refuses a part of what is to be written: it is left out; see what the key holds, and remove it",
            key=key,
            reason=reason,
        )

    # As `Batch` needs it.

    def pipeline(self) -> Any:
        return self._redis.pipeline(transaction=False)

    def state_key(self) -> str:
        return state_key(self._name)

    def claim_command(self, claim: ClaimName) -> Command:
        what = self._claim(claim.name, claim.conference_id, self._name)
        return ("CLAIM", names_key(claim.auth_id), *what)

    def release_command(self, freed: ReleaseName) -> Command:
        return ("RELEASE", names_key(freed.auth_id), freed.name, freed.conference_id)

    def publish_command(self, auth_id: str, conference_id: str) -> Command:
        return ("PUBLISH", changes_key(auth_id), f"{conference_id} {self._name}")

    def letter(self, token: str) -> str | None:
        return self._letter(token)

    # What another process has written.

    async def load(self) -> dict[str, bytes]:
        """The state of this asterisk_name. Nobody else may be writing it."""
        found: dict[str, bytes] = {}
        async for part in self.parts():
            found.update(part)
        return found

    async def parts(self) -> AsyncGenerator[dict[str, bytes]]:
        """What `load` loads; some of it may come twice. What is next is on its way while one part is worked on.

        In parts, since all of it at once may take Redis and us longer than a single answer is waited for.
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
        return await self._asked(self._read(cursor))

    async def _read(self, cursor: int) -> tuple[int, dict[bytes, bytes]]:
        scan = self._redis.hscan(state_key(self._name), cursor, count=LOADED_AT_ONCE)
        cursor, part = await cast("Awaitable[tuple[int, dict[bytes, bytes]]]", scan)
        conferences = {key: text for key, text in part.items() if is_conference(text)}
        return cursor, part | await member_fields.whole(self._redis, conferences)

    async def members(self, ids: Sequence[str]) -> dict[str, dict[bytes, bytes]]:
        """Of conferences that can't be read as a whole: their members' texts."""
        return await self._asked(member_fields.each(self._redis, ids))

    # What is there that should not be.

    async def ids(self) -> AsyncGenerator[list[bytes]]:
        """Of all calls and conferences that are written, in parts; some may come twice."""
        cursor = 0
        while True:
            scan = self._redis.hscan(state_key(self._name), cursor, count=LOADED_AT_ONCE)
            cursor, part = await self._asked(cast("Awaitable[tuple[int, dict[bytes, bytes]]]", scan))
            yield list(part)
            if not cursor:
                return

    def forget(self, pipe: Any, ids: Sequence[bytes]) -> None:
        """Calls and conferences that are no more: for `Step.also`."""
        pipe.hdel(state_key(self._name), *ids)
        member_fields.forget(pipe, [id.decode(errors="replace") for id in ids])

    async def names_held(self) -> AsyncGenerator[list[ReleaseName]]:
        """The names that are this asterisk_name's, in parts: as what releases them."""
        cursor = 0
        while True:
            scan = self._redis.scan(cursor, match=names_key("*"), count=LOADED_AT_ONCE)
            cursor, keys = await self._asked(cast("Awaitable[tuple[int, list[bytes]]]", scan))
            for key in keys:
                auth_id = key.decode(errors="replace").removeprefix(names_key(""))
                with contextlib.suppress(StoreRefused):  # what else stands under such a key is not ours
                    names = await self.names(auth_id)
                    yield [ReleaseName(auth_id, name, id) for name, (id, owner) in names.items() if owner == self._name]
            if not cursor:
                return

    # How Redis is.

    async def _asked(self, answer: Awaitable[T]) -> T:
        try:
            return await answer
        except (RedisError, OSError) as error:
            if str(error).startswith("LOST"):
                raise LeaseLost("another process has taken over") from None
            if str(error).startswith("FORGOTTEN"):
                raise StoreUnavailable("Redis has forgotten whose the calls are: it is about to be told") from None
            if is_refused(error):
                raise StoreRefused(f"Redis refuses it: {error}") from error
            raise StoreUnavailable(why(error)) from error

    async def _asked_for_a_call(self, answer: Coroutine[Any, Any, T]) -> T:
        """No call waits long for Redis, and one after another doesn't at all."""
        if self._looking is not None:
            answer.close()
            raise StoreUnavailable("Redis does not answer")
        try:
            async with asyncio.timeout(ASK_S):
                return await self._asked(answer)
        except TimeoutError:
            if self._looking is None:
                log.error("redis hangs: no call waits for it until it answers again", seconds=ASK_S)
                self._looking = asyncio.create_task(self._look())
            raise StoreUnavailable(f"Redis has not answered within {ASK_S:g} s") from None

    async def _look(self) -> None:
        """Until it answers."""
        while True:
            try:
                async with asyncio.timeout(ANSWER_S):
                    await cast(Any, self._redis).ping()
                break
            except (RedisError, OSError):
                await asyncio.sleep(LOOK_AGAIN_S)
        log.info("redis answers again")
        self._looking = None


def state_key(asterisk_name: str) -> str:
    return f"{PREFIX}state:{asterisk_name}"


def holder(text: bytes) -> tuple[str, str]:
    """(conference id, owner), as a name's field and a change's message have them."""
    conference_id, _, owner = text.decode(errors="replace").partition(" ")
    return conference_id, owner


def names_key(auth_id: str) -> str:
    return f"{PREFIX}names:{auth_id}"


def changes_key(auth_id: str) -> str:
    return f"{PREFIX}changes:{auth_id}"
