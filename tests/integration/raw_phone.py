"""A phone whose SIP is written by hand, for messages that no well-behaved phone sends."""

from __future__ import annotations

import asyncio
import secrets
import socket

from demo import sip
from tests import lateness


class RawPhone:
    """One call that answers every request with 200 and keeps all received messages."""

    def __init__(self, address: str, call_id: str = "", from_: str = "15559000") -> None:
        """Take Asterisk's `address`, host:port. Surrogate escapes in texts are sent as the bytes they stand for."""
        host, _, port = address.partition(":")
        self._to_address = (host, int(port))
        self._uri = ""
        self._socket, self.rtp = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
        for one in (self._socket, self.rtp):
            one.bind(("127.0.0.1", 0))
            one.setblocking(False)
        self.port, self.rtp_port = self._socket.getsockname()[1], self.rtp.getsockname()[1]
        self.call_id = call_id or f"{secrets.token_hex(8)}@raw"
        self.tag = secrets.token_hex(4)
        self.from_ = from_ if "<" in from_ else f"<sip:{from_}@127.0.0.1>"
        self.to = ""
        self._sequence = 1
        self.branch = ""
        self.got: list[sip.Message] = []

    def __enter__(self) -> RawPhone:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        self.rtp.close()

    @property
    def to_tag(self) -> str:
        return self.to.partition("tag=")[2]

    def send(self, method: str, *headers: str, body: str = "", branch: str = "") -> None:
        self.branch = branch or f"z9hG4bK{secrets.token_hex(8)}"
        lines = [
            f"{method} {self._uri} SIP/2.0",
            f"Via: SIP/2.0/UDP 127.0.0.1:{self.port};branch={self.branch};rport",
            f"From: {self.from_};tag={self.tag}",
            f"To: {self.to or f'<{self._uri}>'}",
            f"Call-ID: {self.call_id}",
            f"CSeq: {self._sequence} {method}",
            f"Contact: <sip:raw@127.0.0.1:{self.port}>",
            "Max-Forwards: 70",
            *headers,
            *(["Content-Type: application/sdp"] if body else []),
            f"Content-Length: {len(body)}",
        ]
        text = "\r\n".join((*lines, "", body))
        self._socket.sendto(text.encode("utf-8", "surrogateescape"), self._to_address)

    def offer(self) -> str:
        return sip.offer("127.0.0.1", self.rtp_port)

    def invite(self, number: str, *headers: str, late_offer: bool = False, branch: str = "") -> None:
        host, port = self._to_address
        self._uri = f"sip:{number}@{host}:{port}"
        self.send("INVITE", *headers, body="" if late_offer else self.offer(), branch=branch)

    async def final(self) -> sip.Message:
        """Return the INVITE's final response."""
        while True:
            message = await self.next()
            if message.status >= 200 and message.method == "INVITE":
                self.to = message.first("to")
                return message

    async def next(self) -> sip.Message:
        """Return the next message that arrives."""
        async with lateness.timeout():
            while (message := sip.read(await asyncio.get_running_loop().sock_recv(self._socket, 65536))) is None:
                pass
        self.got.append(message)
        if not message.status and message.method != "ACK":
            reply = sip.reply(message, "200 OK", [("Contact", f"<sip:raw@127.0.0.1:{self.port}>")])
            self._socket.sendto(reply, self._to_address)
        return message

    def acknowledge(self, body: str = "") -> None:
        """Send the ACK of an answered call."""
        self.send("ACK", body=body)

    def bye(self) -> None:
        self._sequence += 1
        self.send("BYE")

    def ask(self, method: str, *headers: str) -> None:
        """Send a request within the call."""
        self._sequence += 1
        self.send(method, *headers)
