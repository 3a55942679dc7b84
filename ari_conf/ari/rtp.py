"""A channel's sound as RTP: one stream of mu-law that Asterisk sends to a UDP port of ours.

There is no connection that could break, and nothing for which Asterisk waits: whatever becomes of us, it only sends.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from collections.abc import Callable, Collection

import structlog

log = structlog.get_logger()

HEADER = 12
"""Bytes: Asterisk adds neither extensions nor contributing sources."""
LARGEST = HEADER + 800
"""100 ms. Asterisk sends 20 ms in a packet."""
VERSION, PCMU = 0x80, 0
LATE = 0x8000
"""Sequence numbers from this distance on lie behind (RFC 3550, A.1)."""
AT_ONCE = 8
"""Packets that are read before anything else of the loop gets its turn."""
BUFFER = 1 << 16
"""Bytes that the kernel keeps of a stream that nobody reads; it doubles them. About three seconds of sound."""


def _linear(code: int) -> int:
    """ITU-T G.711."""
    code = ~code & 0xFF
    magnitude = (((code & 0x0F) << 3) + 0x84 << (code >> 4 & 0x07)) - 0x84
    return -magnitude if code & 0x80 else magnitude


_PAIRS = [_linear(code).to_bytes(2, sys.byteorder, signed=True) for code in range(256)]
_FIRST, _SECOND = (bytes(pair[at] for pair in _PAIRS) for at in (0, 1))


def decoded(payload: bytes) -> bytes:
    """16 bit, in this machine's order of bytes."""
    sound = bytearray(2 * len(payload))
    sound[::2], sound[1::2] = payload.translate(_FIRST), payload.translate(_SECOND)
    return bytes(sound)


class Stream:
    """The first packet that could be one of ours decides whose packets these are. Pure."""

    def __init__(self) -> None:
        self._source: bytes | None = None
        self._latest = 0

    def sound(self, packet: bytes) -> bytes | None:
        """What the next packet says; None for one that is of no or another stream, came twice, or was overtaken."""
        if not HEADER < len(packet) <= LARGEST or packet[0] != VERSION or packet[1] & 0x7F != PCMU:
            return None
        number, source = int.from_bytes(packet[2:4], "big"), packet[8:12]
        if self._source is None:
            self._source, self._latest = source, number - 1
        if source != self._source or not 0 < (number - self._latest) & 0xFFFF < LATE:
            return None
        self._latest = number
        return decoded(packet[HEADER:])


class Receiver:
    """A port of our own. `heard` gets the sound, within the loop's turn that reads it."""

    def __init__(self, host: str, senders: Collection[str], heard: Callable[[bytes], None]) -> None:
        """`senders`: the addresses from which it may come; none: any. Raises OSError."""
        self.packets = 0
        """That said something."""
        self._senders, self._heard, self._stream = senders, heard, Stream()
        self._sender: tuple[str, int] | None = None
        self._told = False
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            self._socket.setblocking(False)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
            self._socket.bind((host, 0))
        except OSError:
            self._socket.close()
            raise
        self.address = f"{host}:{self._socket.getsockname()[1]}"
        asyncio.get_running_loop().add_reader(self._socket, self._readable)

    def close(self) -> None:
        if self._socket.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()

    def _readable(self) -> None:
        for _ in range(AT_ONCE):
            try:
                packet, sender = self._socket.recvfrom(LARGEST + 1)
            except OSError:  # nothing more, for now
                return
            if self._sender != sender and not self._may_be(sender):
                continue
            if (sound := self._stream.sound(packet)) is None:
                continue
            if self._sender is None:
                self._keep_to(sender)
            self.packets += 1
            self._heard(sound)

    def _may_be(self, sender: tuple[str, int]) -> bool:
        if self._sender is not None:
            return False
        if not self._senders or sender[0] in self._senders:
            return True
        if not self._told:
            self._told = True
            log.warning("sound from elsewhere than Asterisk's address is not listened to", sender=sender[0])
        return False

    def _keep_to(self, sender: tuple[str, int]) -> None:
        self._sender = sender
        # From now on the kernel drops what others send: they can't keep us busy.
        with contextlib.suppress(OSError):
            self._socket.connect(sender)
