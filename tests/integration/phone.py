"""A phone for tests: calls an Asterisk on this machine, talks, presses keys, hears. One call, no loss."""

from __future__ import annotations

import asyncio
import re
import secrets
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from ari_conf.parts.asterisk import EmbeddedAsterisk

LOUD = bytes((0x10, 0x90)) * 80  # 20 ms of PCMU, a square wave of 4 kHz
SILENT = b"\xff" * 160
KEYS = "0123456789*#"


class Phone:
    def __init__(self, asterisk: EmbeddedAsterisk, dialled: str) -> None:
        self._sip, self._rtp = _udp(), _udp()
        self._sip.connect((asterisk.host, asterisk.sip_port))
        self._to = f"<sip:{dialled}@{asterisk.host}:{asterisk.sip_port}>"
        self._line = f"sip:{dialled}@{asterisk.host}:{asterisk.sip_port} SIP/2.0"
        self._from = f'"Ada Caller" <sip:+14155550100@127.0.0.1>;tag={secrets.token_hex(4)}'
        self._call_id, self._sequence, self._rtp_sequence = secrets.token_hex(8), 0, 0
        self._responses: asyncio.Queue[int] = asyncio.Queue()
        self._remote_rtp: tuple[str, int] | None = None
        self.hung_up = False
        self.digits: list[str] = []
        self.hears_sound = False

    def dial(self, *headers: str) -> None:
        loop = asyncio.get_running_loop()
        loop.add_reader(self._sip, self._receive_sip)
        loop.add_reader(self._rtp, self._receive_rtp)
        lines = ("v=0", "o=ada 1 1 IN IP4 127.0.0.1", "s=-", "c=IN IP4 127.0.0.1", "t=0 0")
        audio = (f"m=audio {self._rtp.getsockname()[1]} RTP/AVP 0 101", "a=rtpmap:101 telephone-event/8000")
        self._request("INVITE", *headers, "Content-Type: application/sdp", body="\r\n".join((*lines, *audio, "")))

    async def response(self) -> int:
        """The next response to the INVITE that is more than "trying"."""
        async with asyncio.timeout(5):
            while (status := await self._responses.get()) == 100:
                pass
        return status

    async def answered(self) -> None:
        while (status := await self.response()) != 200:
            assert status < 200, status

    async def talk(self, seconds: float) -> None:
        await self._send_audio(LOUD, seconds)

    async def be_silent(self, seconds: float) -> None:
        await self._send_audio(SILENT, seconds)

    def press(self, key: str) -> None:
        """One key, by RFC 4733; its end three times, as there."""
        for duration, end in ((160, 0), (480, 0), (800, 0x80), (800, 0x80), (800, 0x80)):
            self._send_rtp(101, struct.pack("!BBH", KEYS.index(key), end | 10, duration), timestamp=4000)

    def forget(self) -> None:
        self.hears_sound = False

    async def until(self, true: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not true():  # noqa: ASYNC110  what it waits for is made by packets, one in 20 ms
                await asyncio.sleep(0.01)

    def hang_up(self) -> None:
        self.hung_up = True
        self._request("BYE")

    def close(self) -> None:
        for used in (self._sip, self._rtp):
            asyncio.get_running_loop().remove_reader(used)
            used.close()

    def _request(self, method: str, *headers: str, body: str = "") -> None:
        if method != "ACK":
            self._sequence += 1
        port = self._sip.getsockname()[1]
        lines = (
            f"{method} {self._line}",
            f"Via: SIP/2.0/UDP 127.0.0.1:{port};branch=z9hG4bK{secrets.token_hex(6)};rport",
            f"From: {self._from}",
            f"To: {self._to}",
            f"Call-ID: {self._call_id}",
            f"CSeq: {self._sequence} {method}",
            f"Contact: <sip:ada@127.0.0.1:{port}>",
            "Max-Forwards: 70",
            *headers,
            f"Content-Length: {len(body)}",
        )
        self._sip.send("\r\n".join((*lines, "", body)).encode())

    def _receive_sip(self) -> None:
        text = self._sip.recv(65535).decode()
        head, _, body = text.partition("\r\n\r\n")
        if text.startswith("BYE"):
            self.hung_up = True
            kept = re.findall(r"^(?:Via|From|To|Call-ID|CSeq):.*$", head.replace("\r", ""), re.MULTILINE)
            self._sip.send("\r\n".join(("SIP/2.0 200 OK", *kept, "Content-Length: 0", "", "")).encode())
        if not text.startswith("SIP/2.0 ") or " INVITE" not in head.partition("CSeq:")[2].partition("\r\n")[0]:
            return
        status = int(text.split()[1])
        if found := re.search(r"m=audio (\d+)", body):
            self._remote_rtp = ("127.0.0.1", int(found[1]))
        if status >= 200:
            self._to = head.partition("To: ")[2].partition("\r\n")[0]
            self._request("ACK")
        self._responses.put_nowait(status)

    def _receive_rtp(self) -> None:
        packet = self._rtp.recv(65535)
        kind, payload = packet[1] & 0x7F, packet[12:]
        if kind == 101:
            # The marker bit begins a key; the packets after it are the same one.
            if packet[1] & 0x80:
                self.digits.append(KEYS[payload[0]])
        # In PCMU the quiet values are those whose seven low bits are near 0x7F.
        elif sum((byte & 0x7F) < 0x60 for byte in payload) > len(payload) // 4:
            self.hears_sound = True

    async def _send_audio(self, frame: bytes, seconds: float) -> None:
        for _ in range(round(seconds / 0.02)):
            self._send_rtp(0, frame)
            await asyncio.sleep(0.02)

    def _send_rtp(self, kind: int, payload: bytes, timestamp: int | None = None) -> None:
        assert self._remote_rtp is not None
        self._rtp_sequence += 1
        stamp = self._rtp_sequence * 160 if timestamp is None else timestamp
        self._rtp.sendto(struct.pack("!BBHII", 0x80, kind, self._rtp_sequence, stamp, 7) + payload, self._remote_rtp)


@asynccontextmanager
async def call(asterisk: EmbeddedAsterisk, dialled: str, *headers: str) -> AsyncIterator[Phone]:
    phone = Phone(asterisk, dialled)
    phone.dial(*headers)
    try:
        yield phone
    finally:
        phone.close()


def _udp() -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.bind(("127.0.0.1", 0))
    made.setblocking(False)
    return made
