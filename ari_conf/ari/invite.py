"""What a call's INVITE says besides the numbers: codec, X-PH-* headers, and whether the caller wants to be known."""

from __future__ import annotations

import asyncio
import string
from collections.abc import Iterable
from dataclasses import dataclass

from ari_conf.ari.client import Client
from ari_conf.ari.translate import path
from ari_conf.errors import AriError, AriUnreachable

CODEC, KIND, WANTED = "CHANNEL(audionativeformat)", "CHANNEL(channeltype)", "X-PH-"
ADDRESSES = "${CHANNEL(pjsip,remote_addr)} ${CHANNEL(rtp,dest)}"
"""Where the INVITE came from, and where sound is sent to: each as host:port; empty if the call did not come by SIP."""
READABLE = r"FILTER(\x20-\x7e,${%s})"
"""What of a text can be told as JSON, whatever bytes its sender put into it."""
IN_NAMES = string.digits + string.ascii_lowercase + "-_"
"""What headers' names consist of; case doesn't matter."""
AT_ONCE = 64
"""Prefixes of names that Asterisk is asked for in one request."""
MOST_HEADERS = 200
"""X-PH-* headers of one call: each is a request to Asterisk, and a parameter of every request."""
WITHHELD = {"id", "user", "header"}
"""Of the Privacy header (RFC 3323, RFC 3325)."""
HIDDEN = ("privacy=full", "privacy=uri")
"""Of Remote-Party-ID, which came before it."""
LEFT_OUT = (
    "a header of the call's INVITE is longer than 4 KB, or there are very many: Asterisk tells no such header, so that "
    "some of its X-PH- headers may be missing"
)
UNANSWERED = (
    "Asterisk did not answer what the call's INVITE says: its X-PH- headers are missing, and its caller is anonymous, "
    "since they may want to be"
)


@dataclass(frozen=True, slots=True)
class Invite:
    codec: str
    headers: tuple[tuple[str, str], ...] = ()
    """X-PH-*; none if the call did not come by SIP."""
    withheld: bool = False
    warnings: tuple[str, ...] = ()
    addresses: str = ""
    """host:port, separated by spaces: where it came from, and where sound is sent to."""


async def read(ari: Client, channel_id: str) -> Invite:
    """As far as Asterisk tells it. Never raises AriError."""
    asking = _Asking(ari, channel_id)
    codec, by_sip, addresses, names = await asking.what_it_is()
    if not by_sip:
        unknown = asking.unanswered
        return Invite(codec, withheld=unknown, warnings=(UNANSWERED,) if unknown else ())
    warnings: list[str] = []
    if names is None:
        # With one that is too long, or too many, Asterisk tells no names at all.
        withheld = await asking.withheld("Privacy", "Remote-Party-ID")
        wanted, whole = await asking.wanted()
        warnings += [] if whole else [LEFT_OUT]
    else:
        withheld = await asking.withheld(*(name for name in names if name.lower() in ("privacy", "remote-party-id")))
        wanted = [name for name in names if name.upper().startswith(WANTED)]
    wanted = list({name.lower(): name for name in reversed(wanted)}.values())[::-1]
    if len(wanted) > MOST_HEADERS:
        warnings.append(f"of the call's {len(wanted)} X-PH- headers the first {MOST_HEADERS} are told")
        del wanted[MOST_HEADERS:]
    headers = []
    for name, (value, warning) in zip(wanted, await asyncio.gather(*map(asking.header, wanted)), strict=True):
        warnings += [warning] if warning else []
        headers += [(name, value)] if value is not None else []
    return Invite(codec, tuple(headers), withheld, tuple(warnings), addresses)


class _Asking:
    def __init__(self, ari: Client, channel_id: str) -> None:
        self._ari, self._channel_id = ari, channel_id
        self.unanswered = False
        """Asterisk did not answer all that it was asked."""

    async def what_it_is(self) -> tuple[str, bool, str, list[str] | None]:
        """The codec, whether the call came by SIP, the addresses, and the names of its headers; None if they are not
        told. In one request; in several if this Asterisk has no EVAL()."""
        # What a caller wrote into their headers comes out of it, and is not evaluated.
        names = READABLE % "PJSIP_HEADERS()"
        told = await self._variable(f"EVAL(${{{CODEC}}};${{{KIND}}};{ADDRESSES};${{{names}}})")
        if told is not None and told.count(";") >= 3:
            codec, kind, addresses, listed = told.split(";", 3)
            return codec, kind == "PJSIP", addresses, _split(listed) or None
        codec, kind, listed = [await self._variable(asked) or "" for asked in (CODEC, KIND, "PJSIP_HEADERS()")]
        return codec, kind == "PJSIP", "", _split(listed) or None

    async def withheld(self, *names: str) -> bool:
        """Also if one of these headers is there and can't be read: it may well ask for that."""
        for name in names:
            asked = f"PJSIP_HEADER(read,{name})"
            if (said := await self._variable(asked)) is None:
                said = await self._variable(f"EVAL(${{{READABLE % asked}}})")
            if said is None:
                return True
            words = {word.strip() for word in said.lower().replace(",", ";").split(";")}
            if not words.isdisjoint(WITHHELD if name.lower() == "privacy" else HIDDEN):
                return True
        return False

    async def wanted(self) -> tuple[list[str], bool]:
        """The names of X-PH-* headers, asked for by what they begin with; and whether these are all."""
        if listed := await self._variable(f"PJSIP_HEADERS({WANTED})"):
            return _split(listed), True
        found: list[str] = []
        prefixes = [WANTED + letter for letter in IN_NAMES]
        for last in (False, True):
            # Not told apart: that there is none, and that one of them is too long.
            empty: list[str] = []
            for first in range(0, len(prefixes), AT_ONCE):
                some = prefixes[first : first + AT_ONCE]
                for prefix, listed in zip(some, await self._beginning(some), strict=False):
                    found += _split(listed)
                    empty += [] if listed else [prefix]
            if last:
                break
            prefixes = [prefix + letter for prefix in empty for letter in IN_NAMES]
        return found, False

    async def _beginning(self, prefixes: Iterable[str]) -> list[str]:
        asked = ";".join(f"${{{READABLE % f'PJSIP_HEADERS({prefix})'}}}" for prefix in prefixes)
        return (await self._variable(f"EVAL({asked})") or "").split(";")

    async def header(self, name: str) -> tuple[str | None, str]:
        """Its value, and what is wrong with it."""
        asked = f"PJSIP_HEADER(read,{name})"
        if (value := await self._variable(asked)) is not None:
            return value, ""
        if value := await self._variable(f"EVAL(${{{READABLE % asked}}})"):
            return value, f"the header {name} is no UTF-8: what of it is none is left out"
        return None, f"the header {name} is left out: it is longer than 4 KB, or no text"

    async def _variable(self, name: str) -> str | None:
        """None if Asterisk does not tell it."""
        where = path("channels", self._channel_id, "variable")
        try:
            answer = await self._ari.request("GET", where, {"variable": name}, over="socket")
        except AriError as error:
            self.unanswered = self.unanswered or isinstance(error, AriUnreachable)
            return None
        return str(answer.get("value", "")) if isinstance(answer, dict) else None


def _split(listed: str) -> list[str]:
    return [name for name in listed.split(",") if name]
