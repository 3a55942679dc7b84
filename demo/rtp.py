"""The sound of all phones, on one thread: a packet each 20 ms from every phone, and all that comes in.

The thread does little: sounds are encoded before they are sent, and what arrives is decoded when somebody asks.
"""

from __future__ import annotations

import contextlib
import heapq
import os
import random
import select
import socket
import struct
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from demo.codec import PCMU, Codec
from demo.g711 import FRAME
from demo.heard import Recorder
from demo.sip import EVENT_TYPE

DIGITS = "0123456789*#ABCD"
LATE_MS = 20.0
_TICK = 0.020
# Arrival is timed by the kernel (socket.7; Python has no name for it): a busy interpreter doesn't blur what was heard.
_SO_TIMESTAMPNS = 35


@dataclass(eq=False)
class Sound:
    """Something that a caller says, encoded; it goes on in real time once it is his turn."""

    payload: bytes
    loop: bool = False
    quiet: bytes = PCMU.silence
    """A packet of silence."""
    started_ms: float | None = None
    """Epoch ms of its first packet."""
    ended_ms: float | None = None
    """Epoch ms of the end of its last packet; None while it goes on."""
    _position: int = 0

    def frame(self) -> bytes:
        if self._position >= len(self.payload):
            if not self.loop or not self.payload:
                self.ended_ms = self.ended_ms or time.time() * 1000
                return self.quiet
            self._position = 0
        if self.started_ms is None:
            self.started_ms = time.time() * 1000
        piece = self.payload[self._position : self._position + FRAME]
        self._position += FRAME
        return piece + self.quiet[len(piece) :]


@dataclass
class _Press:
    digit: str
    ticks: int
    gap: int
    done: Callable[[float, str], None]
    stamp: int = 0
    tick: int = 0


class Line:
    """One phone's RTP. Made and steered by the phone, run by the Wire."""

    def __init__(self, host: str, on_digit: Callable[[float, str], None], codec: Codec = PCMU) -> None:
        self.rtp, self._rtcp = _bind(host)
        self.port: int = self.rtp.getsockname()[1]
        self.recorder = Recorder(codec)
        self.sound = Sound(b"", quiet=codec.silence)
        self._kind = codec.payload_type
        self.far: tuple[str, int] | None = None
        """Where to send; None: not yet."""
        self.latest_ms = 0.0
        """By how much the latest packet so far was sent too late."""
        self.late: list[tuple[float, float]] = []
        """(epoch ms, by how many ms) of each packet that was sent later than LATE_MS."""
        self.due = 0.0
        self.came: list[float] = []
        """Epoch ms of each packet that came, of whatever kind."""
        self._on_digit = on_digit
        self._presses: deque[_Press] = deque()
        self._sequence = random.randrange(1 << 16)
        self._stamp = random.randrange(1 << 32)
        self._source = random.randrange(1 << 32)
        self._event: int | None = None
        self._marker = 0x80
        self.sends = True
        """False: nothing is sent, as with silence suppression."""
        self.jitter = 0
        """Each packet comes up to so many packets later than it should, so that some overtake others."""
        self._on_its_way: list[tuple[int, bytes]] = []
        self._tick = 0

    def begin_stream(self, ahead: int, source: bool = True) -> None:
        """The next packet's sequence number is so far ahead of the last one's (or behind it), with another SSRC if
        `source`: as when a carrier or a PBX switches media."""
        self._sequence = self._sequence + ahead & 0xFFFF
        self._source = random.randrange(1 << 32) if source else self._source
        self._marker = 0x80

    def press(self, digit: str, duration_ms: int, gap_ms: int, done: Callable[[float, str], None]) -> None:
        self._presses.append(_Press(digit, max(2, duration_ms // 20), max(1, gap_ms // 20), done))

    def send(self, now: float) -> None:
        """What is due now."""
        if self.far is None or not self.sends:
            return
        late_ms = (now - self.due) * 1000
        self.latest_ms = max(self.latest_ms, late_ms)
        if late_ms > LATE_MS:
            self.late.append((time.time() * 1000, late_ms))
        sound = self.sound.frame()
        press = self._presses[0] if self._presses else None
        if press is None or press.tick >= press.ticks:
            self._packet(self._kind, self._stamp, sound, self._marker)
            self._marker = 0
        else:
            self._press(press)
        if press is not None:
            press.tick += 1
            if press.tick >= press.ticks + press.gap:
                self._presses.popleft()
        self._stamp = self._stamp + FRAME & 0xFFFFFFFF
        if self._on_its_way:
            self._arrive()

    def _press(self, press: _Press) -> None:
        """An event keeps its first timestamp, its duration grows, its end is said three times (RFC 4733, 2.5.1)."""
        if press.tick == 0:
            press.stamp = self._stamp
            press.done(time.time() * 1000, press.digit)
        ends = press.tick == press.ticks - 1
        body = struct.pack("!BBH", DIGITS.index(press.digit), 0x80 | 10 if ends else 10, (press.tick + 1) * FRAME)
        for _ in range(3 if ends else 1):
            self._packet(EVENT_TYPE, press.stamp, body, 0x80 if press.tick == 0 else 0)

    def _packet(self, kind: int, stamp: int, payload: bytes, marker: int) -> None:
        head = struct.pack("!BBHII", 0x80, kind | marker, self._sequence, stamp, self._source)
        self._sequence = self._sequence + 1 & 0xFFFF
        if self.jitter:
            self._on_its_way.append((self._tick + random.randint(0, self.jitter), head + payload))
        else:
            self._post(head + payload)

    def _arrive(self) -> None:
        """What has been on its way for long enough."""
        self._tick += 1
        for entry in [entry for entry in self._on_its_way if entry[0] <= self._tick]:
            self._on_its_way.remove(entry)
            self._post(entry[1])

    def _post(self, packet: bytes) -> None:
        # The far end may be gone already: then the kernel says so here, and the BYE says it to the phone.
        with contextlib.suppress(OSError):
            self.rtp.sendto(packet, self.far or ("", 0))

    def receive(self) -> None:
        try:
            packet, ancillary, _, origin = self.rtp.recvmsg(2048, 64)
        except OSError:
            return
        # A port is used again: the rest of somebody else's earlier call is nothing that this caller hears.
        if len(packet) < 12 or (self.far is not None and origin[1] != self.far[1]):
            return
        kind = packet[1] & 0x7F
        self.came.append(_stamped(ancillary) / 1e6)
        if kind == self._kind:
            self.recorder.arrived.append((_stamped(ancillary), packet))
        elif kind == EVENT_TYPE and len(packet) >= 16:
            stamp = struct.unpack_from("!I", packet, 4)[0]
            if stamp != self._event and packet[12] < len(DIGITS):
                self._event = stamp
                self._on_digit(_stamped(ancillary) / 1e6, DIGITS[packet[12]])

    def close(self) -> None:
        self.rtp.close()
        self._rtcp.close()


def _stamped(ancillary: list[tuple[int, int, bytes]]) -> int:
    for level, kind, value in ancillary:
        if level == socket.SOL_SOCKET and kind == _SO_TIMESTAMPNS:
            seconds, nanoseconds = struct.unpack("qq", value)
            return int(seconds * 1_000_000_000 + nanoseconds)
    return time.time_ns()


def _bind(host: str) -> tuple[socket.socket, socket.socket]:
    """An even port for RTP and the next for RTCP, so that nobody's RTCP arrives at another's RTP."""
    for _ in range(200):
        rtp, rtcp = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
        rtp.bind((host, 0))
        port = rtp.getsockname()[1]
        with contextlib.suppress(OSError):
            if port % 2 == 0:
                rtcp.bind((host, port + 1))
                rtp.setblocking(False)
                rtp.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
                rtp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
                return rtp, rtcp
        rtp.close()
        rtcp.close()
    raise OSError(f"no pair of free ports on {host} for RTP and RTCP")


@dataclass
class Wire:
    """The thread. Use as a context manager."""

    _lines: dict[int, Line] = field(default_factory=dict)
    _due: list[tuple[float, int]] = field(default_factory=list)
    _orders: deque[tuple[bool, Line]] = field(default_factory=deque)
    _running: bool = True

    def __enter__(self) -> Wire:
        self._epoll = select.epoll()
        self._bell = os.eventfd(0, os.EFD_NONBLOCK)
        self._epoll.register(self._bell, select.EPOLLIN)
        # While phones talk, others hold the interpreter for 1 ms at a time, not for 5: a packet is due each 20 ms.
        self._interval = sys.getswitchinterval()
        sys.setswitchinterval(0.001)
        self._thread = threading.Thread(target=self._run, name="wire", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._running = False
        os.eventfd_write(self._bell, 1)
        self._thread.join(5)
        sys.setswitchinterval(self._interval)
        for line in [*self._lines.values(), *(line for _, line in self._orders)]:
            line.close()
        self._epoll.close()
        os.close(self._bell)

    def add(self, line: Line) -> None:
        self._orders.append((True, line))
        os.eventfd_write(self._bell, 1)

    def remove(self, line: Line) -> None:
        """Stops and closes it; what it recorded stays."""
        self._orders.append((False, line))
        os.eventfd_write(self._bell, 1)

    def _run(self) -> None:
        with contextlib.suppress(PermissionError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), -10)
        while self._running:
            wait = self._due[0][0] - time.monotonic() if self._due else 1.0
            for number, _ in self._epoll.poll(max(wait, 0)):
                if number == self._bell:
                    os.eventfd_read(self._bell)
                    self._obey()
                elif number in self._lines:
                    self._lines[number].receive()
            self._send()

    def _obey(self) -> None:
        while self._orders:
            added, line = self._orders.popleft()
            number = line.rtp.fileno()
            if added:
                self._lines[number] = line
                self._epoll.register(number, select.EPOLLIN)
                line.due = time.monotonic()
                heapq.heappush(self._due, (line.due, number))
            elif self._lines.pop(number, None):
                self._due = [entry for entry in self._due if entry[1] != number]
                heapq.heapify(self._due)
                self._epoll.unregister(number)
                line.close()

    def _send(self) -> None:
        now = time.monotonic()
        while self._due and self._due[0][0] <= now:
            due, number = heapq.heappop(self._due)
            line = self._lines[number]
            line.send(now)
            line.due = due + _TICK
            heapq.heappush(self._due, (line.due, number))
