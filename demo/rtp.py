"""RTP of all phones, on one thread: one packet per 20 ms from every phone, and all received packets.

The thread does little: sounds are encoded before they are sent, and received audio is decoded on demand.
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
from demo.received_audio import AudioRecorder
from demo.rtcp import INTERVAL_S, ReceiverReports
from demo.sip import EVENT_TYPE

DIGITS = "0123456789*#ABCD"
LATE_MS = 20.0
_PACKET_S = 0.020
# Arrival times come from the kernel (socket.7; Python has no name for it), so that a busy interpreter does not distort
# them.
_SO_TIMESTAMPNS = 35


@dataclass(eq=False)
class Sound:
    """Encoded audio that a caller says; it plays in real time from the moment it is set."""

    payload: bytes
    loop: bool = False
    quiet: bytes = PCMU.silence
    """One packet of silence."""
    started_ms: float | None = None
    """Epoch ms of its first packet."""
    ended_ms: float | None = None
    """Epoch ms of the end of its last packet; None while it plays."""
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
    timestamp: int = 0
    tick: int = 0


class RtpSession:
    """The RTP of one phone: created and controlled by the phone, run by the RtpThread."""

    def __init__(self, host: str, on_digit: Callable[[float, str], None], codec: Codec = PCMU) -> None:
        self.rtp, self._rtcp = _bind(host)
        self.port: int = self.rtp.getsockname()[1]
        self.recorder = AudioRecorder(codec)
        self.sound = Sound(b"", quiet=codec.silence)
        self._kind = codec.payload_type
        self.destination: tuple[str, int] | None = None
        """The destination of packets, or None before it is known."""
        self.latest_ms = 0.0
        """The greatest delay so far of a sent packet, in ms."""
        self.late: list[tuple[float, float]] = []
        """(epoch ms, delay in ms) of each packet that was sent more than LATE_MS late."""
        self.due = 0.0
        self.arrivals_ms: list[float] = []
        """Epoch ms of each received packet, whatever its type."""
        self._on_digit = on_digit
        self._presses: deque[_Press] = deque()
        self._sequence = random.randrange(1 << 16)
        self._timestamp = random.randrange(1 << 32)
        self._source = random.randrange(1 << 32)
        self._event: int | None = None
        self._marker = 0x80
        self.sends = True
        """False if the phone sends nothing, as with silence suppression."""
        self.jitter = 0
        """The maximum delay in packets of each packet, so that some overtake others."""
        self.loss_sent = self.loss_received = 0.0
        """Share of the packets, sent or received, that are lost."""
        self.reports: ReceiverReports | None = None
        """None: the phone sends no RTCP, as many don't."""
        self._report_due = 0.0
        self._delayed: list[tuple[int, bytes]] = []
        self._tick = 0

    def begin_stream(self, ahead: int, source: bool = True) -> None:
        """Let the next packet's sequence number jump ahead by `ahead` (or back), with a new SSRC if `source`.

        That happens when a carrier or a PBX switches media.
        """
        self._sequence = self._sequence + ahead & 0xFFFF
        self._source = random.randrange(1 << 32) if source else self._source
        self._marker = 0x80

    def press(self, digit: str, duration_ms: int, gap_ms: int, done: Callable[[float, str], None]) -> None:
        self._presses.append(_Press(digit, max(2, duration_ms // 20), max(1, gap_ms // 20), done))

    def send(self, now: float) -> None:
        """Send the packet that is due now."""
        if self.reports is not None and self.destination is not None and now >= self._report_due:
            self._report_due = now + INTERVAL_S
            self._report(self.reports, self.destination)
        if self.destination is None or not self.sends:
            return
        late_ms = (now - self.due) * 1000
        self.latest_ms = max(self.latest_ms, late_ms)
        if late_ms > LATE_MS:
            self.late.append((time.time() * 1000, late_ms))
        sound = self.sound.frame()
        press = self._presses[0] if self._presses else None
        if press is None or press.tick >= press.ticks:
            self._packet(self._kind, self._timestamp, sound, self._marker)
            self._marker = 0
        else:
            self._press(press)
        if press is not None:
            press.tick += 1
            if press.tick >= press.ticks + press.gap:
                self._presses.popleft()
        self._timestamp = self._timestamp + FRAME & 0xFFFFFFFF
        if self._delayed:
            self._post_due()

    def _press(self, press: _Press) -> None:
        """Send a digit event: its timestamp is constant, its duration grows, its end is sent three times (RFC 4733,
        2.5.1)."""
        if press.tick == 0:
            press.timestamp = self._timestamp
            press.done(time.time() * 1000, press.digit)
        ends = press.tick == press.ticks - 1
        body = struct.pack("!BBH", DIGITS.index(press.digit), 0x80 | 10 if ends else 10, (press.tick + 1) * FRAME)
        for _ in range(3 if ends else 1):
            self._packet(EVENT_TYPE, press.timestamp, body, 0x80 if press.tick == 0 else 0)

    def _packet(self, kind: int, timestamp: int, payload: bytes, marker: int) -> None:
        head = struct.pack("!BBHII", 0x80, kind | marker, self._sequence, timestamp, self._source)
        self._sequence = self._sequence + 1 & 0xFFFF
        if self.jitter:
            self._delayed.append((self._tick + random.randint(0, self.jitter), head + payload))
        else:
            self._post(head + payload)

    def _post_due(self) -> None:
        """Send the delayed packets that are due."""
        self._tick += 1
        for entry in [entry for entry in self._delayed if entry[0] <= self._tick]:
            self._delayed.remove(entry)
            self._post(entry[1])

    def _post(self, packet: bytes) -> None:
        if self.loss_sent and random.random() < self.loss_sent:
            return
        # The far end may be gone already: the kernel reports it here, and the phone learns it from the BYE.
        with contextlib.suppress(OSError):
            self.rtp.sendto(packet, self.destination or ("", 0))

    def _report(self, reports: ReceiverReports, destination: tuple[str, int]) -> None:
        with contextlib.suppress(OSError):
            while True:
                packet, ancillary, _, _ = self._rtcp.recvmsg(2048, 64)
                reports.count_report(_arrival_ns(ancillary), packet)
        if (report := reports.report(self._source, time.time_ns())) is not None:
            with contextlib.suppress(OSError):
                self._rtcp.sendto(report, (destination[0], destination[1] + 1))

    def receive(self) -> None:
        try:
            packet, ancillary, _, origin = self.rtp.recvmsg(2048, 64)
        except OSError:
            return
        # Ports are reused: the rest of another phone's earlier call is not audio of this call.
        if len(packet) < 12 or (self.destination is not None and origin[1] != self.destination[1]):
            return
        if self.loss_received and random.random() < self.loss_received:
            return
        kind = packet[1] & 0x7F
        if self.reports is not None:
            self.reports.count(_arrival_ns(ancillary), packet)
        self.arrivals_ms.append(_arrival_ns(ancillary) / 1e6)
        if kind == self._kind:
            self.recorder.arrived.append((_arrival_ns(ancillary), packet))
        elif kind == EVENT_TYPE and len(packet) >= 16:
            timestamp = struct.unpack_from("!I", packet, 4)[0]
            if timestamp != self._event and packet[12] < len(DIGITS):
                self._event = timestamp
                self._on_digit(_arrival_ns(ancillary) / 1e6, DIGITS[packet[12]])

    def close(self) -> None:
        self.rtp.close()
        self._rtcp.close()


def _arrival_ns(ancillary: list[tuple[int, int, bytes]]) -> int:
    for level, kind, value in ancillary:
        if level == socket.SOL_SOCKET and kind == _SO_TIMESTAMPNS:
            seconds, nanoseconds = struct.unpack("qq", value)
            return int(seconds * 1_000_000_000 + nanoseconds)
    return time.time_ns()


def _bind(host: str) -> tuple[socket.socket, socket.socket]:
    """Return an even port for RTP and the next for RTCP, so that no phone's RTCP arrives at another phone's RTP
    port."""
    for _ in range(200):
        rtp, rtcp = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
        rtp.bind((host, 0))
        port = rtp.getsockname()[1]
        with contextlib.suppress(OSError):
            if port % 2 == 0:
                rtcp.bind((host, port + 1))
                for each in (rtp, rtcp):
                    each.setblocking(False)
                    each.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
                rtp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
                return rtp, rtcp
        rtp.close()
        rtcp.close()
    raise OSError(f"no pair of free ports on {host} for RTP and RTCP")


@dataclass
class RtpThread:
    """The thread that runs all sessions, as a context manager."""

    _sessions: dict[int, RtpSession] = field(default_factory=dict)
    _due: list[tuple[float, int]] = field(default_factory=list)
    _orders: deque[tuple[bool, RtpSession]] = field(default_factory=deque)
    _running: bool = True

    def __enter__(self) -> RtpThread:
        self._epoll = select.epoll()
        self._wakeup_fd = os.eventfd(0, os.EFD_NONBLOCK)
        self._epoll.register(self._wakeup_fd, select.EPOLLIN)
        # While phones talk, other threads hold the interpreter for 1 ms at a time, not 5: a packet is due every 20 ms.
        self._interval = sys.getswitchinterval()
        sys.setswitchinterval(0.001)
        self._thread = threading.Thread(target=self._run, name="wire", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._running = False
        os.eventfd_write(self._wakeup_fd, 1)
        self._thread.join(5)
        sys.setswitchinterval(self._interval)
        for session in [*self._sessions.values(), *(session for _, session in self._orders)]:
            session.close()
        self._epoll.close()
        os.close(self._wakeup_fd)

    def add(self, session: RtpSession) -> None:
        self._orders.append((True, session))
        os.eventfd_write(self._wakeup_fd, 1)

    def remove(self, session: RtpSession) -> None:
        """Stop and close the session; its recording stays."""
        self._orders.append((False, session))
        os.eventfd_write(self._wakeup_fd, 1)

    def _run(self) -> None:
        with contextlib.suppress(PermissionError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), -10)
        while self._running:
            wait = self._due[0][0] - time.monotonic() if self._due else 1.0
            for number, _ in self._epoll.poll(max(wait, 0)):
                if number == self._wakeup_fd:
                    os.eventfd_read(self._wakeup_fd)
                    self._apply_orders()
                elif number in self._sessions:
                    self._sessions[number].receive()
            self._send()

    def _apply_orders(self) -> None:
        while self._orders:
            added, session = self._orders.popleft()
            number = session.rtp.fileno()
            if added:
                self._sessions[number] = session
                self._epoll.register(number, select.EPOLLIN)
                session.due = time.monotonic()
                heapq.heappush(self._due, (session.due, number))
            elif self._sessions.pop(number, None):
                self._due = [entry for entry in self._due if entry[1] != number]
                heapq.heapify(self._due)
                self._epoll.unregister(number)
                session.close()

    def _send(self) -> None:
        now = time.monotonic()
        while self._due and self._due[0][0] <= now:
            due, number = heapq.heappop(self._due)
            session = self._sessions[number]
            session.send(now)
            session.due = due + _PACKET_S
            heapq.heappush(self._due, (session.due, number))
