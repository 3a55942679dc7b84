"""Built-in tones, which need no URL."""

from __future__ import annotations

import io
import math
import wave
from array import array

from ari_conf.core.placing import RINGBACK

SILENCE_HZ = 0

TONES: dict[str, tuple[tuple[int, int], ...]] = {
    # Spec: "beep:1 is one tone, 700 Hz, 300 ms; beep:2 is two, 200 ms apart."
    "beep:1": ((700, 300),),
    "beep:2": ((700, 300), (SILENCE_HZ, 200), (700, 300)),
    # GetDigits' playBeep (decided): short, as a voicemail's, and at another pitch than a conference's.
    "beep:digits": ((1000, 200),),
    # One ring as those in a conference hear it while somebody is called (decided): ITU-T E.180's frequency, and with
    # the pause between two repetitions its usual rhythm, 1 s in 5 s.
    RINGBACK: ((425, 1000), (SILENCE_HZ, 3250)),
    # Record's playBeep (decided): a voicemail's.
    "beep:record": ((1000, 400),),
}
"""Name -> (Hz, ms) in order."""

AMPLITUDE = 0.25
"""Part of full scale, -12 dB: as loud as speech, not louder."""
FADE_MS = 5
"""Milliseconds at both ends of a tone, which would click without a fade."""


def beep(name: str, rate: int) -> bytes:
    """Return the tone as a WAV file of 16 bit, mono, with `rate` samples per second."""
    samples = array("h")
    for hertz, ms in TONES[name]:
        samples.extend(_tone(hertz, rate * ms // 1000, rate))
    return wav(samples.tobytes(), rate)


def _tone(hertz: int, count: int, rate: int) -> list[int]:
    fade = rate * FADE_MS // 1000
    peak = 32767 * AMPLITUDE
    return [
        round(peak * min(1.0, i / fade, (count - 1 - i) / fade) * math.sin(2 * math.pi * hertz * i / rate))
        for i in range(count)
    ]


def wav(pcm: bytes, rate: int) -> bytes:
    """Return `pcm`, which is little-endian 16 bit, mono, as a WAV file."""
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(rate)
        out.writeframes(pcm)
    return file.getvalue()
