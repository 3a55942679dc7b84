"""Speech detector: distinguishes speech from silence, steady noise and tones, on any level of background noise. Pure.

Every 20 ms, the detector computes the level of the latest 60 ms and compares it with the level of the background, which
it follows. Speech rises and falls with each syllable; what stays level for longer is background, and also what a tone
of the telephone network looks like. A phrase is speech without a pause of `PAUSE_MS`.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from itertools import islice

from ari_conf.ari.beep_detector import FRAME_SAMPLES, Frame

FRAME_MS = 20
PAUSE_MS = 160
"""Milliseconds below the threshold that end a phrase; those within a word are shorter."""
SMOOTH_FRAMES = 3
"""Frames that a level is the mean of."""
LOWEST_DB = -66.0
"""Level, in dBFS, below which all is silence; 0 is the largest sine."""
QUIETEST_SPEECH_DB = -47.0
"""Lowest level of speech, in dBFS. A telephone's speech is between -35 and -10."""
START_ABOVE_DB, CONTINUE_ABOVE_DB = 9.0, 6.0
"""Levels above the background from which speech begins, and until which it continues."""
BELOW_PEAK_DB, PEAK_FALL_DB = 19.0, 0.03
"""Level below the loudest speech so far at which there is none: that is the room, an echo, or others who talk. The
loudest speech is forgotten by so many dB with each frame."""
JUMP_DB, ONSET_FRAMES = 10.0, 8
"""Level above the phrase so far from which that was background, and speech begins only now; and frames in which speech
rises to its level."""
START_FRAMES = 3
"""Consecutive frames above the threshold that begin a phrase."""
STEADY = ((20, 5.0), (50, 9.0))
"""Frames, and dB within which they stay, of background. No syllable and no word stays so long."""
LOUD_STEADY_FRAMES, LOUD_STEADY_DB = 30, 10.0
"""Frames of the same at the level of speech, which is that of the loudest and so many dB below: that is a tone."""
BACKGROUND_FRAMES = 75
"""Frames of which the quietest is the background's level at least."""
BACKGROUND_RISE, BACKGROUND_FALL = 0.02, 0.3
"""Shares by which the background follows each frame without speech, if it is louder or quieter."""
MIN_PHRASE_MS, MIN_VOICED_FRAMES = 100, 3
"""Shortest phrase, and fewest frames of a voice in it. Clicks are shorter; a breath has no voice."""
VOICED_LAG1 = 0.45
"""Autocorrelation at one sample from which a frame counts as voiced; that of hiss is about zero."""


@dataclass(frozen=True, slots=True)
class Change:
    """Start or end of a phrase, reported once it is certain."""

    at_ms: int
    """Time of it, in ms since the first sample."""
    ended: bool = False
    is_speech: bool = True
    """False: what began was noise, a tone or a click, not speech."""


@dataclass(slots=True)
class _Current:
    """The phrase that is being spoken."""

    started_frame: int
    peak: float
    settled_peak: float = LOWEST_DB
    """Peak until ONSET_FRAMES ago."""
    voiced: int = 0
    loud_frame: int = 0
    """Last frame above the threshold."""
    announced: bool = False


@dataclass(slots=True)
class SpeechDetector:
    _frame: int = 0
    """Frames so far."""
    _background: float = LOWEST_DB
    _loudest: float = LOWEST_DB
    """Level of the loudest speech so far."""
    _raw: deque[float] = field(default_factory=lambda: deque(maxlen=SMOOTH_FRAMES))
    _levels: deque[float] = field(default_factory=lambda: deque(maxlen=BACKGROUND_FRAMES))
    _above: int = 0
    """Consecutive frames above the threshold while there is no phrase."""
    _current: _Current | None = None

    @property
    def now_ms(self) -> int:
        return self._frame * FRAME_MS

    def step(self, frame: Frame) -> Change | None:
        """Process the next 20 ms."""
        self._frame += 1
        self._raw.append(frame.power)
        level = max(LOWEST_DB, _decibels(sum(self._raw) / len(self._raw)))
        self._levels.append(level)
        voiced = frame.power > 0 and frame.lag1 >= VOICED_LAG1 * FRAME_SAMPLES * frame.power
        self._loudest -= PEAK_FALL_DB
        if steady := self._steady_frames(level):
            self._background = level
            return self._end(self._frame - steady, level)
        if len(self._levels) == BACKGROUND_FRAMES:
            self._background = max(self._background, min(self._levels))
        return self._speak(level, voiced) if self._current else self._wait(level, voiced)

    def _steady_frames(self, level: float) -> int:
        """Return for how many frames the level has been steady, if it has been for long enough; otherwise 0."""
        is_loud = level > self._loudest - LOUD_STEADY_DB
        for frames, range_db in STEADY:
            frames = max(frames, LOUD_STEADY_FRAMES) if is_loud else frames
            latest = list(islice(reversed(self._levels), frames))
            if len(latest) == frames and min(latest) > LOWEST_DB and max(latest) - min(latest) <= range_db:
                return frames
        return 0

    def _wait(self, level: float, voiced: bool) -> Change | None:
        if level < max(self._background + START_ABOVE_DB, QUIETEST_SPEECH_DB, self._loudest - BELOW_PEAK_DB):
            share = BACKGROUND_RISE if level > self._background else BACKGROUND_FALL
            self._background += share * (level - self._background)
            self._above = 0
            return None
        self._above += 1
        if self._above < START_FRAMES:
            return None
        self._current = _Current(self._frame - self._above, level, voiced=int(voiced), loud_frame=self._frame)
        self._above = 0
        return None

    def _speak(self, level: float, voiced: bool) -> Change | None:
        current = self._current
        assert current is not None
        self._background = min(self._background, level)
        if self._frame - current.started_frame > ONSET_FRAMES:
            current.settled_peak = max(current.settled_peak, self._levels[-ONSET_FRAMES - 1])
            if level > current.settled_peak + JUMP_DB and current.settled_peak > LOWEST_DB:
                return self._restart(level, voiced)
        current.peak = max(current.peak, level)
        current.voiced += voiced
        self._loudest = max(self._loudest, level)
        threshold = max(self._background + CONTINUE_ABOVE_DB, QUIETEST_SPEECH_DB, current.peak - BELOW_PEAK_DB)
        if level >= threshold:
            current.loud_frame = self._frame
        elif (self._frame - current.loud_frame) * FRAME_MS >= PAUSE_MS:
            return self._end(current.loud_frame)
        if not current.announced and self._is_word(current):
            current.announced = True
            return Change(current.started_frame * FRAME_MS)
        return None

    def _restart(self, level: float, voiced: bool) -> Change | None:
        """Begin another phrase, because the present one was background."""
        current = self._current
        assert current is not None
        started_frame = current.started_frame
        self._background = max(self._background, current.settled_peak - START_ABOVE_DB)
        self._current = _Current(self._frame - ONSET_FRAMES, level, voiced=int(voiced), loud_frame=self._frame)
        return Change(started_frame * FRAME_MS, True, is_speech=False) if current.announced else None

    def _is_word(self, current: _Current) -> bool:
        lasts_ms = (current.loud_frame - current.started_frame) * FRAME_MS
        return lasts_ms >= MIN_PHRASE_MS and current.voiced >= MIN_VOICED_FRAMES

    def _end(self, frame: int, steady: float = LOWEST_DB) -> Change | None:
        """End the phrase at that frame. Nothing is said of one that had not been reported. `steady`: level at which the
        sound has stayed since."""
        current, self._current = self._current, None
        self._above = 0
        if current is None or not current.announced:
            return None
        lasts_ms = (frame - current.started_frame) * FRAME_MS
        is_speech = lasts_ms >= MIN_PHRASE_MS and steady <= current.peak - LOUD_STEADY_DB
        return Change(max(frame, current.started_frame) * FRAME_MS, True, is_speech)


def _decibels(power: float) -> float:
    """Return a mean square in dBFS, where 0 is the largest sine."""
    return 10.0 * math.log10(power / (32767.0**2 / 2) + 1e-12)
