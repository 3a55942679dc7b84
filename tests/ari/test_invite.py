"""Tests of reading an INVITE, including one that Asterisk cannot return as a whole."""

from __future__ import annotations

import re
from typing import Any

from ari_conf.ari import invite
from ari_conf.ari.invite import Invite
from ari_conf.errors import AriError, AriUnreachable

MOST = 4096
ADDRESSES = {"CHANNEL(pjsip,remote_addr)": b"203.0.113.7:5060", "CHANNEL(rtp,dest)": b"203.0.113.8:4000"}
TOLD = "203.0.113.7:5060 203.0.113.8:4000"
ORDINARY = {"Via": "SIP/2.0/UDP x", "From": "<sip:1@x>", "To": "<sip:2@x>"}


class Asterisk:
    """Fake of Asterisk 22.10.1 with an INVITE's headers: one that it cannot return is a 500 alone, and empty within
    EVAL()."""

    def __init__(self, headers: dict[str, bytes | str], *, kind: str = "PJSIP", evaluates: bool = True) -> None:
        self.headers = {name: value.encode() if isinstance(value, str) else value for name, value in headers.items()}
        self.kind, self.evaluates = kind, evaluates
        self.asked: list[str] = []

    async def request(self, _method: str, _path: str, query: dict[str, str], **_: Any) -> dict[str, str]:
        asked = query["variable"]
        self.asked.append(asked)
        reported = self._told(asked)
        if reported is None:
            raise AriError("Unable to read provided function", 500)
        try:
            return {"value": reported.decode()}
        except UnicodeDecodeError:
            raise AriError("Allocation failed", 500) from None

    def _told(self, asked: str) -> bytes | None:
        if asked.startswith("EVAL("):
            if not self.evaluates:
                return None
            text, out, at = asked[5:-1], b"", 0
            while at < len(text):
                if text.startswith("${", at):
                    end = _closing(text, at + 1)
                    out += self._told(text[at + 2 : end]) or b""
                    at = end + 1
                else:
                    out += text[at].encode()
                    at += 1
            return out
        if found := re.fullmatch(r"FILTER\(\\x20-\\x7e,\$\{(.*)\}\)", asked):
            return bytes(byte for byte in self._told(found[1]) or b"" if 0x20 <= byte <= 0x7E)
        if asked == "CHANNEL(audionativeformat)":
            return b"(ulaw)"
        if asked == "CHANNEL(channeltype)":
            return self.kind.encode()
        if asked in ADDRESSES:
            return ADDRESSES[asked] if self.kind == "PJSIP" else None
        if found := re.fullmatch(r"PJSIP_HEADERS\((.*)\)", asked):
            return self._names(found[1])
        if found := re.fullmatch(r"PJSIP_HEADER\(read,(.*)\)", asked):
            value = next((v for name, v in self.headers.items() if name.lower() == found[1].lower()), b"")
            return value if 0 < len(value) < MOST else None
        raise AssertionError(asked)

    def _names(self, prefix: str) -> bytes | None:
        found = [name for name in self.headers if name.lower().startswith(prefix.lower())]
        if any(len(self.headers[name]) + len(name) > MOST for name in found):
            return None
        return ",".join(found).encode() if found and len(",".join(found)) < MOST else None


def _closing(text: str, opened: int) -> int:
    depth = 0
    for at in range(opened, len(text)):
        depth += {"{": 1, "}": -1}.get(text[at], 0)
        if not depth:
            return at
    raise AssertionError(text)


async def read(asterisk: Any) -> Invite:
    return await invite.read(asterisk, "c1")


async def test_an_ordinary_one_is_one_request_and_one_for_each_header_that_is_wanted() -> None:
    asterisk = Asterisk({**ORDINARY, "X-PH-Room": "red", "x-ph-team": "blue; ${SHELL(id)}", "X-Other": "o"})
    found = await read(asterisk)
    assert found == Invite("(ulaw)", (("X-PH-Room", "red"), ("x-ph-team", "blue; ${SHELL(id)}")), addresses=TOLD)
    assert len(asterisk.asked) == 3


async def test_without_any_that_is_wanted_it_is_one_request() -> None:
    asterisk = Asterisk(ORDINARY)
    assert await read(asterisk) == Invite("(ulaw)", addresses=TOLD)
    assert len(asterisk.asked) == 1


async def test_another_channel_has_none() -> None:
    asterisk = Asterisk({}, kind="IAX2")
    assert await read(asterisk) == Invite("(ulaw)")
    assert len(asterisk.asked) == 1


async def test_an_asterisk_without_eval() -> None:
    found = await read(Asterisk({**ORDINARY, "X-PH-Room": "red"}, evaluates=False))
    assert found == Invite("(ulaw)", (("X-PH-Room", "red"),))


async def test_one_that_is_too_long_costs_none_of_the_others() -> None:
    found = await read(Asterisk({**ORDINARY, "X-PH-Token": "t" * 5000, "X-PH-Room": "red", "X-PH-Team": "blue"}))
    assert dict(found.headers) == {"X-PH-Room": "red", "X-PH-Team": "blue"}
    assert found.warnings == (invite.HEADERS_MISSING,)


async def test_another_header_that_is_too_long_costs_nothing() -> None:
    found = await read(Asterisk({**ORDINARY, "Identity": "i" * 5000, "X-PH-Room": "red", "Privacy": "id"}))
    assert found == Invite("(ulaw)", (("X-PH-Room", "red"),), withheld=True, addresses=TOLD)


async def test_very_many() -> None:
    many = {f"X-PH-{letter * 40}{n}": f"{letter}{n}" for letter in "abcd" for n in range(40)}
    found = await read(Asterisk({**ORDINARY, **many}))
    assert dict(found.headers) == many and len(many) == 160


async def test_headers_beyond_the_limit() -> None:
    many = {f"X-PH-{n}": f"{n}" for n in range(invite.MAX_HEADERS + 50)}
    found = await read(Asterisk({**ORDINARY, **many}))
    assert len(found.headers) == invite.MAX_HEADERS
    assert found.warnings == ("only the first 200 of the call's 250 X-PH- headers are passed on",)


async def test_header_that_is_not_utf_8_is_left_out() -> None:
    found = await read(Asterisk({**ORDINARY, "X-PH-Room": b'ro\xfcm, "x"', "X-PH-Team": "Größe"}))
    assert found.headers == (("X-PH-Room", 'rom, "x"'), ("X-PH-Team", "Größe"))
    assert found.warnings == ("the header X-PH-Room is not valid UTF-8: its invalid bytes are left out",)


async def test_privacy_headers() -> None:
    for headers, withheld in (
        ({"Privacy": "id"}, True),
        ({"Privacy": "user;critical"}, True),
        ({"privacy": "header; id"}, True),
        ({"Privacy": "none"}, False),
        ({"Privacy": "history"}, False),
        ({"Remote-Party-ID": '"Bob" <sip:1@x>;party=calling;privacy=full'}, True),
        ({"Remote-Party-ID": '"Bob" <sip:1@x>;privacy=off;screen=yes'}, False),
        ({"P-Asserted-Identity": "<sip:1@x>"}, False),
        ({"Privacy": b"id;\xfc"}, True),
        ({"Privacy": b"none;\xfc"}, False),
        ({"Identity": "i" * 5000}, False),
    ):
        assert (await read(Asterisk({**ORDINARY, **headers}))).withheld is withheld, headers


async def test_a_wish_that_can_not_be_read_is_taken_for_one() -> None:
    class Busy(Asterisk):
        async def request(self, _method: str, _path: str, query: dict[str, str], **_: Any) -> dict[str, str]:
            if "read,Privacy" in query["variable"]:
                raise AriError("Asterisk did not answer in time")
            return await super().request(_method, _path, query)

    assert (await read(Busy({**ORDINARY, "Privacy": "none"}))).withheld
    assert not (await read(Busy(ORDINARY))).withheld


async def test_an_asterisk_that_does_not_answer_betrays_nobody() -> None:
    class Away(Asterisk):
        async def request(self, *_: Any, **__: Any) -> dict[str, str]:
            raise AriUnreachable("Asterisk did not answer in time")

    assert await read(Away(ORDINARY)) == Invite("", withheld=True, warnings=(invite.INVITE_UNREAD,))
