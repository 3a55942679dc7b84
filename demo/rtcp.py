"""RTCP receiver reports of a phone (RFC 3550, 6.4.2): which of the packets sent to it have arrived, and when."""

from __future__ import annotations

import struct

from demo.g711 import RATE

INTERVAL_S = 5.0
SENDER_REPORT, RECEIVER_REPORT, DESCRIPTION = 200, 201, 202
_VERSION_AND_ONE = 0x81
"""Version 2, with one report block or chunk."""
_CNAME = 1
_SECOND_NS = 1_000_000_000


class ReceiverReports:
    """Counts received packets, and makes reports of them. All times are nanoseconds of one clock."""

    def __init__(self) -> None:
        self._source: int | None = None
        self._first = self._highest = self._received = 0
        self._expected_before = self._received_before = 0
        self._jitter = 0.0
        self._transit: int | None = None
        self._sender_report: tuple[int, int] | None = None
        """The middle 32 bits of the latest sender report's NTP time, and its arrival."""

    def count(self, arrival: int, packet: bytes) -> None:
        """Count an RTP packet."""
        number, timestamp, source = struct.unpack_from("!HII", packet, 2)
        if source != self._source:
            self._source, self._first, self._highest, self._received = source, number, number, 0
            self._expected_before = self._received_before = 0
            self._jitter, self._transit = 0.0, None
        ahead = (number - self._highest + 0x8000 & 0xFFFF) - 0x8000
        self._highest += max(ahead, 0)
        self._received += 1
        transit = arrival * RATE // _SECOND_NS - timestamp
        if self._transit is not None:
            apart = abs((transit - self._transit + 0x80000000 & 0xFFFFFFFF) - 0x80000000)
            self._jitter += (apart - self._jitter) / 16
        self._transit = transit

    def count_report(self, arrival: int, packet: bytes) -> None:
        """Note a sender report, for the round trip."""
        if len(packet) >= 28 and packet[1] == SENDER_REPORT:
            self._sender_report = struct.unpack_from("!I", packet, 10)[0], arrival

    def report(self, source: int, now: int) -> bytes | None:
        """Return a report by the phone with this SSRC; None if nothing has arrived yet."""
        if self._source is None:
            return None
        expected = self._highest - self._first + 1
        expected_since, received_since = expected - self._expected_before, self._received - self._received_before
        lost_since = max(0, expected_since - received_since)
        fraction = min(255, 256 * lost_since // expected_since) if expected_since > 0 else 0
        self._expected_before, self._received_before = expected, self._received
        last, delay = 0, 0
        if self._sender_report is not None:
            last, arrival = self._sender_report
            delay = (now - arrival) * 65536 // _SECOND_NS
        block = struct.pack(
            "!IIIIII",
            self._source,
            fraction << 24 | expected - self._received & 0xFFFFFF,
            self._highest & 0xFFFFFFFF,
            round(self._jitter),
            last,
            delay & 0xFFFFFFFF,
        )
        head = struct.pack("!BBHI", _VERSION_AND_ONE, RECEIVER_REPORT, 7, source)
        # A report is followed by its sender's name (6.1), here one of two letters.
        name = struct.pack("!BBHIBB2sI", _VERSION_AND_ONE, DESCRIPTION, 3, source, _CNAME, 2, b"me", 0)
        return head + block + name
