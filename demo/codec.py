"""Codecs of a phone: mu-law, or G.722 for a wideband phone. Both have 160 bytes in a packet of 20 ms."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from demo import g711

Samples = NDArray[np.int16]


@dataclass(frozen=True)
class Codec:
    payload_type: int
    name: str
    """The name in SDP, with a clock rate of 8000 for both. RFC 3551, 4.5.2: for G.722 that was a mistake, and stays."""
    rate: int
    """The sample rate in Hz that `encode` expects."""
    encode: Callable[[Samples], bytes]
    decode: Callable[[Sequence[bytes]], list[Samples]]
    """A function that returns the 8 kHz samples of each packet."""
    silence: bytes
    """The payload of one silent packet."""
    run_in: int = 0
    run_out: int = 0
    """The number of packets before and after a stretch that the decoder needs to decode it correctly."""


def _mulaw(packets: Sequence[bytes]) -> list[Samples]:
    return [g711.decode(packet) for packet in packets]


def _g722_encode(samples: Samples) -> bytes:
    return _ffmpeg(samples.astype("<i2").tobytes(), "-f s16le -ar 16000 -ac 1", "-f g722")


def _g722_decode(packets: Sequence[bytes]) -> list[Samples]:
    decoded = _ffmpeg(b"".join(packets), "-f g722", "-f s16le -ar 8000 -ac 1")
    edges = np.cumsum([len(packet) for packet in packets])[:-1]
    return list(np.split(np.frombuffer(decoded, "<i2").astype(np.int16), edges))


def _ffmpeg(what: bytes, given: str, wanted: str) -> bytes:
    command = ["ffmpeg", "-v", "error", *given.split(), "-i", "pipe:0", *wanted.split(), "pipe:1"]
    return subprocess.run(command, input=what, capture_output=True, check=True).stdout


PCMU = Codec(0, "PCMU", 8000, g711.encode, _mulaw, g711.SILENCE * g711.FRAME)
# 0xFF is the byte whose endless repetition decodes to the least noise.
G722 = Codec(9, "G722", 16000, _g722_encode, _g722_decode, b"\xff" * g711.FRAME, run_in=10, run_out=1)
