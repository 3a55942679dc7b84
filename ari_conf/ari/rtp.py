"""RTP receiver for a channel's sound: one stream of mu-law that Asterisk sends to a UDP port of the server.

No connection can break, and Asterisk waits for nothing: whatever happens to the server, Asterisk only sends.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from collections.abc import Callable, Collection

import structlog

log = structlog.get_logger()

HEADER_BYTES = 12
"""Bytes of a packet's header; Asterisk adds neither extensions nor contributing sources."""
MAX_PACKET_BYTES = HEADER_BYTES + 800
"""Bytes of the largest packet: 100 ms of sound. Asterisk sends 20 ms per packet."""
VERSION, PCMU = 0x80, 0
BEHIND_DISTANCE = 0x8000
"""Distance from which a sequence number lies behind (RFC 3550, A.1)."""
READ_BATCH = 8
"""Packets that are read in one turn of the event loop."""
BUFFER_BYTES = 1 << 16
"""Bytes of unread sound that the kernel keeps, about three seconds; it doubles the number."""


def _to_linear(code: int) -> int:
    """Return the 16-bit sample of a mu-law code (ITU-T G.711)."""
    code = ~code & 0xFF
    magnitude = (((code & 0x0F) << 3) + 0x84 << (code >> 4 & 0x07)) - 0x84
    return -magnitude if code & 0x80 else magnitude


_PAIRS = [_to_linear(code).to_bytes(2, sys.byteorder, signed=True) for code in range(256)]
_FIRST, _SECOND = (bytes(pair[at] for pair in _PAIRS) for at in (0, 1))


def decode(payload: bytes) -> bytes:
    """Return a packet's mu-law as 16-bit samples in this machine's byte order."""
    sound = bytearray(2 * len(payload))
    sound[::2], sound[1::2] = payload.translate(_FIRST), payload.translate(_SECOND)
    return bytes(sound)


class Stream:
    """RTP stream. The first valid packet determines the source; packets of other sources are dropped. Pure."""

    def __init__(self) -> None:
        self._source: bytes | None = None
        self._latest = 0

    def sound(self, packet: bytes) -> bytes | None:
        """Return the sound of the next packet; None if it is not valid, belongs to another stream, is a duplicate, or
        was overtaken."""
        if not HEADER_BYTES < len(packet) <= MAX_PACKET_BYTES or packet[0] != VERSION or packet[1] & 0x7F != PCMU:
            return None
        number, source = int.from_bytes(packet[2:4], "big"), packet[8:12]
        if self._source is None:
            self._source, self._latest = source, number - 1
        if source != self._source or not 0 < (number - self._latest) & 0xFFFF < BEHIND_DISTANCE:
            return None
        self._latest = number
        return decode(packet[HEADER_BYTES:])


class Receiver:
    """Receiver on a UDP port of its own. `on_sound` gets the sound in the turn of the event loop that reads it."""

    def __init__(self, host: str, senders: Collection[str], on_sound: Callable[[bytes], None]) -> None:
        """Open the port. `senders`: the addresses from which sound is accepted; empty: any. Raises OSError."""
        self.packets = 0
        """Number of packets that held sound of the stream."""
        self._senders, self._on_sound, self._stream = senders, on_sound, Stream()
        self._sender: tuple[str, int] | None = None
        self._is_warned = False
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            self._socket.setblocking(False)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
            self._socket.bind((host, 0))
        except OSError:
            self._socket.close()
            raise
        self.address = f"{host}:{self._socket.getsockname()[1]}"
        asyncio.get_running_loop().add_reader(self._socket, self._on_readable)

    def close(self) -> None:
        if self._socket.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()

    def _on_readable(self) -> None:
        for _ in range(READ_BATCH):
            try:
                packet, sender = self._socket.recvfrom(MAX_PACKET_BYTES + 1)
            except OSError:  # no more packets for now
                return
            if self._sender != sender and not self._is_accepted(sender):
                continue
            if (sound := self._stream.sound(packet)) is None:
                continue
            if self._sender is None:
                self._accept_only(sender)
            self.packets += 1
            self._on_sound(sound)

    def _is_accepted(self, sender: tuple[str, int]) -> bool:
        if self._sender is not None:
            return False
        if not self._senders or sender[0] in self._senders:
            return True
        if not self._is_warned:
            self._is_warned = True
            log.warning("rtp packets ignored", sender=sender[0], reason="not sent from Asterisk's address")
        return False

    def _accept_only(self, sender: tuple[str, int]) -> None:
        self._sender = sender
        # From now on the kernel drops packets of other senders, so that they can't keep the server busy.
        with contextlib.suppress(OSError):
            self._socket.connect(sender)
