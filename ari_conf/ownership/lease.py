"""Ownership lease: a lease in Redis gives an Asterisk's calls to one process; its token fences off the previous owner.

| key | is |
|---|---|
| ari_conf:owner:ASTERISK | the owner's fencing token, "" if released. Processes with another token write nothing |
| ari_conf:lease:ASTERISK | hash: `number` of the lease, `heartbeat`, `renewed_ms` (Redis' clock), `identity`, `realm` |
| ari_conf:last-batch:ASTERISK | the id of the last batch of steps that the owner has written: see `store.state_store` |
| ari_conf:asterisks | set: the names of all Asterisks that ever had an owner |
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
from typing import Any, Literal, NamedTuple, cast

import redis
import redis.asyncio
import structlog
from redis import RedisError

from ari_conf.common import lua, process_identity, state_version
from ari_conf.common.log_throttle import LogThrottle
from ari_conf.common.redis_keys import PREFIX, STATE_VERSION_KEY

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

ASTERISKS_KEY = f"{PREFIX}asterisks"
NO_TOKEN = "-"
"""Stands for a fencing token or heartbeat that Redis does not have. A released lease has an empty token."""

State = Literal["starting", "standby", "owner", "lost"]

_OBSERVE = lua.load("ari_conf.ownership.scripts.observe_lease")
_TAKE = lua.load("ari_conf.ownership.scripts.take_lease")
_RENEW = lua.load("ari_conf.ownership.scripts.renew_lease")
_RELEASE = lua.load("ari_conf.ownership.scripts.release_lease")


def owner_key(asterisk_name: str) -> str:
    return f"{PREFIX}owner:{asterisk_name}"


def lease_key(asterisk_name: str) -> str:
    return f"{PREFIX}lease:{asterisk_name}"


def standby_key(asterisk_name: str) -> str:
    return f"{PREFIX}standby:{asterisk_name}"


def boottime() -> float:
    """Return CLOCK_BOOTTIME in seconds, which advances while this process or the machine is suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def last_batch_key(asterisk_name: str) -> str:
    return f"{PREFIX}last-batch:{asterisk_name}"


def _is_older(found: str, confirmed: str) -> bool:
    """Return True if Redis has lost a batch that it had confirmed. Ids are PROCESS-NUMBER, perhaps with a suffix."""
    if not confirmed:
        return False
    process, number = confirmed.split("-")[:2]
    found_process, _, rest = found.partition("-")
    found_number = rest.partition("-")[0]
    is_number = found_number.isascii() and found_number.isdigit()
    return found_process != process or not is_number or int(found_number) < int(number)


class SeenLease(NamedTuple):
    """The lease as a standby has seen it in Redis."""

    fencing_token: str
    heartbeat: str
    owner_identity: str
    realm: str


class TakenLease(NamedTuple):
    number: int
    realm: str


class LostBatch(NamedTuple):
    """A loss of data by Redis: the id of the last batch that it has, and of the last one that it had confirmed."""

    found: str
    confirmed: str


@dataclass(slots=True)
class LeaseObservation:
    """A standby's observation of the owner: the token and heartbeat seen, and since when without a gap (seconds)."""

    seen: tuple[str, str] = ("", "")
    since: float = 0.0
    looked_at: float = 0.0

    def may_take(self, fencing_token: str, heartbeat: str, owner_identity: str, now: float) -> bool:
        if (fencing_token, heartbeat) != self.seen or now - self.looked_at > 5 * POLL_INTERVAL_S + REDIS_TIMEOUT_S:
            self.seen, self.since = (fencing_token, heartbeat), now
        self.looked_at = now
        if fencing_token == NO_TOKEN:
            return now - self.since >= EMPTY_REDIS_WAIT_S
        return fencing_token == "" or process_identity.is_dead(owner_identity) or now - self.since >= LEASE_S


class OwnershipLease:
    def __init__(
        self,
        client: redis.asyncio.Redis,
        asterisk_name: str,
        *,
        on_data_loss: Callable[[], None] = lambda: None,
        confirmed_batch_id: Callable[[], str] = lambda: "",
        clock: Callable[[], float] = boottime,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Create a lease that is not held yet.

        `on_data_loss` is called when Redis has lost data, which must then be written again. `confirmed_batch_id`
        returns the id of the last batch that Redis has confirmed.
        """
        self._redis, self._name = client, asterisk_name
        self._keys = (owner_key(asterisk_name), lease_key(asterisk_name), standby_key(asterisk_name))
        self._on_data_loss = on_data_loss
        self._confirmed_batch_id = confirmed_batch_id
        self._clock = clock
        self._sleep = sleep
        self._identity = process_identity.current()
        self._outage = LogThrottle()
        self._renewed_at = float("-inf")
        """Start of the last renewal whose answer or failure is known, in seconds of the clock."""
        self._lease_number = 0
        self._heartbeat = self._confirmed_heartbeat = 0
        self._logged_loss: LostBatch | None = None
        self._renewal_requested = asyncio.Event()
        self._confirmed = asyncio.Event()
        self._is_lost = asyncio.Event()
        self.current_owner = ""
        """Host and pid of the owner while this process is a standby, otherwise empty."""
        self.succeeded_unreleased = False
        """True if the previous owner did not release the lease."""
        self.state: State = "starting"
        self.fencing_token = ""
        self.realm = ""
        """The realm of all owners under this name in this Redis: see the module's docstring."""

    @property
    def is_held(self) -> bool:
        """Return True if this process is the owner and may act."""
        return self.state == "owner" and self._clock() - self._renewed_at < ACT_WITHIN_S

    async def wait_until_held(self) -> None:
        """Wait until this process may act, nearly always no time. Never returns once it is no longer the owner."""
        while not self.is_held:
            self._confirmed.clear()
            self._renewal_requested.set()
            await self._confirmed.wait()

    async def until_lost(self) -> None:
        await self._is_lost.wait()

    def mark_lost(self) -> None:
        """Record that another process has the lease. Called by components that find this out, such as the writer."""
        if self.state != "lost":
            log.error("lease lost", asterisk_name=self._name, action="stopping")
        self.state = "lost"
        self._is_lost.set()

    # Standby.

    async def acquire(self) -> None:
        """Wait until this process is the owner. Raises StateVersionRefused, also for an upgrade while it waits."""
        observation = LeaseObservation()
        while not await self._try_to_acquire(observation):
            await self._sleep(POLL_INTERVAL_S)

    async def _try_to_acquire(self, observation: LeaseObservation) -> bool:
        try:
            await state_version.check_async(self._redis)
            seen = await self._look()
            self.realm = seen.realm
            if not observation.may_take(seen.fencing_token, seen.heartbeat, seen.owner_identity, self._clock()):
                self._become_standby(seen)
                return False
            began, word = self._clock(), token_hex(8)
            taken = await self._take(seen, word)
        except (RedisError, OSError) as error:
            # An owner may well exist although no standby can see it.
            observation.looked_at = float("-inf")
            if self._outage.should_log():
                reason = str(error) or type(error).__name__
                log.error("redis unavailable at startup", reason=reason, waiting_for="lease")
            return False
        self._outage.reset()
        if taken is None:
            return False
        self.fencing_token, self.realm = f"{taken.number}.{word}", taken.realm
        self._lease_number, self._renewed_at = taken.number, began
        self._heartbeat = self._confirmed_heartbeat = 0
        self.succeeded_unreleased = seen.fencing_token not in ("", NO_TOKEN)
        self.state, self.current_owner = "owner", ""
        self._confirmed.set()
        previous = process_identity.describe(seen.owner_identity)
        log.info("lease acquired", asterisk_name=self._name, lease=taken.number, was=previous)
        return True

    async def _look(self) -> SeenLease:
        answer = await self._eval(_OBSERVE, 3, *self._keys, process_identity.describe(self._identity))
        return SeenLease(*(part.decode(errors="replace") for part in cast("list[bytes]", answer)))

    async def _take(self, seen: SeenLease, word: str) -> TakenLease | None:
        """Take the lease, unless it or the state's version has changed since it was seen."""
        arguments = (seen.fencing_token, seen.heartbeat, word, self._identity, state_version.VERSION)
        answer = await self._eval(_TAKE, 3, *self._keys[:2], STATE_VERSION_KEY, *arguments)
        return None if answer is None else TakenLease(int(answer[0]), answer[1].decode())

    def _become_standby(self, seen: SeenLease) -> None:
        if seen.fencing_token == NO_TOKEN or self.state == "standby":
            return
        self.state, self.current_owner = "standby", process_identity.describe(seen.owner_identity)
        log.info("standby started", asterisk_name=self._name, owner=self.current_owner)

    # Owner.

    async def renew_until_lost(self) -> None:
        """Renew the lease until it is lost."""
        while self.state == "owner":
            await self._renew()
            if self.is_held:
                await self._wait_until_due()
            else:
                await asyncio.sleep(0)
            self._renewal_requested.clear()

    async def _wait_until_due(self) -> None:
        """Wait until the next renewal is due, or until `wait_until_held` requests one."""
        due = asyncio.ensure_future(self._sleep(RENEW_S))
        requested = asyncio.ensure_future(self._renewal_requested.wait())
        try:
            await asyncio.wait((due, requested), return_when=asyncio.FIRST_COMPLETED)
        finally:
            due.cancel()
            requested.cancel()

    async def _renew(self) -> None:
        began, was_held, confirmed = self._clock(), self.is_held, self._confirmed_batch_id()
        self._heartbeat += 1
        try:
            async with asyncio.timeout(REDIS_TIMEOUT_S):
                result, found = await self._eval(
                    _RENEW, 5, *self._keys[:2], last_batch_key(self._name), STATE_VERSION_KEY, ASTERISKS_KEY,
                    self.fencing_token, self._lease_number, self._confirmed_heartbeat, self._heartbeat,
                    self._identity, int(was_held), self.realm, state_version.VERSION, self._name,
                )  # fmt: skip
        except (RedisError, OSError):  # TimeoutError is an OSError
            # No process can take the lease while Redis is unreachable; `began` shows that this one was not suspended.
            self._renewed_at = max(self._renewed_at, began)
        else:
            if result == b"lost":
                self.mark_lost()
                return
            self._confirmed_heartbeat, self._renewed_at = self._heartbeat, began
            batch_id = found.decode(errors="replace")
            loss = LostBatch(batch_id, confirmed) if _is_older(batch_id, confirmed) else None
            if result == b"forgotten" or (loss is not None and loss != self._logged_loss):
                log.warning("redis data lost", action="writing all live state again")
                self._on_data_loss()
            self._logged_loss = loss
        if self.is_held:
            self._confirmed.set()

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
    seen_at_by_standby = cast("dict[bytes, bytes]", client.hgetall(standby_key(asterisk_name)))
    owner = process_identity.describe(lease.get(b"identity", b"").decode()) if token else ""
    standbys = [name.decode() for name, at in seen_at_by_standby.items() if now - int(at) < LEASE_S * 1000]
    return LeaseStatus(
        owner,
        now - int(lease.get(b"renewed_ms", b"0")),
        sorted(name for name in standbys if name != owner),
        (token or b"").decode(),
        lease.get(b"realm", b"").decode(),
    )
