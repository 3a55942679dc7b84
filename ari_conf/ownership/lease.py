"""Ownership lease: a lease in Redis gives an Asterisk's calls to one process; its token fences off the previous owner.

| key | is |
|---|---|
| ari_conf:owner:ASTERISK | the owner's fencing token, "" if released. Processes with another token write nothing |
| ari_conf:lease:ASTERISK | hash: `number` of the lease, `beat` (heartbeat), `at` (Redis' clock), `holder`, `realm` |
| ari_conf:written:ASTERISK | the id of the last batch of steps that the owner has written: see `store.state_store` |
| ari_conf:standby:ASTERISK | hash: standby -> ms (Redis' clock) of its last look |

Clocks are never compared between machines. A standby takes over when it has seen the same heartbeat for LEASE_S while
Redis answered throughout. An owner acts only within ACT_WITHIN_S, which is shorter, of the start of its last renewal,
so that a process that was suspended and resumes does not act before it has asked Redis. While Redis is unreachable, no
process can take the lease either, and the owner carries on.

`realm` is a random word that all owners under one name in one Redis share. An owner with another realm is a rival (see
`owner_mark`).
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

from ari_conf.common import process_identity
from ari_conf.common.log_throttle import LogThrottle
from ari_conf.common.redis_clock import CLOCK
from ari_conf.common.redis_keys import PREFIX

log = structlog.get_logger()

LEASE_S = 2.5
"""Seconds without a renewal after which an owner may be replaced."""
ACT_WITHIN_S = 1.8
"""Seconds for which an owner acts without asking again. Below LEASE_S: clocks differ in rate, requests take time."""
RENEW_S, POLL_INTERVAL_S = 0.5, 0.2
REDIS_TIMEOUT_S = 0.5
"""Seconds without an answer after which Redis counts as unreachable."""
EMPTY_REDIS_WAIT_S = 1.2
"""Seconds that a standby waits if Redis knows no lease: Redis may have lost everything, and a live owner, which has the
calls, is about to write its lease again."""

State = Literal["waiting", "standby", "owner", "lost"]

# The script deletes whatever is not a valid token or field: a live owner writes its own again.
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

# KEYS: owner, lease. ARGV: the token and the heartbeat that were seen, a random word, holder. Answers number, realm.
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

# KEYS: owner, lease, the id of the last batch written. ARGV: token, its number, the last confirmed heartbeat, this
# heartbeat, holder, 1 if the owner was never suspended, realm. If Redis knows less than it confirmed, it has forgotten:
# it came back empty, or from an older copy. The owner then continues with what it has in memory, unless it was
# suspended in the meantime and another owner exists. Answers the result, and that id.
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

# KEYS: owner, lease, standby. ARGV: the standby's description.
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
    """Return CLOCK_BOOTTIME in seconds, which advances while this process or the machine is suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def written_key(asterisk_name: str) -> str:
    return f"{PREFIX}written:{asterisk_name}"


def _is_older(found: str, confirmed: str) -> bool:
    """Return True if Redis has lost a batch that it had confirmed. Ids are PROCESS-NUMBER, perhaps with a suffix."""
    if not confirmed:
        return False
    process, number = confirmed.split("-")[:2]
    found_process, _, rest = found.partition("-")
    found_number = rest.partition("-")[0]
    is_number = found_number.isascii() and found_number.isdigit()
    return found_process != process or not is_number or int(found_number) < int(number)


@dataclass(slots=True)
class LeaseObservation:
    """A standby's observation of the owner: the token and heartbeat seen, and since when without a gap (seconds)."""

    seen: tuple[str, str] = ("", "")
    since: float = 0.0
    looked: float = 0.0

    def may_take(self, token: str, beat: str, holder_text: str, now: float) -> bool:
        if (token, beat) != self.seen or now - self.looked > 5 * POLL_INTERVAL_S + REDIS_TIMEOUT_S:
            self.seen, self.since = (token, beat), now
        self.looked = now
        if token == "-":
            return now - self.since >= EMPTY_REDIS_WAIT_S
        return token == "" or process_identity.is_dead(holder_text) or now - self.since >= LEASE_S


class OwnershipLease:
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
        """Create a lease that is not held yet.

        `forgotten` is called when Redis has lost data, which must then be written again. `written` returns the id of
        the last batch that Redis has confirmed.
        """
        self._redis, self._name = client, asterisk_name
        self._keys = (owner_key(asterisk_name), lease_key(asterisk_name), standby_key(asterisk_name))
        self._forgotten = forgotten
        self._written = written
        self._clock = clock
        self._sleep = sleep
        self._holder = process_identity.current()
        self._away = LogThrottle()
        self._checked = float("-inf")
        """Start of the last renewal whose answer or failure is known, in seconds of the clock."""
        self._beat = self._confirmed_beat = 0
        self._lost: tuple[str, str] | None = None
        """The last loss that was logged: the batch id that Redis has, and the one that it had confirmed."""
        self._hurry = asyncio.Event()
        self._fresh = asyncio.Event()
        self._ended = asyncio.Event()
        self.current_owner = ""
        """Host and pid of the owner while this process is a standby, otherwise empty."""
        self.succeeded_unreleased = False
        """True if the previous owner did not release the lease."""
        self.state: State = "waiting"
        self.fencing_token = ""
        self.realm = ""
        """The realm of all owners under this name in this Redis: see the module's docstring."""

    @property
    def is_held(self) -> bool:
        """Return True if this process is the owner and may act."""
        return self.state == "owner" and self._clock() - self._checked < ACT_WITHIN_S

    async def wait_until_held(self) -> None:
        """Wait until this process may act, nearly always no time. Never returns once it is no longer the owner."""
        while not self.is_held:
            self._fresh.clear()
            self._hurry.set()
            await self._fresh.wait()

    async def until_lost(self) -> None:
        await self._ended.wait()

    def mark_lost(self) -> None:
        """Record that another process has the lease. Called by components that find this out, such as the writer."""
        if self.state != "lost":
            log.error("lease lost", asterisk_name=self._name, action="stopping")
        self.state = "lost"
        self._ended.set()

    # Standby.

    async def acquire(self) -> None:
        """Wait until this process is the owner."""
        watch = LeaseObservation()
        while True:
            if await self._tried(watch):
                return
            await self._sleep(POLL_INTERVAL_S)

    async def _tried(self, watch: LeaseObservation) -> bool:
        try:
            asked = self._eval(_LOOK, 3, *self._keys, process_identity.describe(self._holder))
            token, beat, other, self.realm = (
                part.decode(errors="replace") for part in cast("list[bytes]", await asked)
            )
            if not watch.may_take(token, beat, other, self._clock()):
                self._waits(token, other)
                return False
            began, word = self._clock(), token_hex(8)
            taken = await self._eval(_TAKE, 2, *self._keys[:2], token, beat, word, self._holder)
        except (RedisError, OSError) as error:
            # An owner may well exist although no standby can see it.
            watch.looked = float("-inf")
            if self._away.due():
                reason = str(error) or type(error).__name__
                log.error("redis unavailable at startup", reason=reason, waiting_for="lease")
            return False
        self._away.well()
        if taken is None:
            return False
        number, self.realm = int(taken[0]), taken[1].decode()
        self.fencing_token, self._number, self._checked = f"{number}.{word}", number, began
        self._beat = self._confirmed_beat = 0
        self.succeeded_unreleased = bool(token.strip("-"))
        self.state, self.current_owner = "owner", ""
        self._fresh.set()
        log.info("lease acquired", asterisk_name=self._name, lease=number, was=process_identity.describe(other))
        return True

    def _waits(self, token: str, other: str) -> None:
        if token == "-" or self.state == "standby":
            return
        self.state, self.current_owner = "standby", process_identity.describe(other)
        log.info("standby started", asterisk_name=self._name, owner=self.current_owner)

    # Owner.

    async def renew_until_lost(self) -> None:
        """Renew the lease until it is lost."""
        while self.state == "owner":
            await self._renew()
            if self.is_held:
                await self._rest()
            else:
                await asyncio.sleep(0)
            self._hurry.clear()

    async def _rest(self) -> None:
        """Wait until the next renewal is due, or until `wait_until_held` requests one."""
        resting = asyncio.ensure_future(self._sleep(RENEW_S))
        hurried = asyncio.ensure_future(self._hurry.wait())
        try:
            await asyncio.wait((resting, hurried), return_when=asyncio.FIRST_COMPLETED)
        finally:
            resting.cancel()
            hurried.cancel()

    async def _renew(self) -> None:
        began, never_stopped, confirmed = self._clock(), self.is_held, self._written()
        self._beat += 1
        try:
            async with asyncio.timeout(REDIS_TIMEOUT_S):
                answer, found = await self._eval(
                    _RENEW, 3, *self._keys[:2], written_key(self._name), self.fencing_token, self._number,
                    self._confirmed_beat, self._beat, self._holder, int(never_stopped), self.realm,
                )  # fmt: skip
        except (RedisError, OSError):  # TimeoutError is an OSError
            # No process can take the lease while Redis is unreachable; `began` shows that this one was not suspended.
            self._checked = max(self._checked, began)
        else:
            if answer == b"lost":
                self.mark_lost()
                return
            self._confirmed_beat, self._checked = self._beat, began
            has = found.decode(errors="replace")
            lost = (has, confirmed) if _is_older(has, confirmed) else None
            if answer == b"forgotten" or (lost is not None and lost != self._lost):
                log.warning("redis data lost", action="writing all live state again")
                self._forgotten()
            self._lost = lost
        if self.is_held:
            self._fresh.set()

    async def release(self) -> None:
        """Release the lease: this process may then write nothing more. If Redis is unreachable, the lease expires."""
        self.state = "lost"
        try:
            async with asyncio.timeout(REDIS_TIMEOUT_S):
                await self._eval(_RELEASE, 1, self._keys[0], self.fencing_token)
        except (RedisError, OSError) as error:
            reason = str(error) or type(error).__name__
            log.warning("lease not released", reason=reason, action="letting it expire")

    def _eval(self, script: str, keys: int, *arguments: str | int) -> Awaitable[Any]:
        return self._redis.eval(script, keys, *arguments)


@dataclass(frozen=True, slots=True)
class LeaseStatus:
    """The lease as seen from outside, for `ari-conf doctor`."""

    owner: str
    """Host and pid; "" if no process owns the lease."""
    age_ms: int
    """Milliseconds since the last renewal."""
    standbys: list[str]
    token: str = ""
    realm: str = ""


def read_status(client: redis.Redis, asterisk_name: str) -> LeaseStatus:
    """Return the lease's status in Redis. Raises RedisError if Redis can't be read."""
    token = cast("bytes | None", client.get(owner_key(asterisk_name)))
    lease = cast("dict[bytes, bytes]", client.hgetall(lease_key(asterisk_name)))
    seconds, micros = client.time()
    now = seconds * 1000 + micros // 1000
    waiting = cast("dict[bytes, bytes]", client.hgetall(standby_key(asterisk_name)))
    owner = process_identity.describe(lease.get(b"holder", b"").decode()) if token else ""
    looks = [name.decode() for name, at in waiting.items() if now - int(at) < LEASE_S * 1000]
    return LeaseStatus(
        owner,
        now - int(lease.get(b"at", b"0")),
        sorted(name for name in looks if name != owner),
        (token or b"").decode(),
        lease.get(b"realm", b"").decode(),
    )
