"""A scripted phone: single SIP messages over UDP from any loopback address, and an RTP port."""

from __future__ import annotations

import asyncio
import re
import secrets
import socket
from collections.abc import Iterable
from hashlib import md5
from types import TracebackType

from demo import sip
from tests import lateness

SAME_CALL = ("via", "from", "to", "call-id", "cseq")


class SipLine:
    """A line from the address `host` to the address `to`, where Asterisk takes calls."""

    def __init__(self, to: tuple[str, int], host: str = "127.0.0.1") -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.to, self.host = to, host
        self.sip, self.rtp = socket.socket(family, socket.SOCK_DGRAM), socket.socket(family, socket.SOCK_DGRAM)
        for each in (self.sip, self.rtp):
            each.bind((host, 0))
            each.setblocking(False)
        self.port = self.sip.getsockname()[1]
        self.rtp_port = self.rtp.getsockname()[1]
        self._tag, self._call_id, self._sequence = secrets.token_hex(4), secrets.token_hex(8), 0
        self._from, self._target, self._remote = "", "", ""
        self.answer = sip.Message("", (), "")
        """The response to the INVITE."""
        self.heard_besides: list[sip.Message] = []
        """Requests that came while the line waited for a response."""

    def __enter__(self) -> SipLine:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.answer.status == 200:
            self.sends("BYE")
        self.sip.close()
        self.rtp.close()

    @property
    def _at(self) -> str:
        return f"[{self.host}]" if ":" in self.host else self.host

    def offer(self, media: str = "RTP/AVP 0 101", *attributes: str) -> str:
        """Return an SDP offer with the phone's abilities: the rest of an m= line, and further a= lines."""
        kind = "IP6" if ":" in self.host else "IP4"
        lines = (
            *("v=0", f"o=- 1 1 IN {kind} {self.host}", "s=-", f"c=IN {kind} {self.host}", "t=0 0"),
            f"m=audio {self.rtp_port} {media}",
            *(f"a={attribute}" for attribute in ("rtpmap:101 telephone-event/8000", *attributes)),
        )
        return "\r\n".join(lines) + "\r\n"

    async def invite(
        self, number: str, body: str = "", *, as_user: str = "15550109", headers: Iterable[tuple[str, str]] = ()
    ) -> sip.Message:
        """Send an INVITE and return its final response, after the ACK."""
        self.turns_to(number, as_user)
        self.answer = await self.asks("INVITE", body or self.offer(), headers)
        self._remote = self.answer.first("to")
        if self.answer.status < 300 and (contact := re.search(r"<([^>]+)>", self.answer.first("contact"))):
            self._target = contact[1]
        self.sends("ACK", branch="" if self.answer.status < 300 else self.answer.branch)
        return self.answer

    def turns_to(self, number: str, as_user: str = "15550109") -> None:
        """Send the next request to that number, which may be a whole URI."""
        where = f"[{self.to[0]}]" if ":" in self.to[0] else self.to[0]
        self._from = f"<sip:{as_user}@{self._at}>;tag={self._tag}"
        self._target = number if ":" in number else f"sip:{number}@{where}:{self.to[1]}"
        self._remote = f"<{self._target}>"

    async def asks(
        self, method: str, body: str = "", headers: Iterable[tuple[str, str]] = (), content: str = "application/sdp"
    ) -> sip.Message:
        """Send a request and return its final response. Raises TimeoutError if none comes."""
        self._sequence += 1
        self.sends(method, body, headers, content)
        cseq = f"{self._sequence} {method}"
        async with lateness.timeout():
            while True:
                message = await self.receives()
                if message.status >= 200 and message.first("cseq") == cseq:
                    return message
                if not message.status:
                    self.heard_besides.append(message)

    async def receives(self) -> sip.Message:
        while True:
            data = await asyncio.get_running_loop().sock_recv(self.sip, 65535)
            if message := sip.read(data):
                return message

    def sends(
        self,
        method: str,
        body: str = "",
        headers: Iterable[tuple[str, str]] = (),
        content: str = "application/sdp",
        branch: str = "",
    ) -> None:
        if method == "BYE":
            self._sequence += 1
        lines = [
            ("Via", f"SIP/2.0/UDP {self._at}:{self.port};branch={branch or 'z9hG4bK' + secrets.token_hex(8)};rport"),
            ("Max-Forwards", "70"),
            ("From", self._from),
            ("To", self._remote),
            ("Call-ID", self._call_id),
            ("CSeq", f"{self._sequence} {method}"),
            ("Contact", f"<sip:line@{self._at}:{self.port}>"),
            *headers,
        ]
        data = sip.write(f"{method} {self._target} SIP/2.0", lines, body)
        self.sip.sendto(data.replace(b"Content-Type: application/sdp", f"Content-Type: {content}".encode()), self.to)

    async def registers(self, user: str, password: str, as_user: str = "") -> list[int]:
        """Register, and return the statuses until the registrar accepts or refuses."""
        where = f"{self.to[0]}:{self.to[1]}"
        self._from = self._remote = f"<sip:{as_user or user}@{where}>;tag={self._tag}"
        self._remote, self._target = f"<sip:{user}@{where}>", f"sip:{where}"
        first = await self.asks("REGISTER", headers=[("Expires", "60")])
        if first.status != 401:
            return [first.status]
        login = answer_to(first.first("www-authenticate"), "REGISTER", self._target, user, password)
        second = await self.asks("REGISTER", headers=[("Expires", "60"), ("Authorization", login)])
        return [first.status, second.status]


def answer_to(challenge: str, method: str, uri: str, user: str, password: str) -> str:
    """Return the digest response of RFC 2617."""
    parts = dict(re.findall(r'(\w+)="?([^",]*)"?', challenge))

    def hashed(*words: str) -> str:
        return md5(":".join(words).encode()).hexdigest()

    secret, what = hashed(user, parts["realm"], password), hashed(method, uri)
    login = f'Digest username="{user}", realm="{parts["realm"]}", nonce="{parts["nonce"]}", uri="{uri}", algorithm=MD5'
    if "qop" in parts:
        answer = hashed(secret, parts["nonce"], "00000001", "cafe", "auth", what)
        login += f', qop=auth, nc=00000001, cnonce="cafe", opaque="{parts.get("opaque", "")}"'
    else:
        answer = hashed(secret, parts["nonce"], what)
    return f'{login}, response="{answer}"'
