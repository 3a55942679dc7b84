"""Recorded speech, 13 to 17 s each, with its text. LICENCE has the sources and licenses."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple


class Speech(NamedTuple):
    name: str
    path: Path
    text: str


_HERE = Path(__file__).parent
_TEXTS = {
    "prompts": (
        "Goodbye. Thank you for trying out the Asterisk Open Source PBX. That feature is not available on this line. "
        "All circuits are busy now. Your call cannot be completed as dialed. Please check the number and dial again."
    ),
    "austen": (
        "And Mr. John Dashwood had then leisure to consider how much there might be prudently in his power to do for "
        "them. He was not an ill-disposed young man, unless to be rather cold-hearted and rather selfish is to be "
        "ill-disposed."
    ),
    "cards": (
        "Go somewhere and do something. Go forward ten meters. Eight of spades, four of clubs, seven of hearts. "
        "Seven of clubs. Ten of clubs."
    ),
}


def speech_files() -> list[Speech]:
    """Return three recordings, mono WAV at 8 kHz, 16 bit, with different voices and texts."""
    return [Speech(name, _HERE / f"{name}.wav", text) for name, text in _TEXTS.items()]
