"""G.711 mu-law by lookup table: int16 samples <-> bytes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

RATE = 8000
"""Samples per second, everywhere in this package."""
FRAME = 160
"""Samples per packet: 20 ms."""
SILENCE = b"\xff"
"""The mu-law byte for the value 0."""

_BIAS = 132
_CLIP = 32635


def _build_decode_table() -> NDArray[np.int16]:
    code = ~np.arange(256, dtype=np.uint8)
    exponent = (code >> 4 & 7).astype(np.int32)
    magnitude = ((((code & 15).astype(np.int32) << 3) + _BIAS) << exponent) - _BIAS
    return np.where(code & 0x80, -magnitude, magnitude).astype(np.int16)


def _build_encode_table() -> NDArray[np.uint8]:
    sample = np.arange(65536, dtype=np.uint16).view(np.int16).astype(np.int32)
    magnitude = np.minimum(np.abs(sample), _CLIP) + _BIAS
    exponent = np.floor(np.log2(magnitude)).astype(np.int32) - 7
    mantissa = magnitude >> exponent + 3 & 15
    sign = np.where(sample < 0, 0x80, 0)
    code: NDArray[np.uint8] = ~(sign | exponent << 4 | mantissa).astype(np.uint8)
    return code


_DECODE = _build_decode_table()
_ENCODE = _build_encode_table()


def encode(samples: NDArray[np.int16]) -> bytes:
    return _ENCODE[samples.astype(np.int16, copy=False).view(np.uint16)].tobytes()


def decode(payload: bytes) -> NDArray[np.int16]:
    return _DECODE[np.frombuffer(payload, np.uint8)]
