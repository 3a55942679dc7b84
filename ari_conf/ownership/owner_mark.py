"""Owner's mark in Asterisk: detects replaced owners that can't reach Redis, and rivals.

Redis gives the lease to one process at a time. If the network is cut in two, the previous owner may still reach
Asterisk but not Redis, and can't know that it was replaced. Each owner therefore writes its fencing token into a global
variable of Asterisk, once, when it becomes the owner. An owner that finds another token there has been replaced, and
stops.

A process with another Redis, or with another name for this Asterisk, gets a lease although another process has these
calls. Each would take the events away from the other. Every process therefore looks at the mark before it starts. A
mark of its own realm is that of a previous owner. A mark of another realm is a rival's, and as long as that rival
counts its heartbeat, in a second variable, this process waits.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from typing import Any, Protocol

import msgspec
import structlog

from ari_conf.common import process_identity
from ari_conf.errors import AriError

log = structlog.get_logger()

CHECK_INTERVAL_S = 2.0
RIVAL_TIMEOUT_S = 6.0
"""Seconds after which a rival with an unchanged heartbeat counts as gone: three looks, so that one may be late."""
LOG_INTERVAL_S = 60.0
"""Minimum seconds between two log entries about the same rival."""
PATH = "/asterisk/variable"


class Mark(msgspec.Struct, frozen=True):
    fencing_token: str
    realm: str = ""
    name: str = ""
    """The asterisk_name of its owner."""
    identity: str = ""


class Ari(Protocol):
    async def request(self, method: str, path: str, query: dict[str, str]) -> Any: ...


class OwnedLease(Protocol):
    fencing_token: str
    realm: str

    def mark_lost(self) -> None: ...


class OwnerMark:
    def __init__(
        self,
        ari: Ari,
        app: str,
        name: str,
        lease: OwnedLease,
        interval_s: float = CHECK_INTERVAL_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ari = ari
        self._name = name
        self._mark_variable, self._heartbeat_variable = variable_names(app)
        self._lease = lease
        self._interval_s = interval_s
        self._clock = clock
        self._is_written = False
        self._heartbeat = 0
        self.rival = ""
        """Error text while a rival has the calls, otherwise empty."""

    async def wait_until_no_rival(self) -> None:
        """Wait until no live process of another realm has this Asterisk's calls, or until Asterisk can't be asked."""
        seen, since, logged_at = "", self._clock(), float("-inf")
        while True:
            try:
                found = parse_mark(await self._read(self._mark_variable))
                heartbeat = await self._read(self._heartbeat_variable)
            except AriError as error:
                log.debug("owner mark not read", reason=str(error))
                break
            if found is None or found.realm == self._lease.realm or process_identity.is_dead(found.identity):
                break
            now = self._clock()
            if heartbeat != seen:
                if seen:
                    self.rival = describe_rival(found, self._name)
                seen, since = heartbeat, now
            elif now - since >= RIVAL_TIMEOUT_S:
                break
            if self.rival and now - logged_at >= LOG_INTERVAL_S:
                logged_at = now
                log.error("rival owner detected", reason=self.rival)
            await asyncio.sleep(self._interval_s / 2)
        self.rival = ""

    async def run(self) -> None:
        """Write the mark, check it and count the heartbeat until another process has taken over."""
        while True:
            try:
                if not await self._is_ours():
                    log.error("owner mark replaced", asterisk_name=self._name, action="stopping")
                    self._lease.mark_lost()
                    return
            except AriError as error:
                log.debug("owner mark not read", reason=str(error))
            await asyncio.sleep(self._interval_s)

    async def _is_ours(self) -> bool:
        if self._is_written:
            found = parse_mark(await self._read(self._mark_variable))
            if found is not None:
                if found.fencing_token != self._lease.fencing_token:
                    return False
                await self._increment_heartbeat()
                return True
        # This is the first time, or Asterisk has restarted and lost its variables.
        ours = Mark(self._lease.fencing_token, self._lease.realm, self._name, process_identity.current())
        await self._write(self._mark_variable, msgspec.json.encode(ours).decode())
        self._is_written = True
        await self._increment_heartbeat()
        return True

    async def _increment_heartbeat(self) -> None:
        # The heartbeat has its own variable: rewriting the mark could overwrite that of a new owner.
        self._heartbeat += 1
        await self._write(self._heartbeat_variable, f"{self._lease.fencing_token} {self._heartbeat}")

    async def _read(self, variable: str) -> str:
        answer = await self._ari.request("GET", PATH, {"variable": variable})
        return str(answer.get("value", "")) if isinstance(answer, dict) else ""

    async def _write(self, variable: str, value: str) -> None:
        await self._ari.request("POST", PATH, {"variable": variable, "value": value})


def variable_names(app: str) -> tuple[str, str]:
    """Return the names of the global variables that hold the mark and the heartbeat."""
    word = re.sub(r"\W", "_", app)
    return f"ARI_CONF_OWNER_{word}", f"ARI_CONF_HEARTBEAT_{word}"


def parse_mark(text: str) -> Mark | None:
    """Return the mark that a process wrote; None if there is none, or if something else wrote the variable."""
    try:
        return msgspec.json.decode(text, type=Mark)
    except msgspec.MsgspecError:
        return None


def describe_rival(mark: Mark, name: str) -> str:
    owner = process_identity.describe(mark.identity) or "another process"
    how = "using another Redis" if mark.name == name else f"under the name {mark.name}"
    return (
        f"{owner} already serves this Asterisk, {how}: stop it, or set the same ARI_CONF_REDIS_URL and "
        "ARI_CONF_ASTERISK_NAME for both, so that one is the other's standby; until it exits, this process serves no "
        "calls"
    )
