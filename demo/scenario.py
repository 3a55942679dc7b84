"""The demo's callers, their words and their documents."""

from __future__ import annotations

from dataclasses import dataclass

from demo import audio_analysis
from demo.audio_analysis import Samples
from demo.phone import Phone
from demo.speech import speech_files

DIALLED = "14155550100"

GUEST = """<Response>
  <Conference startConferenceOnEnter="false" callbackUrl="APPLICATION/events">demo</Conference>
  <Speak>The conference is over. Goodbye.</Speak>
</Response>"""

HOST = """<Response>
  <Conference endConferenceOnExit="true" callbackUrl="APPLICATION/events">demo</Conference>
</Response>"""


@dataclass
class Caller:
    name: str
    number: str
    document: str
    speech: Samples
    """Recorded speech, int16 at 8 kHz."""
    style: str
    phone: Phone
    in_since_ms: float = 0.0
    """Epoch ms from which the caller's received audio counts."""


def make_callers(phones: list[Phone]) -> list[Caller]:
    """Return two guests, who wait for the host, and the host, each with a different voice and different words."""
    bob, cid, ann = phones
    first, second, third = (audio_analysis.wav(speech.path) for speech in speech_files())
    return [
        Caller("Bob", "14155550102", GUEST, first, "green", bob),
        Caller("Cid", "14155550103", GUEST, second, "magenta", cid),
        Caller("Ann", "14155550101", HOST, third, "cyan", ann),
    ]
