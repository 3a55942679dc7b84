"""Reader of a call's INVITE: codec, X-PH-* headers, and the caller's wish for privacy."""

from __future__ import annotations

import asyncio
import string
from collections.abc import Iterable
from dataclasses import dataclass

from ari_conf.ari.client import Client
from ari_conf.ari.translate import path
from ari_conf.errors import AriError, AriUnreachable

CODEC_VARIABLE, KIND_VARIABLE, HEADER_PREFIX = "CHANNEL(audionativeformat)", "CHANNEL(channeltype)", "X-PH-"
ADDRESSES = "${CHANNEL(pjsip,remote_addr)} ${CHANNEL(rtp,dest)}"
"""Source of the INVITE, and destination of the sound, as host:port; empty if the call did not come over SIP."""
PRINTABLE = r"FILTER(\x20-\x7e,${%s})"
"""Filter for the part of a text that can be sent as JSON, whatever bytes its sender put into it."""
NAME_CHARACTERS = string.digits + string.ascii_lowercase + "-_"
"""Characters of header names; case doesn't matter."""
PREFIX_BATCH = 64
"""Name prefixes that Asterisk is asked for in one request."""
MAX_HEADERS = 200
"""Maximum number of X-PH-* headers per call, because each is a request to Asterisk, and a parameter of every request to
the application."""
PRIVACY_WITHHELD = {"id", "user", "header"}
"""Values of the Privacy header that withhold the caller's identity (RFC 3323, RFC 3325)."""
PARTY_ID_WITHHELD = ("privacy=full", "privacy=uri")
"""Values of Remote-Party-ID, the predecessor of Privacy, that withhold the caller's identity."""
HEADERS_MISSING = (
    "some X-PH- headers of the call's INVITE may be missing: a header is longer than 4 KB, or the INVITE has very "
    "many, and Asterisk does not report such headers"
)
INVITE_UNREAD = (
    "the call's INVITE could not be read: Asterisk did not answer; its X-PH- headers are missing, and its caller is "
    "anonymous, because they may have asked for it"
)


@dataclass(frozen=True, slots=True)
class Invite:
    codec: str
    headers: tuple[tuple[str, str], ...] = ()
    """X-PH-* headers; empty if the call did not come over SIP."""
    withheld: bool = False
    warnings: tuple[str, ...] = ()
    addresses: str = ""
    """Source of the INVITE and destination of the sound, as host:port, separated by a space."""


async def read(ari: Client, channel_id: str) -> Invite:
    """Read the INVITE of a channel, as far as Asterisk reports it. Never raises AriError."""
    reader = _InviteReader(ari, channel_id)
    codec, by_sip, addresses, names = await reader.read_basics()
    if not by_sip:
        unknown = reader.unanswered
        return Invite(codec, withheld=unknown, warnings=(INVITE_UNREAD,) if unknown else ())
    warnings: list[str] = []
    if names is None:
        # If one header is too long, or if there are too many, Asterisk lists no names at all.
        withheld = await reader.is_withheld("Privacy", "Remote-Party-ID")
        wanted, whole = await reader.find_wanted()
        warnings += [] if whole else [HEADERS_MISSING]
    else:
        withheld = await reader.is_withheld(*(name for name in names if name.lower() in ("privacy", "remote-party-id")))
        wanted = [name for name in names if name.upper().startswith(HEADER_PREFIX)]
    wanted = list({name.lower(): name for name in reversed(wanted)}.values())[::-1]
    if len(wanted) > MAX_HEADERS:
        warnings.append(f"only the first {MAX_HEADERS} of the call's {len(wanted)} X-PH- headers are passed on")
        del wanted[MAX_HEADERS:]
    headers = []
    for name, (value, warning) in zip(wanted, await asyncio.gather(*map(reader.read_header, wanted)), strict=True):
        warnings += [warning] if warning else []
        headers += [(name, value)] if value is not None else []
    return Invite(codec, tuple(headers), withheld, tuple(warnings), addresses)


async def read_line(ari: Client, channel_id: str) -> tuple[str, str]:
    """Return (codec, addresses) of an answered channel, as in `Invite`; empty if Asterisk does not report them."""
    return await _InviteReader(ari, channel_id).read_line()


class _InviteReader:
    def __init__(self, ari: Client, channel_id: str) -> None:
        self._ari, self._channel_id = ari, channel_id
        self.unanswered = False
        """True if Asterisk did not respond to one of the requests."""

    async def read_basics(self) -> tuple[str, bool, str, list[str] | None]:
        """Return the codec, True if the call came over SIP, the addresses, and the names of its headers (None: not
        listed). This takes one request, or several if this Asterisk has no EVAL()."""
        # EVAL() does not evaluate the text that a caller wrote into a header.
        names = PRINTABLE % "PJSIP_HEADERS()"
        answer = await self._variable(f"EVAL(${{{CODEC_VARIABLE}}};${{{KIND_VARIABLE}}};{ADDRESSES};${{{names}}})")
        if answer is not None and answer.count(";") >= 3:
            codec, kind, addresses, listed = answer.split(";", 3)
            return codec, kind == "PJSIP", addresses, _split_names(listed) or None
        codec, kind, listed = [
            await self._variable(expression) or "" for expression in (CODEC_VARIABLE, KIND_VARIABLE, "PJSIP_HEADERS()")
        ]
        return codec, kind == "PJSIP", "", _split_names(listed) or None

    async def read_line(self) -> tuple[str, str]:
        """Return the codec and the addresses, if this Asterisk has EVAL(). The names of the headers are not asked for:
        Asterisk 22.10.1 may crash if the phone hangs up meanwhile."""
        answer = await self._variable(f"EVAL(${{{CODEC_VARIABLE}}};{ADDRESSES})")
        if answer is not None and ";" in answer:
            codec, _, addresses = answer.partition(";")
            return codec, addresses
        return await self._variable(CODEC_VARIABLE) or "", ""

    async def is_withheld(self, *names: str) -> bool:
        """Return True if one of these headers withholds the caller's identity, or exists but can't be read: it may well
        do so."""
        for name in names:
            expression = f"PJSIP_HEADER(read,{name})"
            if (value := await self._variable(expression)) is None:
                value = await self._variable(f"EVAL(${{{PRINTABLE % expression}}})")
            if value is None:
                return True
            words = {word.strip() for word in value.lower().replace(",", ";").split(";")}
            if not words.isdisjoint(PRIVACY_WITHHELD if name.lower() == "privacy" else PARTY_ID_WITHHELD):
                return True
        return False

    async def find_wanted(self) -> tuple[list[str], bool]:
        """Return the names of the X-PH-* headers, which Asterisk is asked for by prefix, and True if these are all."""
        if listed := await self._variable(f"PJSIP_HEADERS({HEADER_PREFIX})"):
            return _split_names(listed), True
        found: list[str] = []
        prefixes = [HEADER_PREFIX + character for character in NAME_CHARACTERS]
        for last in (False, True):
            # An empty answer means that there is no such header, or that one is too long.
            empty: list[str] = []
            for first in range(0, len(prefixes), PREFIX_BATCH):
                some = prefixes[first : first + PREFIX_BATCH]
                for prefix, listed in zip(some, await self._list_by_prefix(some), strict=False):
                    found += _split_names(listed)
                    empty += [] if listed else [prefix]
            if last:
                break
            prefixes = [prefix + character for prefix in empty for character in NAME_CHARACTERS]
        return found, False

    async def _list_by_prefix(self, prefixes: Iterable[str]) -> list[str]:
        expression = ";".join(f"${{{PRINTABLE % f'PJSIP_HEADERS({prefix})'}}}" for prefix in prefixes)
        return (await self._variable(f"EVAL({expression})") or "").split(";")

    async def read_header(self, name: str) -> tuple[str | None, str]:
        """Return the value of a header, or None, and the warning about it, or ""."""
        expression = f"PJSIP_HEADER(read,{name})"
        if (value := await self._variable(expression)) is not None:
            return value, ""
        if value := await self._variable(f"EVAL(${{{PRINTABLE % expression}}})"):
            return value, f"the header {name} is not valid UTF-8: its invalid bytes are left out"
        return None, f"the header {name} is left out: it is longer than 4 KB, or is not text"

    async def _variable(self, name: str) -> str | None:
        """Return a variable of the channel; None if Asterisk doesn't report it."""
        where = path("channels", self._channel_id, "variable")
        try:
            answer = await self._ari.request("GET", where, {"variable": name}, over="socket")
        except AriError as error:
            self.unanswered = self.unanswered or isinstance(error, AriUnreachable)
            return None
        return str(answer.get("value", "")) if isinstance(answer, dict) else None


def _split_names(listed: str) -> list[str]:
    return [name for name in listed.split(",") if name]
