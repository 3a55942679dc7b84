"""Audio analysis: pure functions on int16 samples at 8 kHz. Times are ms from the start of the samples.

Levels are in dBFS, where 0 is the loudest sine. Callers that must be told apart each use one of PITCHES: these are far
enough apart for windows of 20 ms, and none is the pitch of a beep (700 Hz).
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
Intervals = list[tuple[float, float]]

PITCHES = tuple(475 + 150 * number for number in range(20))
"""Hz. With 20 members of a conference at -30 dBFS each, the mix does not clip."""
SILENT = -55.0
"""dBFS. The noise of G.711 on a quiet line is below this level, a whisper above."""

_WINDOW, _HOP = 160, 40


def level_dbfs(samples: Samples) -> float:
    """Return the level in dBFS, at least -120."""
    power = float(np.mean(np.square(samples, dtype=np.float64))) if len(samples) else 0.0
    return max(-120.0, 10 * math.log10(2 * power / 32768**2 + 1e-30))


def silent(samples: Samples, below: float = SILENT) -> bool:
    """Return True if every 20 ms window is quieter than `below` dBFS."""
    whole = samples[: len(samples) // _WINDOW * _WINDOW].reshape(-1, _WINDOW)
    return all(level_dbfs(window) < below for window in whole)


def levels(samples: Samples, pitches: Sequence[int]) -> NDArray[np.float64]:
    """Return the dBFS of each pitch (rows) in windows of 20 ms at steps of 5 ms (columns)."""
    if len(samples) < _WINDOW:
        return np.full((len(pitches), 0), -120.0)
    windows = np.lib.stride_tricks.sliding_window_view(samples, _WINDOW)[::_HOP].astype(np.float64)
    turns = np.outer(np.array(pitches), np.arange(_WINDOW)) * (2j * np.pi / RATE)
    hann = np.hanning(_WINDOW + 1)[:-1]
    amplitude = 2 * np.abs(np.exp(-turns) * hann @ windows.T) / hann.sum() / 32768
    quiet: NDArray[np.float64] = np.maximum(20 * np.log10(amplitude + 1e-9), -120.0)
    return quiet


def tones(samples: Samples, pitches: Sequence[int] = PITCHES, above: float = -45.0) -> dict[int, Intervals]:
    """Return the intervals in which each pitch sounds; pitches that never sound are left out.

    A tone's edge is where it is 6 dB below its usual level, so an edge is exact to 5 ms. A tone lasts at least 40 ms.
    """
    found = {}
    for pitch, row in zip(pitches, levels(samples, pitches), strict=True):
        loud = row[row > above]
        if len(loud):
            spans = [span for span in _spans(row > max(above, np.percentile(loud, 75) - 6)) if span[1] - span[0] >= 40]
            if spans:
                found[pitch] = spans
    return found


def intervals_of(samples: Samples, hz: int, above: float = -45.0) -> Intervals:
    return tones(samples, [hz], above).get(hz, [])


def is_tone_present(samples: Samples, hz: int, share: float = 0.9, above: float = -45.0) -> bool:
    """Return True if the tone sounds for at least this share of the time."""
    time = sum(end - start for start, end in intervals_of(samples, hz, above))
    return time >= share * len(samples) * 1000 / RATE


def gaps(samples: Samples, hz: int, longest_ms: float = 0.0, above: float = -45.0) -> Intervals:
    """Return the pauses between a tone's first and last interval that are longer than `longest_ms`."""
    spans = intervals_of(samples, hz, above)
    pauses = [(end, start) for (_, end), (start, _) in pairwise(spans)]
    return [(start, end) for start, end in pauses if end - start > longest_ms]


def _spans(on: NDArray[np.bool_]) -> Intervals:
    """Return runs of windows as (start, end) in ms: a window stands for the 5 ms in its middle."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], on, [False])).astype(np.int8))).reshape(-1, 2)
    edge = (_WINDOW - _HOP) / 2
    last = len(on)
    # At the start and the end nothing finer can be told apart: a tone in the first window started with the samples.
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
    """Return the short pure tones of 400 Hz or more: all power is in one pitch, and the pitch is constant.

    Below 400 Hz a voice can be as pure. No other sound may be as loud at the same time: for a beep over other sounds,
    use `intervals_of` with its pitch.
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
                found.append(_trim(samples, start * 10.0, length, hz))
            start = at
    return found


def _trim(samples: Samples, start: float, length: float, hz: int) -> Beep:
    first, last = int(max(0, start - 30)) * 8, int(start + length + 30) * 8
    spans = intervals_of(samples[first:last], hz)
    if not spans:
        return Beep(start, length, hz)
    return Beep(first / 8 + spans[0][0], spans[-1][1] - spans[0][0], hz)


@dataclass(frozen=True)
class Match:
    """The result of a search for a reference recording in a sound.

    `score`: the share (0..1) of the reference's audible parts that are in the sound, all at one offset. If the
    reference is more than twice as long as the sound: the share of the sound's parts that are in the reference.

    `offset_ms`: the reference's start in the sound; negative if the sound starts within the reference.

    `strength`: the median correlation: near 1 for the reference alone, 0.5 for one of four equally loud voices.
    """

    score: float
    offset_ms: float
    strength: float


FOUND = 0.6
"""The minimum score of a recording that counts as heard."""
_PIECE = RATE * 4 // 10
SLIP_MS = 30.0
"""The tolerance in ms around the common offset, since a conference's mixer may drop or repeat a frame."""
MAX_SLIP_MS = 400.0
_AROUND = RATE * 4
_SURE, _LEAST, _CLEAR = 0.5, 0.05, 1.25


def find_reference(samples: Samples, reference: Samples, slip_ms: float = SLIP_MS) -> Match:
    """Return the best match of a recording in the sound, also under other voices.

    The search compares waveforms: the path is digital and keeps the clock, so the same samples arrive, plus noise and
    other voices. A piece of 400 ms is found if it fits clearly better at the common offset than anywhere in the 4 s
    around it.

    `slip_ms`: more than usual if the machine was late, so that the mixer dropped more.
    """
    slip = round(min(slip_ms, MAX_SLIP_MS) * RATE / 1000)
    whiten = _whitener(samples, reference)
    sound, known = whiten(samples), whiten(reference)
    # A sound of some seconds of a long song: the search looks for the sound's pieces in the song.
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


def best_match(samples: Samples, references: Iterable[Path], slip_ms: float = SLIP_MS) -> tuple[Path, Match]:
    """Return the WAV file that is heard best, for example from the folder of the music on hold, and its match."""
    matches = [(path, find_reference(samples, wav(path), slip_ms)) for path in references]
    return max(matches, key=lambda one: (one[1].score, one[1].strength))


@cache
def wav(path: Path) -> Samples:
    """Return the int16 samples of a mono WAV file at 8 kHz. Raises ValueError for another format."""
    with wave.open(str(path)) as file:
        if (file.getnchannels(), file.getsampwidth(), file.getframerate()) != (1, 2, RATE):
            raise ValueError(f"{path} must be a WAV file of 8 kHz, 16 bit, one channel")
        return np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.int16)


def _whitener(samples: Samples, reference: Samples) -> Callable[[Samples], NDArray[np.float32]]:
    """Return one filter for both that flattens their spectra: otherwise the loudest band or tone dominates the
    match."""
    power = _spectrum(samples) + _spectrum(reference)
    taps = np.roll(np.fft.irfft(1 / np.sqrt(power + power.max() * 1e-5 + 1e-9)), 512).astype(np.float32)
    return lambda what: _correlate(np.pad(what.astype(np.float32), (512, 511)), taps[::-1])


def _spectrum(samples: Samples) -> NDArray[np.float64]:
    blocks = np.resize(samples, (max(1, len(samples) // 1024), 1024)) * np.hanning(1024)
    power = np.mean(np.abs(np.fft.rfft(blocks)) ** 2, axis=0)
    flat: NDArray[np.float64] = power / (power.mean() + 1e-9)
    return flat


def _correlate(long: NDArray[np.float32], piece: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return np.correlate(long, piece, "valid"), computed in blocks that stay in the processor's cache."""
    size = 1 << 15
    step = size - len(piece) + 1
    count = max(1, -(-(len(long) - len(piece) + 1) // step))
    padded = np.concatenate((long, np.zeros(count * step + size - len(long), np.float32)))
    turned = np.conj(np.fft.rfft(piece, size))
    blocks = [np.fft.irfft(np.fft.rfft(padded[at * step : at * step + size]) * turned)[:step] for at in range(count)]
    return np.concatenate(blocks)[: len(long) - len(piece) + 1].astype(np.float32)


def _normalized_correlation(long: NDArray[np.float32], piece: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the correlation coefficient (-1..1) of the piece at each place of `long`."""
    energy = np.concatenate(([0.0], np.cumsum(np.square(long, dtype=np.float64))))
    local = np.maximum(energy[len(piece) :] - energy[: -len(piece)], energy[-1] / len(long) + 1e-12)
    fit: NDArray[np.float64] = _correlate(long, piece) / np.sqrt(
        local * np.sum(np.square(piece, dtype=np.float64)) + 1e-12
    )
    return fit


def _sounding(samples: Samples) -> list[int]:
    """Return the starts of the audible pieces of 400 ms."""
    # A short recording has few pieces, so they overlap there.
    step = _PIECE if len(samples) > 20 * _PIECE else _PIECE // 2
    starts = range(0, len(samples) - _PIECE + 1, step)
    loudness = {start: level_dbfs(samples[start : start + _PIECE]) for start in starts}
    least = max([SILENT, *(value - 20 for value in loudness.values())])
    return [start for start in starts if loudness[start] > least]


def _candidates(long: NDArray[np.float32], short: NDArray[np.float32], starts: list[int]) -> set[int]:
    """Return the offsets at which a few of the pieces fit best."""
    some = starts[:: max(1, len(starts) // 5)]
    return {int(np.argmax(_normalized_correlation(long, short[start : start + _PIECE]))) - start for start in some}


def _fit(long: NDArray[np.float32], piece: NDArray[np.float32], place: int, slip: int) -> tuple[float, float]:
    """Return the fit at the place, and elsewhere in the 4 s around it; (0, 0) beyond the ends of `long`."""
    low = max(place - _AROUND, 0)
    near = long[low : place + len(piece) + _AROUND]
    if place + slip < 0 or place - slip > len(long) - len(piece) or len(near) < len(piece):
        return 0.0, 0.0
    fit = _normalized_correlation(near, piece)
    first, last = max(place - slip - low, 0), place + slip - low
    here, elsewhere = fit[first:last], np.concatenate((fit[:first], fit[last:], [0.0]))
    return float(here.max(initial=0.0)), float(elsewhere.max())
