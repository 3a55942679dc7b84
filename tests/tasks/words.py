"""How well words were understood."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable

from demo.speech import Speech
from tasks.engines import RATE, Engine

MOST_MISHEARD = 0.3
"""Of the words of a sentence: no two renderings of a neural voice are the same, and now and then a word is taken for
another."""
NUMBERS = {"2": "two", "4": "four", "7": "seven", "8": "eight", "10": "ten"}


def plain(text: str) -> list[str]:
    """Its words, without case and punctuation; numbers as words."""
    return [NUMBERS.get(word, word) for word in re.findall(r"[a-z0-9']+", text.lower().replace("mr.", "mister"))]


def error_rate(said: Iterable[str], heard: Iterable[str]) -> float:
    """Word error rate: substitutions, deletions and insertions per word that was said."""
    said, heard = list(said), list(heard)
    row = list(range(len(heard) + 1))
    for at, word in enumerate(said, 1):
        before, row[0] = row[0], at
        for to, other in enumerate(heard, 1):
            before, row[to] = row[to], min(row[to] + 1, row[to - 1] + 1, before + (word != other))
    return row[-1] / max(1, len(said))


def samples(speech: Speech) -> bytes:
    """As an engine takes them."""
    command = ["ffmpeg", "-v", "error", "-i", str(speech.path), "-f", "s16le", "-ar", str(RATE), "-"]
    return subprocess.run(command, capture_output=True, check=True).stdout


def clean_rate(speech: Speech, using: Engine) -> float:
    """The engine's own word error rate: of the file itself, before any telephone."""
    return error_rate(plain(speech.text), plain(" ".join(word.text for word in using.transcribe(samples(speech)))))
