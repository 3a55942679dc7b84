"""Phones of one address that answer every call at once: any number of calls, without hearing what is said."""

from __future__ import annotations

import asyncio
import re
import socket
import time
from collections import defaultdict
from typing import Any, Self

from demo import sip

WAIT_S = 20.0


class Phones(asyncio.DatagramProtocol):
    """Phones of one address, which answer every call at once and take part in it until the end."""

    def __init__(self) -> None:
        self.invited: dict[str, float] = {}
        """Number called -> epoch ms of its INVITE."""
        self.calls: dict[str, set[str]] = defaultdict(set)
        """Number called -> Call-IDs of its INVITEs: one for each time that it was dialed."""
        self.changed = asyncio.Event()
        self.audio = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.audio.bind(("127.0.0.1", 0))

    async def __aenter__(self) -> Self:
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: self, local_addr=("127.0.0.1", 0)
        )
        self.transport = transport
        self.host = "127.0.0.1:{1}".format(*transport.get_extra_info("sockname"))
        return self

    async def __aexit__(self, *_: object) -> None:
        self.transport.close()
        self.audio.close()

    def datagram_received(self, data: bytes, address: Any) -> None:
        at_ms = time.time() * 1000
        message = sip.read(data)
        if message is None or message.status or message.method == "ACK":
            return
        body, extra = "", list[tuple[str, str]]()
        if message.method == "INVITE":
            number = re.findall(r"sip:([^@>]+)@", message.first("to"))[0]
            self.calls[number].add(message.first("call-id"))
            if number not in self.invited:
                self.invited[number] = at_ms
                self.changed.set()
            body = sip.offer("127.0.0.1", self.audio.getsockname()[1])
            extra = [("Contact", f"<sip:{number}@{self.host}>")]
        text = sip.reply(message, "200 OK", extra, body).decode()
        # The tag is the same in every response of a dialog.
        text = re.sub(r"(?im)^(to: (?![^\r\n]*;tag=)[^\r\n]*)", r"\1;tag=bench", text, count=1)
        self.transport.sendto(text.encode(), address)

    async def invite_of(self, number: str) -> float:
        """Return the epoch ms of the INVITE to this number. Raises TimeoutError."""
        async with asyncio.timeout(WAIT_S):
            while number not in self.invited:
                self.changed.clear()
                await self.changed.wait()
        return self.invited[number]
