"""The tones that no URL has to give."""

from __future__ import annotations

import io
import math
import wave
from array import array

SILENCE_HZ = 0

TONES: dict[str, tuple[tuple[int, int], ...]] = {
    # "beep:1 is one tone, 700 Hz, 300 ms; beep:2 is two, 200 ms apart."
    "beep:1": ((700, 300),),
    "beep:2": ((700, 300), (SILENCE_HZ, 200), (700, 300)),
    # GetDigits' playBeep (decided): another pitch than the conference's, short, as voicemail's.
    "beep:digits": ((1000, 200),),
}
"""Name -> (Hz, ms) in order."""

AMPLITUDE = 0.25
"""Of full scale, -12 dB: as loud as speech, not louder."""
FADE_MS = 5
"""At both ends of a tone: cut off hard it clicks."""


def beep(name: str, rate: int) -> bytes:
    """A WAV file of 16 bit, mono, `rate` samples a second."""
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
    """`pcm`: little-endian 16 bit, mono."""
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(rate)
        out.writeframes(pcm)
    return file.getvalue()
