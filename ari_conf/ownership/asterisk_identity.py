"""Identity of an Asterisk: the name under which its calls are kept, and the check that its owner serves the same one.

The name is Asterisk's own entity id. On every machine, a server learns the same name from the same Asterisk, so that a
second server on another machine stands by for the first.
"""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

import structlog

from ari_conf.errors import AriError, SettingsError
from ari_conf.ownership.owner_mark import PATH, parse_mark, variable_names

log = structlog.get_logger()

RETRY_DELAY_S = 1.0
LOG_INTERVAL_S = 60.0
"""Minimum seconds between two log entries with the same text."""
COMPARE_INTERVAL_S = 5.0
"""Seconds between two comparisons: twice as long as an owner needs to write its mark again after Asterisk restarted."""

DEBIAN_VERSION_PART = "dfsg"
"""A part of the version string of Debian's and Ubuntu's packages."""


class Ari(Protocol):
    async def request(self, method: str, path: str, query: dict[str, str] | None = None) -> Any: ...


class StandbyLease(Protocol):
    state: Any
    realm: str
    current_owner: str


async def wait_for_entity_id(ari: Ari) -> str:
    """Return the entity id of Asterisk, asking until it answers. Raises SettingsError if it has none."""
    loop, logged_at = asyncio.get_running_loop(), float("-inf")
    while True:
        try:
            return entity_id(await ari.request("GET", "/asterisk/info"))
        except AriError as error:
            if loop.time() - logged_at >= LOG_INTERVAL_S:
                logged_at = loop.time()
                log.warning("asterisk unavailable at startup", reason=str(error), waiting_for="entity id")
        await asyncio.sleep(RETRY_DELAY_S)


def entity_id(info: Any) -> str:
    """Return the entity id in the answer to /asterisk/info. Raises SettingsError if it has none."""
    system = info.get("system") if isinstance(info, dict) else None
    text = str(system.get("entity_id") or "") if isinstance(system, dict) else ""
    if not text.strip("0:"):
        raise SettingsError(
            "this Asterisk has no entity id (it found no network card): set entityid in [options] of its "
            "asterisk.conf, for example to 02:00:00:00:00:01, or set ARI_CONF_ASTERISK_NAME"
        )
    return text


def drops_reordered_packets(info: Any) -> bool:
    """Return True if this Asterisk drops an RTP packet whose sequence number is below the previous one.

    Builds with the patch 2016_opus_plc do so: all of Debian's and Ubuntu's. `info`: the answer to /asterisk/info.
    """
    system = info.get("system") if isinstance(info, dict) else None
    return isinstance(system, dict) and DEBIAN_VERSION_PART in str(system.get("version", ""))


class IdentityCheck:
    """Identity check of a standby: detects that the owner serves another Asterisk than the one this process asks."""

    def __init__(
        self, ari: Ari, app: str, name: str, lease: StandbyLease, interval_s: float = COMPARE_INTERVAL_S
    ) -> None:
        self._ari, self._name, self._lease, self._interval_s = ari, name, lease, interval_s
        self._mark_variable, _ = variable_names(app)
        self.other = ""
        """Error text while two Asterisk servers have the same name, otherwise empty."""

    async def watch(self) -> None:
        """Compare every `interval_s` seconds, and set `other` after two differences in a row. Never returns."""
        differs, logged_at = 0, float("-inf")
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self._interval_s)
            differs = differs + 1 if await self._differs() else 0
            self.other = other_asterisk(self._lease.current_owner, self._name) if differs > 1 else ""
            if self.other and loop.time() - logged_at >= LOG_INTERVAL_S:
                logged_at = loop.time()
                log.error("asterisk name conflict detected", reason=self.other)

    async def _differs(self) -> bool:
        if self._lease.state != "standby" or not self._lease.realm:
            return False
        try:
            answer = await self._ari.request("GET", PATH, {"variable": self._mark_variable})
        except AriError:
            return False
        found = parse_mark(str(answer.get("value", "")) if isinstance(answer, dict) else "")
        return found is None or found.realm != self._lease.realm


def other_asterisk(owner: str, name: str) -> str:
    return (
        f"{owner} owns the calls of {name}, but does not serve this Asterisk: if there are two Asterisk servers, they "
        "need different names; set entityid in asterisk.conf or ARI_CONF_ASTERISK_NAME"
    )
