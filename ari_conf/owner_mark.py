"""The owner's mark in Asterisk, for an owner that can't reach Redis while another process can.

Redis gives the lease to one process at a time. A network that is cut in two may leave the process before it with
Asterisk and without Redis: it can't know that it was replaced. So each owner writes its token into a global variable of
Asterisk, once, when it becomes the owner; one that finds another token there has been replaced, and stops.
"""

from __future__ import annotations

import asyncio
import re
from typing import Any, Protocol

import structlog

from ari_conf.errors import AriError

log = structlog.get_logger()

LOOK_EVERY_S = 2.0
PATH = "/asterisk/variable"


class Ari(Protocol):
    async def request(self, method: str, path: str, query: dict[str, str]) -> Any: ...


class Owning(Protocol):
    token: str

    def lose(self) -> None: ...


class OwnerMark:
    def __init__(self, ari: Ari, app: str, lease: Owning, every_s: float = LOOK_EVERY_S) -> None:
        self._ari = ari
        self._name = "ARI_CONF_OWNER_" + re.sub(r"\W", "_", app)
        self._lease = lease
        self._every_s = every_s
        self._written = False

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
            answer = await self._ari.request("GET", PATH, {"variable": self._name})
            found = str(answer.get("value", "")) if isinstance(answer, dict) else ""
            if found:
                return found == self._lease.token
        # The first time; or Asterisk was started anew, and knows nothing.
        await self._ari.request("POST", PATH, {"variable": self._name, "value": self._lease.token})
        self._written = True
        return True
