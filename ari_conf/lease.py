"""Which of several processes owns an Asterisk's calls: a lease in Redis, with a token that fences the one before.

| key | is |
|---|---|
| ari_conf:owner:ASTERISK | the owner's token, "" if he gave it back. Who has another token writes nothing |
| ari_conf:lease:ASTERISK | hash: `number` of the lease, `beat` of its owner, `at` (Redis' clock), `holder`, `realm` |
| ari_conf:written:ASTERISK | the id of the last batch of steps that the owner has written: see `store` |
| ari_conf:standby:ASTERISK | hash: who waits -> ms (Redis' clock) when he last looked |

No clock is compared with another machine's: who waits takes over when he has seen the same beat for LEASE_S, with Redis
answering all the time. An owner acts only within OWN_S, which is less, of the beginning of his last renewal: one that
was stopped and goes on doesn't act before he has asked. If Redis can't be reached, nobody can take the lease either,
and the owner goes on.

`realm` is a random word that all owners under one name in one Redis have in common: an owner with another one is a
rival (see `owner_mark`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from secrets import token_hex
from typing import Any, Literal, cast

import redis
import redis.asyncio
import structlog
from redis import RedisError

from ari_conf import holder
from ari_conf.lane_scripts import CLOCK
from ari_conf.lanes import PREFIX
from ari_conf.seldom import Seldom

log = structlog.get_logger()

LEASE_S = 2.5
"""An owner who did not renew for so long may be replaced."""
OWN_S = 1.8
"""For so long he acts without having asked. Less, for clocks that run unequally and what is on its way."""
RENEW_S, LOOK_S = 0.5, 0.2
ANSWER_S = 0.5
"""Redis is away if it takes longer."""
EMPTY_S = 1.2
"""Where Redis knows no lease, it may have lost everything, and a live owner is about to say so: he has the calls."""

State = Literal["waiting", "standby", "owner", "lost"]

# What is no token or field of ours goes: a live owner writes its own again.
_NOW = (
    CLOCK
    + """
local now = clock()
for number, kind in ipairs({'string', 'hash'}) do
  local found = redis.call('TYPE', KEYS[number]).ok
  if found ~= kind and found ~= 'none' then redis.call('DEL', KEYS[number]) end
end
if not (redis.call('GET', KEYS[1]) or ''):match('^[%w.]*$') then redis.call('DEL', KEYS[1]) end
for field, text in pairs({number = '^%d+$', beat = '^%d+$', at = '^%d+$', realm = '^%x*$'}) do
  if not (redis.call('HGET', KEYS[2], field) or '0'):match(text) then redis.call('HDEL', KEYS[2], field) end
end
"""
)

# KEYS: owner, lease. ARGV: the token and the beat that were seen, a word of one's own, holder. Answers number, realm.
_TAKE = (
    _NOW
    + """
if (redis.call('GET', KEYS[1]) or '-') ~= ARGV[1] then return false end
if (redis.call('HGET', KEYS[2], 'beat') or '-') ~= ARGV[2] then return false end
local number = redis.call('HINCRBY', KEYS[2], 'number', 1)
redis.call('SET', KEYS[1], number..'.'..ARGV[3])
redis.call('HSETNX', KEYS[2], 'realm', ARGV[3])
redis.call('HSET', KEYS[2], 'beat', 0, 'at', now, 'holder', ARGV[4])
return {number, redis.call('HGET', KEYS[2], 'realm')}
"""
)

# KEYS: owner, lease, the id of the last batch written. ARGV: token, its number, the last beat that was confirmed, this
# beat, holder, 1 if the owner never stopped, realm. Redis that knows less than it confirmed has forgotten (it came back
# empty, or from an older copy): then the owner goes on with what it has in memory. But not one that was stopped
# meanwhile, if another is there. Answers what came of it, and that id.
_RENEW = (
    _NOW
    + """
local token = redis.call('GET', KEYS[1])
local number = tonumber(redis.call('HGET', KEYS[2], 'number') or 0)
local beat = tonumber(redis.call('HGET', KEYS[2], 'beat') or -1)
local mine, answer = token == ARGV[1], 'renewed'
if token and not mine and not (number < tonumber(ARGV[2]) and ARGV[6] == '1') then return {'lost', ''} end
if not mine or beat < tonumber(ARGV[3]) then
  redis.call('SET', KEYS[1], ARGV[1])
  answer = 'forgotten'
end
redis.call('HSET', KEYS[2], 'number', ARGV[2], 'beat', ARGV[4], 'at', now, 'holder', ARGV[5], 'realm', ARGV[7])
local known, last = pcall(redis.call, 'GET', KEYS[3])
return {answer, known and last or ''}
"""
)

# KEYS: owner. ARGV: token.
_RELEASE = """
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('SET', KEYS[1], '') end
"""

# KEYS: owner, lease, standby. ARGV: who looks.
_LOOK = (
    _NOW
    + """
if not pcall(redis.call, 'HSET', KEYS[3], ARGV[1], now) then redis.call('DEL', KEYS[3]) end
redis.call('PEXPIRE', KEYS[3], 10000)
local lease = redis.call('HMGET', KEYS[2], 'beat', 'holder', 'realm')
return {redis.call('GET', KEYS[1]) or '-', lease[1] or '-', lease[2] or '', lease[3] or ''}
"""
)


def owner_key(asterisk_name: str) -> str:
    return f"{PREFIX}owner:{asterisk_name}"


def lease_key(asterisk_name: str) -> str:
    return f"{PREFIX}lease:{asterisk_name}"


def standby_key(asterisk_name: str) -> str:
    return f"{PREFIX}standby:{asterisk_name}"


def boottime() -> float:
    """Seconds; goes on while this process, or the machine, is stopped."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def written_key(asterisk_name: str) -> str:
    return f"{PREFIX}written:{asterisk_name}"


def _is_older(found: str, confirmed: str) -> bool:
    """Of ids of batches, PROCESS-NUMBER and perhaps more: Redis has lost one that it had confirmed."""
    if not confirmed:
        return False
    process, number = confirmed.split("-")[:2]
    found_process, _, rest = found.partition("-")
    found_number = rest.partition("-")[0]
    is_number = found_number.isascii() and found_number.isdigit()
    return found_process != process or not is_number or int(found_number) < int(number)


@dataclass(slots=True)
class Watch:
    """What one who waits has seen of the owner, and since when without a gap."""

    seen: tuple[str, str] = ("", "")
    since: float = 0.0
    looked: float = 0.0

    def may_take(self, token: str, beat: str, holder_text: str, now: float) -> bool:
        if (token, beat) != self.seen or now - self.looked > 5 * LOOK_S + ANSWER_S:
            self.seen, self.since = (token, beat), now
        self.looked = now
        if token == "-":
            return now - self.since >= EMPTY_S
        return token == "" or holder.is_dead(holder_text) or now - self.since >= LEASE_S


class Lease:
    def __init__(
        self,
        client: redis.asyncio.Redis,
        asterisk_name: str,
        *,
        forgotten: Callable[[], None] = lambda: None,
        written: Callable[[], str] = lambda: "",
        clock: Callable[[], float] = boottime,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`forgotten`: Redis has lost what was written; it is to be written again. `written` tells the id of the last
        batch that Redis has confirmed."""
        self._redis, self._name = client, asterisk_name
        self._keys = (owner_key(asterisk_name), lease_key(asterisk_name), standby_key(asterisk_name))
        self._forgotten = forgotten
        self._written = written
        self._clock = clock
        self._sleep = sleep
        self._holder = holder.this()
        self._away = Seldom()
        self._checked = float("-inf")
        """When the last renewal began whose answer, or whose failing to come, is known."""
        self._beat = self._confirmed_beat = 0
        self._lost: tuple[str, str] | None = None
        """That Redis has this batch instead of that, which it had confirmed, was told already."""
        self._hurry = asyncio.Event()
        self._fresh = asyncio.Event()
        self._ended = asyncio.Event()
        self.waiting_for = ""
        """Who is the owner, while this is a standby."""
        self.after_another = False
        """The lease was another's, who did not give it back."""
        self.state: State = "waiting"
        self.token = ""
        self.realm = ""
        """Of whoever is the owner by this Redis, under this name: see the module."""

    @property
    def fresh(self) -> bool:
        """This process is the owner, and may act."""
        return self.state == "owner" and self._clock() - self._checked < OWN_S

    async def confirmed(self) -> None:
        """Returns when this process may act: nearly always at once. Never, if it is the owner no more."""
        while not self.fresh:
            self._fresh.clear()
            self._hurry.set()
            await self._fresh.wait()

    async def until_lost(self) -> None:
        await self._ended.wait()

    def lose(self) -> None:
        """Another process has the lease: seen by whoever writes."""
        if self.state != "lost":
            log.error("another process has taken over: this one stops", asterisk_name=self._name)
        self.state = "lost"
        self._ended.set()

    # Who waits.

    async def acquire(self) -> None:
        """Returns when this process is the owner."""
        watch = Watch()
        while True:
            if await self._tried(watch):
                return
            await self._sleep(LOOK_S)

    async def _tried(self, watch: Watch) -> bool:
        try:
            asked = self._eval(_LOOK, 3, *self._keys, holder.named(self._holder))
            token, beat, other, self.realm = (
                part.decode(errors="replace") for part in cast("list[bytes]", await asked)
            )
            if not watch.may_take(token, beat, other, self._clock()):
                self._waits(token, other)
                return False
            began, word = self._clock(), token_hex(8)
            taken = await self._eval(_TAKE, 2, *self._keys[:2], token, beat, word, self._holder)
        except (RedisError, OSError) as error:
            # An owner whom nobody can see may well be there.
            watch.looked = float("-inf")
            if self._away.due():
                log.error("waiting for redis, which has the calls' state", reason=str(error) or type(error).__name__)
            return False
        self._away.well()
        if taken is None:
            return False
        number, self.realm = int(taken[0]), taken[1].decode()
        self.token, self._number, self._checked = f"{number}.{word}", number, began
        self._beat = self._confirmed_beat = 0
        self.after_another = bool(token.strip("-"))
        self.state, self.waiting_for = "owner", ""
        self._fresh.set()
        log.info("owner", asterisk_name=self._name, lease=number, was=holder.named(other))
        return True

    def _waits(self, token: str, other: str) -> None:
        if token == "-" or self.state == "standby":
            return
        self.state, self.waiting_for = "standby", holder.named(other)
        log.info("standby: waiting until the owner ends", asterisk_name=self._name, owner=self.waiting_for)

    # The owner.

    async def keep(self) -> None:
        """Renews it, until it is lost."""
        while self.state == "owner":
            await self._renew()
            if self.fresh:
                await self._rest()
            else:
                await asyncio.sleep(0)
            self._hurry.clear()

    async def _rest(self) -> None:
        """Until it is time to renew it, or somebody needs it now."""
        resting = asyncio.ensure_future(self._sleep(RENEW_S))
        hurried = asyncio.ensure_future(self._hurry.wait())
        try:
            await asyncio.wait((resting, hurried), return_when=asyncio.FIRST_COMPLETED)
        finally:
            resting.cancel()
            hurried.cancel()

    async def _renew(self) -> None:
        began, never_stopped, confirmed = self._clock(), self.fresh, self._written()
        self._beat += 1
        try:
            async with asyncio.timeout(ANSWER_S):
                answer, found = await self._eval(
                    _RENEW, 3, *self._keys[:2], written_key(self._name), self.token, self._number,
                    self._confirmed_beat, self._beat, self._holder, int(never_stopped), self.realm,
                )  # fmt: skip
        except (RedisError, OSError):  # TimeoutError is an OSError
            # Nobody can take it from one who can't reach Redis; that he was not stopped meanwhile shows in `began`.
            self._checked = max(self._checked, began)
        else:
            if answer == b"lost":
                self.lose()
                return
            self._confirmed_beat, self._checked = self._beat, began
            has = found.decode(errors="replace")
            lost = (has, confirmed) if _is_older(has, confirmed) else None
            if answer == b"forgotten" or (lost is not None and lost != self._lost):
                log.warning("redis has forgotten what was written: it is written again")
                self._forgotten()
            self._lost = lost
        if self.fresh:
            self._fresh.set()

    async def release(self) -> None:
        """Gives it back, after which this process may write nothing any more. If Redis is away, it runs out."""
        self.state = "lost"
        try:
            async with asyncio.timeout(ANSWER_S):
                await self._eval(_RELEASE, 1, self._keys[0], self.token)
        except (RedisError, OSError) as error:
            log.warning("the lease was not given back: it runs out", reason=str(error) or type(error).__name__)

    def _eval(self, script: str, keys: int, *arguments: str | int) -> Awaitable[Any]:
        return self._redis.eval(script, keys, *arguments)


@dataclass(frozen=True, slots=True)
class Seen:
    """For whoever looks from outside."""

    owner: str
    """"" if there is none."""
    age_ms: int
    """Since its last renewal."""
    standbys: list[str]
    token: str = ""
    realm: str = ""


def seen(client: redis.Redis, asterisk_name: str) -> Seen:
    """Raises RedisError."""
    token = cast("bytes | None", client.get(owner_key(asterisk_name)))
    lease = cast("dict[bytes, bytes]", client.hgetall(lease_key(asterisk_name)))
    seconds, micros = client.time()
    now = seconds * 1000 + micros // 1000
    waiting = cast("dict[bytes, bytes]", client.hgetall(standby_key(asterisk_name)))
    owner = holder.named(lease.get(b"holder", b"").decode()) if token else ""
    looks = [name.decode() for name, at in waiting.items() if now - int(at) < LEASE_S * 1000]
    return Seen(
        owner,
        now - int(lease.get(b"at", b"0")),
        sorted(name for name in looks if name != owner),
        (token or b"").decode(),
        lease.get(b"realm", b"").decode(),
    )
