"""Redis, as the application sees it: accounts, the state of its calls and conferences, names, problems, the outbox.

Redis is written, never asked, to decide; the one exception is claiming a name, one atomic step.

| key | is |
|---|---|
| ari_conf:accounts | hash, auth id -> account |
| ari_conf:state:ASTERISK | hash, "call:UUID" or "conference:UUID" -> snapshot |
| ari_conf:names:ACCOUNT | hash, conference name -> "conference_id owner" |
| ari_conf:problems:ACCOUNT | list of JSON, the newest first |
| ari_conf:written:ASTERISK | the id of the last step written |
| ari_conf:owner:, lease:, standby:ASTERISK | see `lease` |
| ari_conf:changes:ACCOUNT | pub/sub: "conference_id owner" of each conference whose state has just been written |
| ari_conf:callbacks:… | see `lanes` |
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from itertools import count
from secrets import token_hex
from typing import Any, TypeVar, cast

import msgspec
import redis.asyncio
from redis import RedisError
from redis.asyncio.client import Pipeline

from ari_conf import accounts, outbox
from ari_conf.accounts import AccountRecord
from ari_conf.core.conference import Conference
from ari_conf.core.effects import ClaimName, PostCallback, ReleaseName, ReportProblem
from ari_conf.errors import LeaseLost, StoreUnavailable
from ari_conf.fenced import Fenced
from ari_conf.lane_scripts import READY
from ari_conf.lanes import PREFIX, prefix
from ari_conf.lease import lease_key, owner_key
from ari_conf.written import Thing, encoded

T = TypeVar("T")
ACCOUNT_CACHE_S = 5.0
CONNECT_S, ANSWER_S = 2.0, 5.0
LOADED_AT_ONCE = 1000

_process = token_hex(8)
_steps = count(1)


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    at_ms: int
    call_uuid: str
    text: str
    code: int | None = None


@dataclass(slots=True)
class Step:
    """What one decision changes. `id` tells a step that is written again from a new one: Redis' answer may be lost."""

    now_ms: int
    state: dict[str, Thing | bytes | None] = field(default_factory=dict)
    """None: delete it. A call or a conference is written as it is when its step is: steps that are written together
    have all their state in one."""
    callbacks: list[PostCallback] = field(default_factory=list)
    problems: list[ReportProblem] = field(default_factory=list)
    released: list[ReleaseName] = field(default_factory=list)
    claims: list[tuple[ClaimName, Callable[[str], None]]] = field(default_factory=list)
    """Names that are taken for ours; if one is another's, whose it is is told, once the rest is written."""
    also: list[Callable[[Any], Any]] = field(default_factory=list)
    """Each is called with the transaction's pipeline, and adds commands that may be done twice."""
    id: str = field(default_factory=lambda: f"{_process}-{next(_steps)}")


# Steps up to the last one that was written are left out: they come again because an answer was lost. ARGV: how many
# problems are kept, then for each step its id, how many items, and for each item its kind, lane or list, and text.
_OUTBOX = (
    READY
    + """
local first, at, last = 2, 2, redis.call('GET', KEYS[2])
while last and at <= #ARGV do
  local next_step = at + 2 + 3 * tonumber(ARGV[at + 1])
  if ARGV[at] == last then first = next_step end
  at = next_step
end
at = first
while at <= #ARGV do
  local id, items = ARGV[at], tonumber(ARGV[at + 1])
  at = at + 2
  for _ = 1, items do
    local kind, where, text = ARGV[at], ARGV[at + 1], ARGV[at + 2]
    if kind == 'callback' then
      if redis.call('RPUSH', P..'lane:'..where, text) == 1 then ready(where) end
    else
      redis.call('LPUSH', where, text)
      redis.call('LTRIM', where, 0, tonumber(ARGV[1]) - 1)
    end
    at = at + 3
  end
  redis.call('SET', KEYS[2], id)
end
"""
)

# KEYS: names, our owner key. ARGV: name, conference, who claims, token ("" if it isn't fenced), the prefix of leases,
# ms for which names are kept. A name whose owner has renewed no lease for so long may be taken; of one without a lease
# the time counts from the first time that somebody asked.
_CLAIM = """
if ARGV[4] ~= '' then
  local token = redis.call('GET', KEYS[2])
  if not token then return redis.error_reply('FORGOTTEN') end
  if token ~= ARGV[4] then return redis.error_reply('LOST') end
end
local holder = redis.call('HGET', KEYS[1], ARGV[1])
local owner = holder and holder:match('^%S+ (.*)$')
if owner and owner ~= ARGV[3] then
  local time = redis.call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  redis.call('HSETNX', ARGV[5]..owner, 'at', now)
  if now - redis.call('HGET', ARGV[5]..owner, 'at') <= tonumber(ARGV[6]) then return owner end
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2]..' '..ARGV[3])
return false
"""

_RELEASE = """
local holder = redis.call('HGET', KEYS[1], ARGV[1])
if holder and holder:match('^%S+') == ARGV[2] then redis.call('HDEL', KEYS[1], ARGV[1]) end
"""


def connect(url: str) -> redis.asyncio.Redis:
    """Fails within seconds, and doesn't try again by itself: who writes decides that."""
    return redis.asyncio.from_url(
        url, socket_connect_timeout=CONNECT_S, socket_timeout=ANSWER_S, retry=None, health_check_interval=0
    )


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
    ) -> None:
        """`token`: of the lease under which is written; "" if nobody else may be writing."""
        self._redis = client
        self._name = asterisk_name
        self._problems_kept = problems_kept
        self._token = token
        self._names_kept_ms = int(names_kept_s * 1000)
        self._fenced = Fenced(client, owner_key(asterisk_name))
        self._accounts: dict[str, tuple[float, AccountRecord]] = {}

    async def close(self) -> None:
        await self._fenced.close()

    async def account(self, auth_id: str) -> AccountRecord | None:
        """At most 5 s old; while Redis can't be reached as it was last, or StoreUnavailable if it was never seen."""
        read_at, record = self._accounts.get(auth_id, (float("-inf"), None))
        now = time.monotonic()
        if record and now - read_at < ACCOUNT_CACHE_S:
            return record
        try:
            found = await self._asked(self._redis.hget(accounts.KEY, auth_id))
        except StoreUnavailable:
            if record is None:
                raise
            self._accounts[auth_id] = (now, record)  # asked again in 5 s: else each call would wait for a dead Redis
            return record
        if found is None:
            self._accounts.pop(auth_id, None)
            return None
        record = accounts.decode(cast(bytes, found))
        self._accounts[auth_id] = (now, record)
        return record

    async def claim(self, auth_id: str, name: str, conference_id: str, owner: str | None = None) -> str | None:
        """None: the name is ours, for this conference. Else who owns it. `owner` is this asterisk_name if not given."""
        asked = self._redis.eval(*cast(Any, self._claim(auth_id, name, conference_id, owner or self._name)))
        holder = await self._asked(cast("Awaitable[bytes | None]", asked))
        return holder.decode() if holder else None

    def _claim(self, auth_id: str, name: str, conference_id: str, owner: str) -> tuple[str | int, ...]:
        arguments = (name, conference_id, owner, self._token(), lease_key(""), self._names_kept_ms)
        return _CLAIM, 2, names_key(auth_id), owner_key(self._name), *arguments

    async def names(self, auth_id: str) -> dict[str, tuple[str, str]]:
        """The account's map of conference names: name -> (conference_id, owner)."""
        found = await self._asked(cast("Awaitable[dict[bytes, bytes]]", self._redis.hgetall(names_key(auth_id))))
        return {name.decode(): holder(text) for name, text in found.items()}

    def write(self, steps: Sequence[Step]) -> Coroutine[Any, Any, None]:
        """All of it or nothing, in one transaction. Steps must be written in their order; after StoreUnavailable the
        same ones come first in the next write: what was written all the same is then not written twice.
        What is written is the state at the time of the call, not of the await: that of all steps so far, no later one.
        Raises LeaseLost if another process owns these calls now.
        """
        pipe = self._redis.pipeline(transaction=True)
        return self._executed(pipe, self._collect(pipe, steps))

    def _collect(self, pipe: Pipeline, steps: Sequence[Step]) -> list[tuple[int, Callable[[str], None]]]:
        """Returns which of the answers are those of claims."""
        claims = []
        state = {key: thing for step in steps for key, thing in step.state.items()}
        place = state_key(self._name)
        if kept := {key: _text(thing) for key, thing in state.items() if thing is not None}:
            pipe.hset(place, mapping=cast(Any, kept))
        if gone := [key for key, thing in state.items() if thing is None]:
            pipe.hdel(place, *gone)
        for step in steps:
            for claim, tell in step.claims:
                claims.append((len(pipe.command_stack), tell))
                pipe.eval(*cast(Any, self._claim(claim.auth_id, claim.name, claim.conference_id, self._name)))
            for name in step.released:
                pipe.eval(_RELEASE, 1, names_key(name.auth_id), name.name, name.conference_id)
            for add in step.also:
                add(pipe)
        # In the transaction of the state: who then reads reads this. One that is gone had its name, and released it.
        changed = {(thing.auth_id, key) for key, thing in state.items() if isinstance(thing, Conference)}
        changed |= {(name.auth_id, name.conference_id) for step in steps for name in step.released}
        for auth_id, conference_id in sorted(changed):
            pipe.publish(changes_key(auth_id), f"{conference_id} {self._name}")
        if any(step.callbacks or step.problems for step in steps):
            flat = [part for step in steps for part in _items(step)]
            # EVAL, since in a transaction there is no second try for a script that a restarted Redis doesn't know.
            pipe.eval(_OUTBOX, 2, prefix(outbox.QUEUE), f"{PREFIX}written:{self._name}", self._problems_kept, *flat)
        return claims

    async def _executed(self, pipe: Pipeline, claims: list[tuple[int, Callable[[str], None]]]) -> None:
        if token := self._token():
            commands = [command for command, _ in pipe.command_stack]
            answers = await self._asked(self._fenced.execute(commands, token))
        else:
            answers = await self._asked(pipe.execute())
        for place, tell in claims:
            if owner := answers[place]:
                tell(owner.decode())

    async def load(self) -> dict[str, bytes]:
        """The state of this asterisk_name. Nobody else may be writing it.

        Asked for in parts: all of it at once may take Redis and us longer than a single answer is waited for.
        """
        found: dict[str, bytes] = {}
        cursor = 0
        while True:
            asked = self._redis.hscan(state_key(self._name), cursor, count=LOADED_AT_ONCE)
            cursor, part = await self._asked(cast("Awaitable[tuple[int, dict[bytes, bytes]]]", asked))
            found.update((key.decode(), snapshot) for key, snapshot in part.items())
            if cursor == 0:
                return found

    async def _asked(self, answer: Awaitable[T]) -> T:
        try:
            return await answer
        except (RedisError, OSError) as error:
            if str(error).startswith("LOST"):
                raise LeaseLost("another process has taken over") from None
            raise StoreUnavailable(f"Redis can't be used: {error or type(error).__name__}") from error


def _text(thing: Thing | bytes) -> bytes:
    return thing if isinstance(thing, bytes) else encoded(thing)


def state_key(asterisk_name: str) -> str:
    return f"{PREFIX}state:{asterisk_name}"


def holder(text: bytes) -> tuple[str, str]:
    """(conference id, owner), as a name's field and a change's message have them."""
    conference_id, _, owner = text.decode().partition(" ")
    return conference_id, owner


def names_key(auth_id: str) -> str:
    return f"{PREFIX}names:{auth_id}"


def changes_key(auth_id: str) -> str:
    return f"{PREFIX}changes:{auth_id}"


def problems_key(auth_id: str) -> str:
    return f"{PREFIX}problems:{auth_id}"


def problems(client: redis.Redis, auth_id: str, limit: int = 200) -> list[Problem]:
    """An account's problems, the newest first."""
    found = cast("list[bytes]", client.lrange(problems_key(auth_id), 0, limit - 1))
    return [msgspec.json.decode(problem, type=Problem) for problem in found]


def _items(step: Step) -> list[str | bytes | int]:
    flat: list[str | bytes | int] = [step.id, len(step.callbacks) + len(step.problems)]
    for callback in step.callbacks:
        flat += ("callback", *outbox.entry(callback, step.now_ms))
    for report in step.problems:
        problem = Problem(step.now_ms, report.call_uuid, report.text, report.code)
        flat += ("problem", problems_key(report.auth_id), msgspec.json.encode(problem))
    return flat
