"""Word error rates of recognized speech."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable

from ari_conf.transcription.engines import RATE, TranscriptionEngine
from demo.speech import Speech

MOST_MISHEARD = 0.3
"""The maximum share of misheard words in a sentence. No two renderings of a neural voice are the same, and now and then
a word is recognized as another."""
NUMBERS = {"2": "two", "4": "four", "7": "seven", "8": "eight", "10": "ten"}


def plain(text: str) -> list[str]:
    """Return the words of a text, without case and punctuation; numbers as words."""
    return [NUMBERS.get(word, word) for word in re.findall(r"[a-z0-9']+", text.lower().replace("mr.", "mister"))]


def error_rate(said: Iterable[str], heard: Iterable[str]) -> float:
    """Return the word error rate: substitutions, deletions and insertions per spoken word."""
    said, heard = list(said), list(heard)
    row = list(range(len(heard) + 1))
    for at, word in enumerate(said, 1):
        before, row[0] = row[0], at
        for to, other in enumerate(heard, 1):
            before, row[to] = row[to], min(row[to] + 1, row[to - 1] + 1, before + (word != other))
    return row[-1] / max(1, len(said))


def samples(speech: Speech) -> bytes:
    """Return the samples in the form that an engine takes."""
    command = ["ffmpeg", "-v", "error", "-i", str(speech.path), "-f", "s16le", "-ar", str(RATE), "-"]
    return subprocess.run(command, capture_output=True, check=True).stdout


def clean_rate(speech: Speech, using: TranscriptionEngine) -> float:
    """Return the engine's own word error rate: for the file itself, without any telephone."""
    return error_rate(plain(speech.text), plain(" ".join(word.text for word in using.transcribe(samples(speech)))))
