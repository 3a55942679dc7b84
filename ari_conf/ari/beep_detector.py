"""Beep detector: distinguishes a voicemail's beep from speech, music and the tones of telephone networks. Pure.

A beep is one steady tone with quiet after it. Every 20 ms, the detector computes the frequency of the latest 40 ms, and
the share of their energy that one sine of that frequency explains. Windows that agree in frequency and level form a
run; a run that is long enough, and not too long, is a candidate. The sound after it decides: after a beep a voicemail
waits for the caller, after a note the music continues.
"""

from __future__ import annotations

import cmath
import math
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import mul

SAMPLE_RATE_HZ = 8000
"""Samples per second."""
FRAME_SAMPLES = 160
"""Samples per frame: 20 ms."""
WINDOW_SAMPLES = 2 * FRAME_SAMPLES

LOWEST_HZ, HIGHEST_HZ = 390.0, 2020.0
NETWORK_HZ = (415.0, 435.0)
"""Lowest and highest frequency, in Hz, of tones that are not a beep: ITU-T E.180 recommends 425 Hz, alone, for ringing,
busy and congestion, which pulse as beeps do."""
MIN_RUN_WINDOWS, MAX_RUN_WINDOWS = 4, 98
"""Fewest and most windows of a candidate's run. A tone of 120 ms fills at least four, one of 2 s at most 99."""
MIN_TONE_SHARE = 0.92
"""Share of the energy that one sine must explain. Of the two tones of a key, or of ring-back, one sine explains about
half."""
FIRST_ESTIMATE_ERROR = 0.15
"""Relative error that the first estimate of a frequency, from 20 ms, may have."""
MIN_TONE_POWER = 130.0**2
"""Lowest mean square of a sample in a tone: -45 dBFS, where 0 is the largest sine."""
MAX_LEVEL_RATIO = 10 ** (2.0 / 10)
"""Highest ratio of powers within a run: 2 dB. That of a bell, or of a string that was struck, is higher."""
MAX_FADE_FRAMES = 3
"""Maximum number of frames in which a tone fades away."""
QUIET_FRAMES = 4
"""Frames of quiet that make a candidate a beep."""
QUIET_DROP = 10 ** (-12.0 / 10)
"""Highest ratio of quiet to the tone, in power: 12 dB below it."""
MIN_TONE_GAP_FRAMES = 5
"""Frames between separate tones. Tones nearer to each other belong together: a melody, or the three tones before "is
not in service"."""


@dataclass(frozen=True, slots=True)
class Frame:
    samples: array[int]
    power: float
    """Mean square of a sample."""
    lag1: float
    """Autocorrelation at a distance of one sample; `lag2`: of two samples. Both include the two samples before the
    frame."""
    lag2: float

    @classmethod
    def from_samples(cls, samples: array[int]) -> Frame:
        """Create a frame from the two samples before it and its own samples."""
        own = samples[2:]
        squares, lag1, lag2 = (sum(map(mul, own, samples[start:])) for start in (2, 1, 0))
        return cls(own, squares / FRAME_SAMPLES, lag1, lag2)


class Framer:
    """Cuts a channel's sound, which arrives in pieces of any length, into frames."""

    def __init__(self) -> None:
        self._rest = b""
        self._last = array("h", bytes(4))

    def frames(self, audio: bytes) -> Iterator[Frame]:
        """Yield the frames that this piece completes: 16 bit, 8 kHz, this machine's byte order."""
        audio = self._rest + audio
        whole = len(audio) - len(audio) % (2 * FRAME_SAMPLES)
        self._rest = audio[whole:]
        for at in range(0, whole, 2 * FRAME_SAMPLES):
            frame = Frame.from_samples(self._last + array("h", audio[at : at + 2 * FRAME_SAMPLES]))
            self._last = frame.samples[-2:]
            yield frame


@dataclass(frozen=True, slots=True)
class Tone:
    hz: float
    power: float
    """Mean square of a sample."""

    def agrees(self, other: Tone) -> bool:
        return abs(self.hz - other.hz) <= max(8.0, 0.015 * self.hz)

    def is_as_loud_as(self, other: Tone) -> bool:
        return self.power <= other.power * MAX_LEVEL_RATIO and other.power <= self.power * MAX_LEVEL_RATIO


@dataclass(slots=True)
class Run:
    tone: Tone
    """Tone of the first window."""
    windows: int = 1


@dataclass(slots=True)
class Candidate:
    """Run that is a beep if quiet follows."""

    power: float
    fading: int = 0
    quiet: int = 0

    def update(self, power: float) -> bool | None:
        """Add the next frame's power. Return True for a beep, False for none, None while undecided."""
        if power <= self.power * QUIET_DROP:
            self.quiet += 1
            return True if self.quiet == QUIET_FRAMES else None
        self.fading += 1
        return False if self.quiet or self.fading > MAX_FADE_FRAMES else None


class BeepDetector:
    """Beep detector for one channel's sound, from its first sample on."""

    def __init__(self) -> None:
        self.ended_run: Run | None = None
        """Run that the latest frame has ended, if it was long enough for a beep."""
        self._framer = Framer()
        self._frame = Frame.from_samples(array("h", bytes(2 * FRAME_SAMPLES + 4)))
        self._run: Run | None = None
        self._last: Run | None = None
        self._since_last = 0
        """Windows since the last run."""
        self._candidate: Candidate | None = None

    def feed(self, audio: bytes) -> bool:
        """Process more sound: 16 bit, 8 kHz, this machine's byte order, in pieces of any length.

        Return True once for each beep: 80 to 160 ms after its end, or after as much more sound as completes the frame.
        """
        beeps = [self.step(frame) for frame in self._framer.frames(audio)]
        return True in beeps

    def step(self, frame: Frame) -> bool:
        """Process the next frame. Return True for a beep."""
        before, self._frame = self._frame, frame
        tone = tone_of(before, self._frame) if self._frame.power >= MIN_TONE_POWER else None
        self.ended_run = ended = self._follow(tone)
        if ended and self._may_be_a_beep(ended):
            self._candidate = Candidate(ended.tone.power)
        if self._candidate is None:
            return False
        beep = self._candidate.update(self._frame.power)
        if beep is not None:
            self._candidate = None
        return beep is True

    def _follow(self, tone: Tone | None) -> Run | None:
        """Add a window's tone. Return the run that it has ended, if that was long enough."""
        run = self._run
        if run and tone and tone.agrees(run.tone) and tone.is_as_loud_as(run.tone):
            run.windows += 1
            return None
        self._run = Run(tone) if tone else None
        self._since_last += 1
        return run if run and run.windows >= MIN_RUN_WINDOWS else None

    def _may_be_a_beep(self, run: Run) -> bool:
        # Windows without a steady tone were counted one by one; the run itself as one.
        near = self._last if self._since_last <= MIN_TONE_GAP_FRAMES + 1 else None
        self._last, self._since_last = run, 0
        if near and not near.tone.agrees(run.tone):
            return False
        if near:
            # A lost packet cuts a tone in two; both together are as long as the whole tone.
            run.windows += near.windows
        return run.windows <= MAX_RUN_WINDOWS and not NETWORK_HZ[0] <= run.tone.hz <= NETWORK_HZ[1]


def tone_of(before: Frame, frame: Frame) -> Tone | None:
    """Return the tone of these 40 ms; None if there is none, or anything else besides it."""
    power = (before.power + frame.power) / 2
    hz = _estimate_hz(before.lag1 + frame.lag1, before.lag2 + frame.lag2)
    # Most speech ends here, before the slow part.
    if (
        abs(before.power - frame.power) > power / 2
        or abs(hz - _estimate_hz(frame.lag1, frame.lag2)) > FIRST_ESTIMATE_ERROR * hz
    ):
        return None
    # Twice, because the first frequency may be some Hz off: the phase shows by how many.
    for _ in range(2):
        if not LOWEST_HZ <= hz <= HIGHEST_HZ:
            return None
        early, late = _project(before.samples + frame.samples, hz)
        pure = 2.0 * abs(early + late) ** 2 >= MIN_TONE_SHARE * WINDOW_SAMPLES * WINDOW_SAMPLES * power
        hz += cmath.phase(late * early.conjugate()) / math.tau * SAMPLE_RATE_HZ / FRAME_SAMPLES
        if pure:
            return Tone(hz, power)
    return None


def _estimate_hz(lag1: float, lag2: float) -> float:
    """Return the loudest frequency in Hz, by Pisarenko's method, from autocorrelations that white noise doesn't
    change."""
    cosine = (lag2 + math.sqrt(lag2 * lag2 + 8.0 * lag1 * lag1)) / (4.0 * lag1) if lag1 else 0.0
    return math.acos(max(-1.0, min(1.0, cosine))) / math.tau * SAMPLE_RATE_HZ


def _project(window: array[int], hz: float) -> tuple[complex, complex]:
    """Return the window's components at that frequency, of its earlier half and of its later half."""
    cosines, sines = _sine_tables(2 * round(hz / 2))
    real, imaginary = list(map(mul, window, cosines)), list(map(mul, window, sines))
    return (
        complex(sum(real[:FRAME_SAMPLES]), -sum(imaginary[:FRAME_SAMPLES])),
        complex(sum(real[FRAME_SAMPLES:]), -sum(imaginary[FRAME_SAMPLES:])),
    )


@lru_cache(maxsize=128)
def _sine_tables(hz: int) -> tuple[Sequence[float], Sequence[float]]:
    turns = [math.tau * hz * sample / SAMPLE_RATE_HZ for sample in range(WINDOW_SAMPLES)]
    return tuple(map(math.cos, turns)), tuple(map(math.sin, turns))
