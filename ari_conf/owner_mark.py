"""The owner's mark in Asterisk, for an owner that can't reach Redis while another process can, and against rivals.

Redis gives the lease to one process at a time. A network that is cut in two may leave the process before it with
Asterisk and without Redis: it can't know that it was replaced. So each owner writes its token into a global variable of
Asterisk, once, when it becomes the owner; one that finds another token there has been replaced, and stops.

A process with another Redis, or with another name for this Asterisk, gets a lease although somebody has these calls.
Each would take the events away from the other. So whoever is about to begin looks at the mark first. A mark of its own
realm is that of an owner before it. One of another realm is a rival's, and as long as that rival counts its beat, in a
second variable, this process waits.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from typing import Any, Protocol

import msgspec
import structlog

from ari_conf import holder
from ari_conf.errors import AriError

log = structlog.get_logger()

LOOK_EVERY_S = 2.0
RIVAL_S = 6.0
"""A rival whose beat did not change for so long is gone: three looks, so that one may be late."""
SAY_AGAIN_S = 60.0
"""Between two lines of the log about the same rival."""
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
    token: str
    realm: str

    def lose(self) -> None: ...


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
        """What is wrong and what to do, while a rival has the calls."""

    async def no_rival(self) -> None:
        """Returns when no live process of another realm has this Asterisk's calls, or Asterisk can't be asked."""
        seen, since, said = "", self._clock(), float("-inf")
        while True:
            try:
                found = parsed(await self._read(self._mark))
                beat = await self._read(self._beat)
            except AriError as error:
                log.debug("the owner's mark was not looked at", reason=str(error))
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
                log.error(self.rival)
            await asyncio.sleep(self._every_s / 2)
        self.rival = ""

    async def run(self) -> None:
        """Until another process has taken over."""
        while True:
            try:
                if not await self._is_ours():
                    log.error("another process has taken over, as asterisk says: this one stops")
                    self._lease.lose()
                    return
            except AriError as error:
                log.debug("the owner's mark was not looked at", reason=str(error))
            await asyncio.sleep(self._every_s)

    async def _is_ours(self) -> bool:
        if self._written:
            found = parsed(await self._read(self._mark))
            if found is not None:
                if found.token != self._lease.token:
                    return False
                await self._count()
                return True
        # The first time; or Asterisk was started anew, and knows nothing.
        ours = Mark(self._lease.token, self._lease.realm, self._name, holder.this())
        await self._write(self._mark, msgspec.json.encode(ours).decode())
        self._written = True
        await self._count()
        return True

    async def _count(self) -> None:
        # In a variable of its own: a mark that is written again could replace that of whoever has replaced us.
        self._beats += 1
        await self._write(self._beat, f"{self._lease.token} {self._beats}")

    async def _read(self, variable: str) -> str:
        answer = await self._ari.request("GET", PATH, {"variable": variable})
        return str(answer.get("value", "")) if isinstance(answer, dict) else ""

    async def _write(self, variable: str, value: str) -> None:
        await self._ari.request("POST", PATH, {"variable": variable, "value": value})


def variables(app: str) -> tuple[str, str]:
    """The names of the mark and of the beat."""
    word = re.sub(r"\W", "_", app)
    return f"ARI_CONF_OWNER_{word}", f"ARI_CONF_BEAT_{word}"


def parsed(text: str) -> Mark | None:
    if not text:
        return None
    try:
        return msgspec.json.decode(text, type=Mark)
    except msgspec.MsgspecError:
        return Mark(text)  # as versions before this one wrote it: the token alone


def rival(mark: Mark, name: str) -> str:
    whose = holder.named(mark.holder) or "another process"
    how = "from another Redis" if mark.name == name else f"under the name {mark.name}"
    return (
        f"{whose} serves this Asterisk already, {how}: stop it, or give both the same ARI_CONF_REDIS_URL and "
        "ARI_CONF_ASTERISK_NAME, so that one stands by for the other; until it ends, this process takes no calls"
    )
