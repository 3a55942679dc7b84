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

from ari_conf.common import process_identity as holder
from ari_conf.errors import AriError

log = structlog.get_logger()

LOOK_EVERY_S = 2.0
RIVAL_S = 6.0
"""Seconds after which a rival with an unchanged heartbeat counts as gone: three looks, so that one may be late."""
SAY_AGAIN_S = 60.0
"""Minimum seconds between two log entries about the same rival."""
PATH = "/asterisk/variable"


class Mark(msgspec.Struct, frozen=True):
    token: str
    realm: str = ""
    name: str = ""
    """The asterisk_name of its owner."""
    holder: str = ""


class Ari(Protocol):
    async def request(self, method: str, path: str, query: dict[str, str]) -> Any: ...


class Owning(Protocol):
    fencing_token: str
    realm: str

    def mark_lost(self) -> None: ...


class OwnerMark:
    def __init__(
        self,
        ari: Ari,
        app: str,
        name: str,
        lease: Owning,
        every_s: float = LOOK_EVERY_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ari = ari
        self._name = name
        self._mark, self._beat = variables(app)
        self._lease = lease
        self._every_s = every_s
        self._clock = clock
        self._written = False
        self._beats = 0
        self.rival = ""
        """Error text while a rival has the calls, otherwise empty."""

    async def no_rival(self) -> None:
        """Wait until no live process of another realm has this Asterisk's calls, or until Asterisk can't be asked."""
        seen, since, said = "", self._clock(), float("-inf")
        while True:
            try:
                found = parsed(await self._read(self._mark))
                beat = await self._read(self._beat)
            except AriError as error:
                log.debug("owner mark not read", reason=str(error))
                break
            if found is None or found.realm == self._lease.realm or holder.is_dead(found.holder):
                break
            now = self._clock()
            if beat != seen:
                if seen:
                    self.rival = rival(found, self._name)
                seen, since = beat, now
            elif now - since >= RIVAL_S:
                break
            if self.rival and now - said >= SAY_AGAIN_S:
                said = now
                log.error("rival owner detected", reason=self.rival)
            await asyncio.sleep(self._every_s / 2)
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
            await asyncio.sleep(self._every_s)

    async def _is_ours(self) -> bool:
        if self._written:
            found = parsed(await self._read(self._mark))
            if found is not None:
                if found.token != self._lease.fencing_token:
                    return False
                await self._count()
                return True
        # This is the first time, or Asterisk has restarted and lost its variables.
        ours = Mark(self._lease.fencing_token, self._lease.realm, self._name, holder.current())
        await self._write(self._mark, msgspec.json.encode(ours).decode())
        self._written = True
        await self._count()
        return True

    async def _count(self) -> None:
        # The heartbeat has its own variable: rewriting the mark could overwrite that of a new owner.
        self._beats += 1
        await self._write(self._beat, f"{self._lease.fencing_token} {self._beats}")

    async def _read(self, variable: str) -> str:
        answer = await self._ari.request("GET", PATH, {"variable": variable})
        return str(answer.get("value", "")) if isinstance(answer, dict) else ""

    async def _write(self, variable: str, value: str) -> None:
        await self._ari.request("POST", PATH, {"variable": variable, "value": value})


def variables(app: str) -> tuple[str, str]:
    """Return the names of the global variables that hold the mark and the heartbeat."""
    word = re.sub(r"\W", "_", app)
    return f"ARI_CONF_OWNER_{word}", f"ARI_CONF_BEAT_{word}"


def parsed(text: str) -> Mark | None:
    if not text:
        return None
    try:
        return msgspec.json.decode(text, type=Mark)
    except msgspec.MsgspecError:
        return Mark(text)  # earlier versions wrote the token alone


def rival(mark: Mark, name: str) -> str:
    whose = holder.describe(mark.holder) or "another process"
    how = "using another Redis" if mark.name == name else f"under the name {mark.name}"
    return (
        f"{whose} already serves this Asterisk, {how}: stop it, or set the same ARI_CONF_REDIS_URL and "
        "ARI_CONF_ASTERISK_NAME for both, so that one is the other's standby; until it exits, this process serves no "
        "calls"
    )
