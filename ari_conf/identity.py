"""Which Asterisk this is: the name under which its calls are kept, and whether it is the one that its owner serves.

The name is Asterisk's own entity id: wherever `serve` runs, it learns the same name from the same Asterisk, so that a
second one on another machine stands by for the first.
"""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

import structlog

from ari_conf.errors import AriError, SettingsError
from ari_conf.owner_mark import PATH, parsed, variables

log = structlog.get_logger()

ASK_AGAIN_S = 1.0
SAY_AGAIN_S = 60.0
"""Between two lines of the log that say the same."""
COMPARE_S = 5.0
"""Twice as long as an owner needs to write its mark again into an Asterisk that was restarted."""

DEBIANS = "dfsg"
"""In the version of Debian's and Ubuntu's packages."""


class Ari(Protocol):
    async def request(self, method: str, path: str, query: dict[str, str] | None = None) -> Any: ...


class Waiting(Protocol):
    state: Any
    realm: str
    waiting_for: str


async def name_of(ari: Ari) -> str:
    """Asks until Asterisk answers. Raises SettingsError if it has no entity id."""
    loop, said = asyncio.get_running_loop(), float("-inf")
    while True:
        try:
            return checked(await ari.request("GET", "/asterisk/info"))
        except AriError as error:
            if loop.time() - said >= SAY_AGAIN_S:
                said = loop.time()
                log.warning("waiting for asterisk, whose entity id names its calls", reason=str(error))
        await asyncio.sleep(ASK_AGAIN_S)


def checked(info: Any) -> str:
    """The entity id in the answer to /asterisk/info. Raises SettingsError."""
    system = info.get("system") if isinstance(info, dict) else None
    found = str(system.get("entity_id") or "") if isinstance(system, dict) else ""
    if not found.strip("0:"):
        raise SettingsError(
            "this Asterisk has no entity id (it found no network card): set entityid in the [options] of its "
            "asterisk.conf to one like 02:00:00:00:00:01, or give it a name by ARI_CONF_ASTERISK_NAME"
        )
    return found


def judges_by_number(info: Any) -> bool:
    """Whether this Asterisk, by its answer to /asterisk/info, drops a sound whose number is below the one before, as
    builds with the patch 2016_opus_plc do: all of Debian's and Ubuntu's."""
    system = info.get("system") if isinstance(info, dict) else None
    return isinstance(system, dict) and DEBIANS in str(system.get("version", ""))


class SameAsterisk:
    """While this process stands by: does the owner serve the Asterisk that this one asks?"""

    def __init__(self, ari: Ari, app: str, name: str, lease: Waiting, every_s: float = COMPARE_S) -> None:
        self._ari, self._name, self._lease, self._every_s = ari, name, lease, every_s
        self._mark, _ = variables(app)
        self.other = ""
        """What is wrong and what to do, where two Asterisks have one name."""

    async def watch(self) -> None:
        """For ever."""
        differs, said = 0, float("-inf")
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self._every_s)
            differs = differs + 1 if await self._differs() else 0
            self.other = other_asterisk(self._lease.waiting_for, self._name) if differs > 1 else ""
            if self.other and loop.time() - said >= SAY_AGAIN_S:
                said = loop.time()
                log.error(self.other)

    async def _differs(self) -> bool:
        if self._lease.state != "standby" or not self._lease.realm:
            return False
        try:
            answer = await self._ari.request("GET", PATH, {"variable": self._mark})
        except AriError:
            return False
        found = parsed(str(answer.get("value", "")) if isinstance(answer, dict) else "")
        return found is None or found.realm != self._lease.realm


def other_asterisk(owner: str, name: str) -> str:
    return (
        f"{owner} has the calls of {name}, but does not serve this Asterisk: if these are two Asterisks, give them "
        "different names, by entityid in asterisk.conf or by ARI_CONF_ASTERISK_NAME"
    )
