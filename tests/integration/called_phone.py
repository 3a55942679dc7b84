"""A phone that is called: its SIP is written by hand, so that it can ring, answer late, refuse, redirect and vanish.

with CalledPhone() as ann:
    ... # somebody dials ann.uri
    invite = await ann.invited()
    ann.reply("180 Ringing")
    ann.answer()
    await ann.hung_up()
"""

from __future__ import annotations

import asyncio
import re
import secrets
import socket

import numpy as np

from demo import audio_analysis, sip
from demo.codec import PCMU
from demo.phone import now_ms
from demo.received_audio import Samples
from demo.rtp import RtpSession, RtpThread, Sound
from tests import lateness


class CalledPhone:
    """One phone at an address of its own. It takes any number of calls, one after another; the latest one counts."""

    def __init__(self, number: str = "4915550001", host: str = "127.0.0.1") -> None:
        self.number, self._host = number, host
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((host, 0))
        self._socket.setblocking(False)
        self.port = self._socket.getsockname()[1]
        self.got: list[sip.Message] = []
        """All received messages."""
        self.invites: list[sip.Message] = []
        """INVITEs, without repetitions."""
        self.mute = False
        """True: nothing is answered any more, as by a phone that has crashed."""
        self.rings_at_once = False
        """True: each INVITE is answered by 180 as soon as it comes."""
        self.ignores_cancel = False
        """True: a CANCEL comes too late, because the phone is just being answered."""
        self.digits: list[tuple[float, str]] = []
        """(epoch ms, digit) of each digit that was sent to the phone."""
        self._tag = secrets.token_hex(4)
        self._from_address: tuple[str, int] = ("", 0)
        self._arrived = asyncio.Event()
        self._cseq = 1
        self._wire = RtpThread()
        self._session: RtpSession | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def host(self) -> str:
        """Host and port, as in the URI."""
        return f"{self._host}:{self.port}"

    @property
    def uri(self) -> str:
        return f"sip:{self.number}@{self._host}:{self.port}"

    async def __aenter__(self) -> CalledPhone:
        self._wire.__enter__()
        self._session = RtpSession(self._host, lambda at, digit: self.digits.append((at, digit)))
        self._wire.add(self._session)
        self._task = asyncio.create_task(self._receive())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        self._wire.__exit__()
        self._socket.close()

    # What has come.

    async def _receive(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            data, address = await loop.sock_recvfrom(self._socket, 65536)
            message = sip.read(data)
            if message is None or self.mute:
                continue
            self._from_address = address
            self.got.append(message)
            if message.method == "INVITE" and not message.status:
                if message.first("call-id") not in [one.first("call-id") for one in self.invites]:
                    self.invites.append(message)
                    if self.rings_at_once:
                        self.reply("180 Ringing")
            elif message.method == "CANCEL" and not message.status:
                self._send(sip.reply(message, "200 OK", []))
                if not self.ignores_cancel:
                    self.reply("487 Request Terminated")
            elif message.status == 200 and message.first("cseq").endswith("INVITE"):
                self._request("ACK")
            elif not message.status and message.method != "ACK":
                self._send(sip.reply(message, "200 OK", []))
            self._arrived.set()

    def heard(self) -> Samples:
        """Return all that the phone has heard."""
        assert self._session is not None
        heard = self._session.recorder.heard()
        return heard.since(heard.start_ms)

    def hears(self, hz: int) -> bool:
        """Return True if the phone has heard that tone for a while."""
        return bool(audio_analysis.intervals_of(self.heard(), hz))

    def requests(self, method: str) -> list[sip.Message]:
        return [message for message in self.got if not message.status and message.method == method]

    async def until(self, method: str, number: int = 1) -> sip.Message:
        """Return the request of that method, once so many have come."""
        async with lateness.timeout():
            while len(found := self.requests(method)) < number:
                self._arrived.clear()
                await self._arrived.wait()
        return found[number - 1]

    async def invited(self, number: int = 1) -> sip.Message:
        """Return an INVITE once it has come: the first, or that with this number, repetitions not counted."""
        async with lateness.timeout():
            while len(self.invites) < number:
                self._arrived.clear()
                await self._arrived.wait()
        return self.invites[number - 1]

    async def hung_up(self) -> sip.Message:
        return await self.until("BYE")

    async def canceled(self) -> sip.Message:
        return await self.until("CANCEL")

    # What it does.

    def reply(self, status: str, *headers: tuple[str, str], body: str = "") -> None:
        """Reply to the latest INVITE."""
        invite = self.invites[-1]
        # The phone's tag is part of each response but the first.
        text = sip.reply(invite, status, [("Contact", f"<{self.uri}>"), *headers], body).decode()
        if not status.startswith("100"):
            text = re.sub(r"(?im)^(to: [^\r\n]*)", rf"\1;tag={self._tag}", text, count=1)
        self._send(text.encode())

    def early_media(self) -> None:
        """Send a 183 with an address for audio, and audio from now on."""
        self._talk()
        self.reply("183 Session Progress", body=self._description())

    def answer(self) -> None:
        self._talk()
        self.reply("200 OK", body=self._description())

    def tone(self, hz: int) -> None:
        """Send a steady tone of whole Hz from now on, once it has answered or sends early media."""
        assert self._session is not None
        wave = np.sin(2 * np.pi * hz * np.arange(PCMU.rate) / PCMU.rate)
        self._session.sound = Sound(PCMU.encode(np.round(wave * 3277).astype(np.int16)), True, PCMU.silence)

    async def press(self, digit: str) -> None:
        """Send a digit, and wait until it is sent."""
        assert self._session is not None
        sent = asyncio.Event()
        self._session.press(digit, 100, 100, lambda *_: sent.set())
        async with lateness.timeout():
            await sent.wait()

    def hang_up(self) -> None:
        """Send a BYE for the call that it has answered."""
        self._request("BYE")

    def hold(self) -> None:
        """Put the call on hold: the phone sends music, and hears nothing."""
        self._offer("sendonly")

    def resume(self) -> None:
        self._offer("sendrecv")

    def _offer(self, direction: str) -> None:
        assert self._session is not None
        offer = sip.offer(self._host, self._session.port, version=self._cseq + 1, direction=direction)
        self._request("INVITE", offer)

    def _request(self, method: str, body: str = "") -> None:
        """Send a request of the dialog."""
        invite = self.invites[-1]
        target = re.search(r"<([^>]+)>", invite.first("contact"))
        self._cseq += method != "ACK"
        lines = [
            ("Via", f"SIP/2.0/UDP {self._host}:{self.port};branch=z9hG4bK{secrets.token_hex(8)};rport"),
            ("Max-Forwards", "70"),
            ("From", f"{invite.first('to')};tag={self._tag}"),
            ("To", invite.first("from")),
            ("Call-ID", invite.first("call-id")),
            ("CSeq", f"{self._cseq} {method}"),
            ("Contact", f"<{self.uri}>"),
        ]
        assert target is not None
        self._send(sip.write(f"{method} {target[1]} SIP/2.0", lines, body))

    @property
    def caller(self) -> tuple[str, str]:
        """Return (number, name) that the latest INVITE shows."""
        found = re.match(r'(?:"([^"]*)"\s*)?<sip:([^@>]*)@', self.invites[-1].first("from"))
        assert found is not None, self.invites[-1].first("from")
        return found[2], found[1] or ""

    def _description(self) -> str:
        assert self._session is not None
        return sip.offer(self._host, self._session.port)

    def _talk(self) -> None:
        assert self._session is not None
        self._session.destination = sip.media_address(self.invites[-1].body)

    def _send(self, data: bytes) -> None:
        if not self.mute:
            self._socket.sendto(data, self._from_address)


__all__ = ["CalledPhone", "now_ms"]
