"""Machine ear: hears in a channel's sound what tells an answering machine from a person: phrases, beeps, and the three
tones before a network's announcement. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ari_conf.ari.beep_detector import BeepDetector, Framer, Run
from ari_conf.ari.speech_detector import SpeechDetector
from ari_conf.core import events as ev

Heard = ev.ListeningStarted | ev.PhraseStarted | ev.PhraseEnded | ev.ToneHeard

ANNOUNCEMENT_HZ = ((900.0, 1000.0), (1350.0, 1450.0), (1750.0, 1850.0))
"""Lowest and highest frequencies, in Hz, of the three tones of a third of a second each before an announcement such as
"is not in service" (special information tone, ITU-T E.180)."""
MIN_ANNOUNCEMENT_WINDOWS = 8
"""Fewest windows of one of these tones."""
MAX_TONE_GAP_FRAMES = 25
"""Most frames from the end of one of these tones to the end of the next."""


@dataclass(slots=True)
class AnnouncementTones:
    """Follows the three tones: two of them in sequence are enough."""

    _latest: int | None = None
    """Index of the latest tone."""
    _frames_since: int = 0

    def step(self, run: Run | None) -> bool:
        """Process a frame, with the tone that it has ended. Return True if that is the next of the three."""
        self._frames_since += 1
        if run is None or run.windows < MIN_ANNOUNCEMENT_WINDOWS:
            return False
        bands = [index for index, (low, high) in enumerate(ANNOUNCEMENT_HZ) if low <= run.tone.hz <= high]
        found = bands[0] if bands else None
        follows = found is not None and self._latest == found - 1 and self._frames_since <= MAX_TONE_GAP_FRAMES
        self._latest, self._frames_since = found, 0
        return follows


@dataclass(slots=True)
class MachineEar:
    """Ear for one channel, from the first sample on."""

    channel_id: str
    _framer: Framer = field(default_factory=Framer)
    _beeps: BeepDetector = field(default_factory=BeepDetector)
    _tones: AnnouncementTones = field(default_factory=AnnouncementTones)
    _speech: SpeechDetector = field(default_factory=SpeechDetector)
    _started: bool = False

    def hear(self, audio: bytes) -> list[Heard]:
        """Process more sound: 16 bit, 8 kHz, this machine's byte order, in pieces of any length."""
        heard: list[Heard] = []
        if not self._started:
            self._started = True
            heard.append(ev.ListeningStarted(self.channel_id))
        for frame in self._framer.frames(audio):
            change = self._speech.step(frame)
            if change is not None:
                ago_ms = self._speech.now_ms - change.at_ms
                if change.ended:
                    heard.append(ev.PhraseEnded(self.channel_id, ago_ms, change.is_speech))
                else:
                    heard.append(ev.PhraseStarted(self.channel_id, ago_ms))
            beep = self._beeps.step(frame)
            if self._tones.step(self._beeps.ended_run) or beep:
                heard.append(ev.ToneHeard(self.channel_id))
        return heard
