"""Tells a voicemail's beep from speech, music and the tones of telephone networks. Pure.

A beep is one steady tone with quiet after it. Each 20 ms the latest 40 ms are asked for their frequency, and for how
much of their energy one sine of it explains. Windows that agree in frequency and level make a run; one that is long
enough, and not too long, is a candidate. What follows decides: after a beep a voicemail waits for the caller, after a
note the music goes on.
"""

from __future__ import annotations

import cmath
import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import mul

RATE = 8000
"""Samples a second."""
FRAME = 160
"""Samples: 20 ms."""
WINDOW = 2 * FRAME

LOWEST_HZ, HIGHEST_HZ = 390.0, 2020.0
NETWORK_HZ = (415.0, 435.0)
"""Not a beep: ITU-T E.180 recommends 425 Hz, alone, for ringing, busy and congestion, which pulse as beeps do."""
SHORTEST, LONGEST = 4, 98
"""Windows of a run. A tone of 120 ms fills at least four, one of 2 s at most 99."""
PURE = 0.92
"""Part of the energy that one sine must explain. The two tones of a key, or of ring-back, reach about a half."""
NEAR = 0.15
"""By which part of it the first look at 20 ms may miss a frequency."""
QUIETEST = 130.0**2
"""Mean square of a sample: -45 dBFS, where 0 is the largest sine."""
STEADY = 10 ** (2.0 / 10)
"""Within a run the power stays within 2 dB: that of a bell or of a string that was struck doesn't."""
FADE = 3
"""Frames that a tone may take to fade away."""
QUIET = 4
"""Frames of quiet that make it a beep."""
DROP = 10 ** (-12.0 / 10)
"""Quiet is 12 dB below the tone."""
APART = 5
"""Frames. Tones nearer to each other belong together: a melody, or the three tones before "is not in service"."""


@dataclass(frozen=True, slots=True)
class Frame:
    samples: array[int]
    power: float
    """Mean square of a sample."""
    one: float
    """Autocorrelation at a distance of one sample; then of two. They take in the two samples before the frame."""
    two: float

    @classmethod
    def of(cls, samples: array[int]) -> Frame:
        """Of the two samples before it, and its own."""
        own = samples[2:]
        squares, one, two = (sum(map(mul, own, samples[start:])) for start in (2, 1, 0))
        return cls(own, squares / FRAME, one, two)


@dataclass(frozen=True, slots=True)
class Tone:
    hz: float
    power: float
    """Mean square of a sample."""

    def agrees(self, other: Tone) -> bool:
        return abs(self.hz - other.hz) <= max(8.0, 0.015 * self.hz)

    def is_as_loud_as(self, other: Tone) -> bool:
        return self.power <= other.power * STEADY and other.power <= self.power * STEADY


@dataclass(slots=True)
class Run:
    tone: Tone
    """Its first window's."""
    windows: int = 1


@dataclass(slots=True)
class Candidate:
    """A run that would be a beep if quiet follows."""

    power: float
    fading: int = 0
    quiet: int = 0

    def next(self, power: float) -> bool | None:
        """What the next frame makes of it: a beep, none, or None: not known yet."""
        if power <= self.power * DROP:
            self.quiet += 1
            return True if self.quiet == QUIET else None
        self.fading += 1
        return False if self.quiet or self.fading > FADE else None


class BeepDetector:
    """Of one channel's audio, from its first sample on."""

    def __init__(self) -> None:
        self._rest = b""
        self._frame = Frame.of(array("h", bytes(2 * FRAME + 4)))
        self._run: Run | None = None
        self._last: Run | None = None
        self._since_last = 0
        """Windows that have passed since that run."""
        self._candidate: Candidate | None = None

    def hear(self, audio: bytes) -> bool:
        """More of it: 16 bit, 8 kHz, this machine's order of bytes, in pieces of any length.

        True once for each beep: 80 to 160 ms after its end, or after as much audio more as makes whole frames.
        """
        audio = self._rest + audio
        whole = len(audio) - len(audio) % (2 * FRAME)
        self._rest = audio[whole:]
        beeps = [self._step(array("h", audio[at : at + 2 * FRAME])) for at in range(0, whole, 2 * FRAME)]
        return True in beeps

    def _step(self, samples: array[int]) -> bool:
        before, self._frame = self._frame, Frame.of(self._frame.samples[-2:] + samples)
        tone = tone_of(before, self._frame) if self._frame.power >= QUIETEST else None
        if (ended := self._follow(tone)) and self._may_be_a_beep(ended):
            self._candidate = Candidate(ended.tone.power)
        if self._candidate is None:
            return False
        beep = self._candidate.next(self._frame.power)
        if beep is not None:
            self._candidate = None
        return beep is True

    def _follow(self, tone: Tone | None) -> Run | None:
        """The run that has ended with this window."""
        run = self._run
        if run and tone and tone.agrees(run.tone) and tone.is_as_loud_as(run.tone):
            run.windows += 1
            return None
        self._run = Run(tone) if tone else None
        self._since_last += 1
        return run if run and run.windows >= SHORTEST else None

    def _may_be_a_beep(self, run: Run) -> bool:
        # Windows in which nothing is steady were counted one by one; the run itself as one.
        near = self._last if self._since_last <= APART + 1 else None
        self._last, self._since_last = run, 0
        if near and not near.tone.agrees(run.tone):
            return False
        if near:
            # A lost packet cuts a tone in two; both are as long as the whole.
            run.windows += near.windows
        return run.windows <= LONGEST and not NETWORK_HZ[0] <= run.tone.hz <= NETWORK_HZ[1]


def tone_of(before: Frame, frame: Frame) -> Tone | None:
    """The tone of these 40 ms; None unless there is one, and nothing else."""
    power = (before.power + frame.power) / 2
    hz = _about(before.one + frame.one, before.two + frame.two)
    # Most of what is spoken ends here, before the part that takes the time.
    if abs(before.power - frame.power) > power / 2 or abs(hz - _about(frame.one, frame.two)) > NEAR * hz:
        return None
    # A second look, since the first may be some Hz off: the phase tells how many.
    for _ in range(2):
        if not LOWEST_HZ <= hz <= HIGHEST_HZ:
            return None
        early, late = _projected(before.samples + frame.samples, hz)
        pure = 2.0 * abs(early + late) ** 2 >= PURE * WINDOW * WINDOW * power
        hz += cmath.phase(late * early.conjugate()) / math.tau * RATE / FRAME
        if pure:
            return Tone(hz, power)
    return None


def _about(one: float, two: float) -> float:
    """The loudest frequency, in Hz. Pisarenko's: of autocorrelations that white noise doesn't change."""
    cosine = (two + math.sqrt(two * two + 8.0 * one * one)) / (4.0 * one) if one else 0.0
    return math.acos(max(-1.0, min(1.0, cosine))) / math.tau * RATE


def _projected(window: array[int], hz: float) -> tuple[complex, complex]:
    """The window's parts of that frequency, of its earlier half and of its later."""
    cosines, sines = _waves(2 * round(hz / 2))
    real, imaginary = list(map(mul, window, cosines)), list(map(mul, window, sines))
    return (
        complex(sum(real[:FRAME]), -sum(imaginary[:FRAME])),
        complex(sum(real[FRAME:]), -sum(imaginary[FRAME:])),
    )


@lru_cache(maxsize=128)
def _waves(hz: int) -> tuple[Sequence[float], Sequence[float]]:
    turns = [math.tau * hz * sample / RATE for sample in range(WINDOW)]
    return tuple(map(math.cos, turns)), tuple(map(math.sin, turns))
