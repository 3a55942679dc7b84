"""Received audio of a phone: each packet at its arrival time, so that silence, gaps and delays are visible."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from demo.codec import PCMU, Codec
from demo.g711 import RATE

Samples = NDArray[np.int16]
T = TypeVar("T", bound=np.generic)

_PER_MS = RATE // 1000
_DRIFT = 60 * _PER_MS
"""Samples. An ordinary phone compensates this much jitter; a packet that is later or earlier starts a new run."""
_LONGEST_PAUSE = 60 * RATE
"""Samples. A longer pause is a clock that jumped."""


@dataclass(frozen=True)
class ReceivedAudio:
    """int16 at 8 kHz from `start_ms` (epoch ms) on; `covered` is False for times without a packet."""

    start_ms: float
    audio: Samples
    covered: NDArray[np.bool_]
    arrivals_ms: NDArray[np.float64]

    @property
    def end_ms(self) -> float:
        return self.start_ms + len(self.audio) / _PER_MS

    def between(self, start_ms: float, end_ms: float) -> Samples:
        """Return exactly that stretch of time, with zeros for missing audio."""
        return _cut(self.audio, round((start_ms - self.start_ms) * _PER_MS), round((end_ms - start_ms) * _PER_MS))

    def since(self, start_ms: float) -> Samples:
        return self.between(start_ms, max(start_ms, self.end_ms))

    def missing(self, start_ms: float, end_ms: float, longer_than_ms: float = 0) -> list[tuple[float, float]]:
        """Return (from, to) in epoch ms of each stretch without packets."""
        first = round((start_ms - self.start_ms) * _PER_MS)
        covered = _cut(self.covered, first, round((end_ms - start_ms) * _PER_MS))
        edges = np.flatnonzero(np.diff(np.concatenate(([True], covered, [True])).astype(np.int8)))
        spans = edges.reshape(-1, 2) / _PER_MS + start_ms
        return [(float(a), float(b)) for a, b in spans if b - a > longer_than_ms]

    def longest_wait(self, start_ms: float, end_ms: float) -> float:
        """Return the longest time in ms between the arrivals of two consecutive packets."""
        inside = self.arrivals_ms[(self.arrivals_ms >= start_ms) & (self.arrivals_ms <= end_ms)]
        return float(np.max(np.diff(np.concatenate(([start_ms], inside, [end_ms])))))


def _payload(packet: bytes) -> bytes:
    return packet[12 + 4 * (packet[0] & 15) :]


def _cut(array: NDArray[T], first: int, count: int) -> NDArray[T]:
    piece = np.zeros(count, array.dtype)
    low, high = max(first, 0), min(first + count, len(array))
    if low < high:
        piece[low - first : high - first] = array[low:high]
    return piece


@dataclass
class AudioRecorder:
    """A recorder of RTP packets, which puts them into place only when `heard` is called.

    A packet's place is its RTP timestamp, counted from the arrival of the first packet of its run. Jitter that a phone
    compensates leaves no trace, a lost packet or a pause is a hole, and a stream that jumps restarts where it arrived.
    """

    codec: Codec = PCMU
    arrived: list[tuple[int, bytes]] = field(default_factory=list)
    """(arrival in epoch ns, RTP packet) pairs, appended by the RTP thread."""
    _placed: int = 0
    _start_ns: int = 0
    _source: int | None = None
    _offset: int = 0
    _length: int = 0
    _audio: Samples = field(default_factory=lambda: np.zeros(10 * RATE, np.int16))
    _covered: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(10 * RATE, np.bool_))

    def heard(self) -> ReceivedAudio:
        there = len(self.arrived)
        known = max(self._placed, there - self.codec.run_out)
        if known > self._placed:
            first = max(0, self._placed - self.codec.run_in)
            decoded = self.codec.decode([_payload(packet) for _, packet in self.arrived[first:there]])
            new = slice(self._placed, known)
            for (arrival, packet), samples in zip(self.arrived[new], decoded[self._placed - first :], strict=False):
                self._place(arrival, packet, samples)
            self._placed = known
        arrivals = np.array([arrival for arrival, _ in self.arrived[:known]], np.int64) / 1e6
        audio, covered = self._audio[: self._length].copy(), self._covered[: self._length].copy()
        return ReceivedAudio(self._start_ns / 1e6, audio, covered, arrivals)

    def as_sent(self) -> Samples:
        """Return each packet where its sender's clock puts it, as a phone that compensates any jitter plays it."""
        placed: list[Samples] = []
        latest, expected, before = 0, 0, None
        decoded = self.codec.decode([_payload(packet) for _, packet in self.arrived])
        for (_, packet), samples in zip(self.arrived, decoded, strict=False):
            number, stamp, source = struct.unpack_from("!HII", packet, 2)
            if source == before and (number - latest & 0xFFFF) >= 1 << 15:
                continue  # a later packet has overtaken it
            # A sender that was late may set its clock back for the next packet: that is no pause, and nothing is lost.
            pause = stamp - expected & 0xFFFFFFFF if source == before else 0
            if pause < _LONGEST_PAUSE:
                placed.append(np.zeros(pause, np.int16))
            placed.append(samples)
            latest, expected, before = number, stamp + len(samples), source
        return np.concatenate(placed) if placed else np.zeros(0, np.int16)

    def _place(self, arrival: int, packet: bytes, samples: Samples) -> None:
        stamp, source = struct.unpack_from("!II", packet, 4)
        if not self._start_ns:
            self._start_ns = arrival
        now = (arrival - self._start_ns) * RATE // 1_000_000_000
        place = (stamp + self._offset) & 0xFFFFFFFF
        place -= 1 << 32 if place >= 1 << 31 else 0
        if source != self._source or abs(now - place) > _DRIFT:
            self._source, self._offset, place = source, now - stamp, now
        self._write(max(place, 0), samples)

    def _write(self, place: int, samples: Samples) -> None:
        end = place + len(samples)
        if end > len(self._audio):
            more = max(len(self._audio), end)
            self._audio = np.concatenate((self._audio, np.zeros(more, np.int16)))
            self._covered = np.concatenate((self._covered, np.zeros(more, np.bool_)))
        self._audio[place:end] = samples
        self._covered[place:end] = True
        self._length = max(self._length, end)
