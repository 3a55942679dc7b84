"""What is in a piece of sound. Pure functions on int16 samples at 8 kHz; times are ms from the start of the piece.

Levels are in dBFS, where 0 is the loudest sine. Callers that are to be told apart each take one of PITCHES: these lie
far enough apart for windows of 20 ms, and none of them is a beep's (700 Hz).
"""

from __future__ import annotations

import math
import wave
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from demo.g711 import RATE

Samples = NDArray[np.int16]
Spans = list[tuple[float, float]]

PITCHES = tuple(475 + 150 * number for number in range(20))
"""Hz. With a conference's 20 members at -30 dBFS each the mix stays below the limit."""
SILENT = -55.0
"""dBFS; the noise of G.711 on a quiet line lies below it, a whisper above."""

_WINDOW, _HOP = 160, 40


def level_dbfs(samples: Samples) -> float:
    """-120 for nothing at all."""
    power = float(np.mean(np.square(samples, dtype=np.float64))) if len(samples) else 0.0
    return max(-120.0, 10 * math.log10(2 * power / 32768**2 + 1e-30))


def silent(samples: Samples, below: float = SILENT) -> bool:
    """True if no 20 ms of it are as loud as `below`."""
    whole = samples[: len(samples) // _WINDOW * _WINDOW].reshape(-1, _WINDOW)
    return all(level_dbfs(window) < below for window in whole)


def levels(samples: Samples, pitches: Sequence[int]) -> NDArray[np.float64]:
    """dBFS of each pitch (rows) in windows of 20 ms, each 5 ms after the one before (columns)."""
    if len(samples) < _WINDOW:
        return np.full((len(pitches), 0), -120.0)
    windows = np.lib.stride_tricks.sliding_window_view(samples, _WINDOW)[::_HOP].astype(np.float64)
    turns = np.outer(np.array(pitches), np.arange(_WINDOW)) * (2j * np.pi / RATE)
    hann = np.hanning(_WINDOW + 1)[:-1]
    amplitude = 2 * np.abs(np.exp(-turns) * hann @ windows.T) / hann.sum() / 32768
    quiet: NDArray[np.float64] = np.maximum(20 * np.log10(amplitude + 1e-9), -120.0)
    return quiet


def tones(samples: Samples, pitches: Sequence[int] = PITCHES, above: float = -45.0) -> dict[int, Spans]:
    """When each of the pitches sounds; those that never do are left out.

    A tone's edge is where it is 6 dB below its usual level: so an edge is exact to 5 ms. Shorter than 40 ms is no tone.
    """
    found = {}
    for pitch, row in zip(pitches, levels(samples, pitches), strict=True):
        loud = row[row > above]
        if len(loud):
            spans = [span for span in _spans(row > max(above, np.percentile(loud, 75) - 6)) if span[1] - span[0] >= 40]
            if spans:
                found[pitch] = spans
    return found


def intervals_of(samples: Samples, hz: int, above: float = -45.0) -> Spans:
    return tones(samples, [hz], above).get(hz, [])


def sounds(samples: Samples, hz: int, share: float = 0.9, above: float = -45.0) -> bool:
    """True if the tone is there for at least this share of the time."""
    time = sum(end - start for start, end in intervals_of(samples, hz, above))
    return time >= share * len(samples) * 1000 / RATE


def gaps(samples: Samples, hz: int, longest_ms: float = 0.0, above: float = -45.0) -> Spans:
    """The pauses of a tone between its first and its last sound that are longer than `longest_ms`."""
    spans = intervals_of(samples, hz, above)
    pauses = [(end, start) for (_, end), (start, _) in pairwise(spans)]
    return [(start, end) for start, end in pauses if end - start > longest_ms]


def _spans(on: NDArray[np.bool_]) -> Spans:
    """Runs of windows as (start, end) in ms: a window stands for the 5 ms in its middle."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], on, [False])).astype(np.int8))).reshape(-1, 2)
    edge = (_WINDOW - _HOP) / 2
    last = len(on)
    # At the very start and end nothing more can be told apart: a tone in the first window began with the piece.
    return [
        (
            0.0 if start == 0 else float(start * _HOP + edge) * 1000 / RATE,
            float((end - 1) * _HOP + (_WINDOW if end == last else edge + _HOP)) * 1000 / RATE,
        )
        for start, end in edges
    ]


@dataclass(frozen=True)
class Beep:
    start_ms: float
    length_ms: float
    hz: int


def beeps(samples: Samples, above: float = -40.0, shortest_ms: float = 60, longest_ms: float = 1000) -> list[Beep]:
    """Short pure tones of 400 Hz or more (below, a voice can be as pure): all strength in one pitch, and that stays.

    Nothing else may sound as loudly at the same time: for a beep over other sounds ask for its pitch (`intervals_of`).
    """
    if len(samples) < 320:
        return []
    windows = np.lib.stride_tricks.sliding_window_view(samples, 320)[::80].astype(np.float64)
    power = np.abs(np.fft.rfft(windows * np.hanning(320), 1600)) ** 2
    peak = power.argmax(axis=1)
    near = np.abs(np.arange(power.shape[1])[None, :] - peak[:, None]) <= 10
    pure = (power * near).sum(axis=1) > 0.97 * power.sum(axis=1)
    loud = 10 * np.log10(2 * np.mean(windows**2, axis=1) / 32768**2 + 1e-30) > above
    found = []
    start = 0
    for at in range(1, len(peak) + 1):
        on = pure & loud
        if at == len(peak) or not on[at] or not on[start] or abs(int(peak[at]) - int(peak[start])) > 4:
            length = (at - start) * 10.0 + 20.0
            hz = round(float(np.median(peak[start:at])) * 5)
            if on[start] and hz >= 400 and shortest_ms <= length - 20.0 <= longest_ms:
                found.append(_trimmed(samples, start * 10.0, length, hz))
            start = at
    return found


def _trimmed(samples: Samples, start: float, length: float, hz: int) -> Beep:
    first, last = int(max(0, start - 30)) * 8, int(start + length + 30) * 8
    spans = intervals_of(samples[first:last], hz)
    if not spans:
        return Beep(start, length, hz)
    return Beep(first / 8 + spans[0][0], spans[-1][1] - spans[0][0], hz)


@dataclass(frozen=True)
class Match:
    """`score` is the share (0..1) of the reference's sounding parts that are in the sound, all at one offset.

    Of a reference more than twice as long as the sound: the share of the sound's parts that are in the reference.
    `offset_ms` is where the reference begins in the sound; negative if the sound begins within the reference.
    `strength` is the median correlation: near 1 alone, 0.5 as one of four equally loud.
    """

    score: float
    offset_ms: float
    strength: float


FOUND = 0.6
"""The score from which on a recording counts as heard."""
_PIECE = RATE * 4 // 10
SLIP_MS = 30.0
"""A conference's mixer may leave out or repeat a frame: the pieces may slip by so much around the common offset."""
MOST_SLIP_MS = 400.0
_AROUND = RATE * 4
_SURE, _LEAST, _CLEAR = 0.5, 0.05, 1.25


def contains(samples: Samples, reference: Samples, slip_ms: float = SLIP_MS) -> Match:
    """Whether a recording can be heard in the sound, also under other voices, and where.

    By waveform: the path is digital and keeps the clock, so that the very samples come out, but for noise and others'.
    A piece of 400 ms is found if it fits clearly better at the common offset than anywhere in the 4 s around it.
    `slip_ms`: more than usual if the machine was late, so that the mixer had more to leave out.
    """
    slip = round(min(slip_ms, MOST_SLIP_MS) * RATE / 1000)
    whiten = _whitener(samples, reference)
    sound, known = whiten(samples), whiten(reference)
    # Some seconds of a long song: then it is the sound whose pieces are looked for.
    long, short, sign = (known, sound, -1) if 2 * len(sound) < len(known) else (sound, known, 1)
    starts = _sounding(samples if sign < 0 else reference)
    if not starts or len(long) < _PIECE:
        return Match(0.0, 0.0, 0.0)
    best = Match(0.0, 0.0, 0.0)
    for offset in _candidates(long, short, starts):
        fits = [_fit(long, short[start : start + _PIECE], start + offset, slip) for start in starts]
        found = [here > _SURE or (here > _LEAST and here > _CLEAR * elsewhere) for here, elsewhere in fits]
        match = Match(
            sum(found) / len(found), sign * offset * 1000 / RATE, float(np.median([here for here, _ in fits]))
        )
        best = max(best, match, key=lambda one: (one.score, one.strength))
    return best


def loudest(samples: Samples, references: Iterable[Path], slip_ms: float = SLIP_MS) -> tuple[Path, Match]:
    """Which of the WAV files is heard best, such as the folder of the music on hold."""
    matches = [(path, contains(samples, wav(path), slip_ms)) for path in references]
    return max(matches, key=lambda one: (one[1].score, one[1].strength))


@cache
def wav(path: Path) -> Samples:
    """int16 at 8 kHz of a WAV file of that format. Raises ValueError for another one."""
    with wave.open(str(path)) as file:
        if (file.getnchannels(), file.getsampwidth(), file.getframerate()) != (1, 2, RATE):
            raise ValueError(f"{path} must be a WAV file of 8 kHz, 16 bit, one channel")
        return np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.int16)


def _whitener(samples: Samples, reference: Samples) -> Callable[[Samples], NDArray[np.float32]]:
    """One filter for both, which makes their spectra flat: else the loudest band, or a loud tone, decides alone."""
    power = _spectrum(samples) + _spectrum(reference)
    taps = np.roll(np.fft.irfft(1 / np.sqrt(power + power.max() * 1e-5 + 1e-9)), 512).astype(np.float32)
    return lambda what: _correlate(np.pad(what.astype(np.float32), (512, 511)), taps[::-1])


def _spectrum(samples: Samples) -> NDArray[np.float64]:
    blocks = np.resize(samples, (max(1, len(samples) // 1024), 1024)) * np.hanning(1024)
    power = np.mean(np.abs(np.fft.rfft(blocks)) ** 2, axis=0)
    flat: NDArray[np.float64] = power / (power.mean() + 1e-9)
    return flat


def _correlate(long: NDArray[np.float32], piece: NDArray[np.float32]) -> NDArray[np.float32]:
    """As np.correlate(long, piece, "valid"), by blocks that stay in the processor's cache."""
    size = 1 << 15
    step = size - len(piece) + 1
    count = max(1, -(-(len(long) - len(piece) + 1) // step))
    padded = np.concatenate((long, np.zeros(count * step + size - len(long), np.float32)))
    turned = np.conj(np.fft.rfft(piece, size))
    blocks = [np.fft.irfft(np.fft.rfft(padded[at * step : at * step + size]) * turned)[:step] for at in range(count)]
    return np.concatenate(blocks)[: len(long) - len(piece) + 1].astype(np.float32)


def _normalised(long: NDArray[np.float32], piece: NDArray[np.float32]) -> NDArray[np.float64]:
    """The correlation coefficient (-1..1) of the piece with each place of the long one."""
    energy = np.concatenate(([0.0], np.cumsum(np.square(long, dtype=np.float64))))
    local = np.maximum(energy[len(piece) :] - energy[: -len(piece)], energy[-1] / len(long) + 1e-12)
    fit: NDArray[np.float64] = _correlate(long, piece) / np.sqrt(
        local * np.sum(np.square(piece, dtype=np.float64)) + 1e-12
    )
    return fit


def _sounding(samples: Samples) -> list[int]:
    """The starts of its pieces of 400 ms in which somebody can be heard."""
    # Of a short recording few pieces would decide: there they overlap.
    step = _PIECE if len(samples) > 20 * _PIECE else _PIECE // 2
    starts = range(0, len(samples) - _PIECE + 1, step)
    loudness = {start: level_dbfs(samples[start : start + _PIECE]) for start in starts}
    least = max([SILENT, *(value - 20 for value in loudness.values())])
    return [start for start in starts if loudness[start] > least]


def _candidates(long: NDArray[np.float32], short: NDArray[np.float32], starts: list[int]) -> set[int]:
    """Offsets at which a few of the pieces fit best."""
    some = starts[:: max(1, len(starts) // 5)]
    return {int(np.argmax(_normalised(long, short[start : start + _PIECE]))) - start for start in some}


def _fit(long: NDArray[np.float32], piece: NDArray[np.float32], place: int, slip: int) -> tuple[float, float]:
    """How well it fits (there, elsewhere in the 4 s around); (0, 0) where the longer one has ended."""
    low = max(place - _AROUND, 0)
    near = long[low : place + len(piece) + _AROUND]
    if place + slip < 0 or place - slip > len(long) - len(piece) or len(near) < len(piece):
        return 0.0, 0.0
    fit = _normalised(near, piece)
    first, last = max(place - slip - low, 0), place + slip - low
    here, elsewhere = fit[first:last], np.concatenate((fit[:first], fit[last:], [0.0]))
    return float(here.max(initial=0.0)), float(elsewhere.max())
