"""What a server that transcribes has answered, made into words. Pure.

Servers leave fields out, name them otherwise, give times as text or in another unit, and hear words in music. Whatever
can be understood is; what can't raises Unreadable, never anything else.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

UNITS = (1.0, 1e3, 1e6, 1e9)
"""Of a second: what times may be told in."""
BEYOND = 1.5
"""Times that end so many times later than the sound are of a smaller unit."""
SURELY_NOTHING, PERHAPS_NOTHING = 0.9, 0.6
"""Whisper's no_speech_prob, from which a segment is no speech: in any case, and if its words are improbable, too."""
IMPROBABLE = -1.0
"""Whisper's avg_logprob, below which words are guessed."""
REPEATED = 2.4
"""Whisper's compression_ratio, above which words are one thing said again and again, as it does over music."""
MOST_WORDS = 20_000
"""Of some minutes of sound: ten times as many as anybody says."""
MOST_CHARACTERS = 200
"""Of a word."""
SENTENCE_ENDS = re.compile("(?<=[、。，．！？；：…])")
"""In scripts that write no spaces, where a text has no other places to be divided at."""


class Unreadable(Exception):
    """It is no transcription; the text says why."""


@dataclass(frozen=True, slots=True)
class Word:
    start_ms: int
    end_ms: int
    text: str


@dataclass(frozen=True, slots=True)
class _Said:
    text: str
    start: float | None
    end: float | None
    """In the server's unit; None: not told."""


def read(text: bytes, length_ms: int) -> list[Word]:
    """Of a body, for a sound of that length. Raises Unreadable."""
    try:
        answer = json.loads(text)
    except (ValueError, RecursionError):
        raise Unreadable("it is no JSON") from None
    return words_of(answer, length_ms)


def words_of(answer: object, length_ms: int) -> list[Word]:
    """Not every server tells of words: then those of a segment, or of all, are spread over its time. Raises
    Unreadable."""
    if not isinstance(answer, dict):
        raise Unreadable("it is no object")
    segments = [one for one in _list(answer.get("segments")) if isinstance(one, dict)]
    unit = _unit(answer, segments, length_ms)
    kept = [one for one in segments if not _is_noise(one)]
    silent = [_span(one, unit, length_ms) for one in segments if _is_noise(one)]
    said = _items(answer.get("words")) or [word for one in kept for word in _items(one.get("words"))]
    if said:
        words = _timed(said, unit, length_ms)
        return _bounded([one for one in words if not any(_is_within(one, span) for span in silent)])
    if segments:
        # A segment that tells no times lies between those around it.
        told = [_Said(_text(one.get("text")), _number(one.get("start")), _number(one.get("end"))) for one in segments]
        spans = _timed(told, unit, length_ms)
        pairs = zip(spans, segments, strict=True)
        found = [word for span, one in pairs if not _is_noise(one) for word in _spread(span)]
        if found or any(one.text for one in told):
            return _bounded(found)
    if not isinstance(answer.get("text"), str):
        raise Unreadable("it has neither text nor words" if "text" not in answer else "its text is no text")
    return _bounded(_spread(Word(0, length_ms, _text(answer["text"]))))


def reason(text: bytes) -> str:
    """What a server says of a request that it refuses; "" if that can't be seen."""
    try:
        told = json.loads(text)
    except (ValueError, RecursionError):
        return ""
    for name in ("error", "message", "detail"):
        if isinstance(told, dict) and name in told:
            told = told[name]
    return _text(told)[:MOST_CHARACTERS]


def _is_noise(segment: Mapping[str, Any]) -> bool:
    nothing, sure = _number(segment.get("no_speech_prob")), _number(segment.get("avg_logprob"))
    repeated = _number(segment.get("compression_ratio"))
    if repeated is not None and repeated > REPEATED:
        return True
    if nothing is None or nothing <= PERHAPS_NOTHING:
        return False
    return nothing >= SURELY_NOTHING or sure is None or sure < IMPROBABLE


def _items(found: object) -> list[_Said]:
    items = [one for one in _list(found) if isinstance(one, dict)]
    said = [
        _Said(_text(one.get("word", one.get("text"))), _number(one.get("start")), _number(one.get("end")))
        for one in items
    ]
    return [one for one in said if one.text]


def _unit(answer: Mapping[str, Any], segments: Sequence[Mapping[str, Any]], length_ms: int) -> float:
    """How many of the server's unit are a second."""
    told = [answer.get("words"), segments, *(one.get("words") for one in segments)]
    items = [one for part in told for one in _list(part) if isinstance(one, dict)]
    latest = max((time for one in items for name in ("start", "end") if (time := _number(one.get(name)))), default=0.0)
    return next((unit for unit in UNITS if latest / unit <= length_ms / 1000 * BEYOND + 1), UNITS[-1])


def _timed(said: Sequence[_Said], unit: float, length_ms: int) -> list[Word]:
    """Each within the sound; those that tell no time lie between their neighbours."""

    def ms(time: float | None) -> int | None:
        return None if time is None else min(length_ms, max(0, round(time / unit * 1000)))

    starts, ends = [ms(one.start) for one in said], [ms(one.end) for one in said]
    starts.append(length_ms)
    found: list[Word] = []
    at = 0
    for is_told, run in groupby(range(len(said)), lambda number: starts[number] is not None):
        numbers = list(run)
        if is_told:
            for number in numbers:
                start, end, following = starts[number] or 0, ends[number], starts[number + 1]
                if end is None:
                    end = start if following is None else following
                at = max(start, end)
                found.append(Word(start, at, said[number].text))
        else:
            last = ends[numbers[-1]]
            until = max(at, (starts[numbers[-1] + 1] or 0) if last is None else last)
            edges = [at + (until - at) * n // len(numbers) for n in range(len(numbers) + 1)]
            found += [Word(edges[n], edges[n + 1], said[number].text) for n, number in enumerate(numbers)]
            at = until
    return found


def _span(segment: Mapping[str, Any], unit: float, length_ms: int) -> tuple[float, float]:
    start, end = _number(segment.get("start")), _number(segment.get("end"))
    if start is None or end is None:
        return (1.0, 0.0)  # nothing is within
    return start / unit * 1000, min(end / unit * 1000, length_ms)


def _is_within(word: Word, span: tuple[float, float]) -> bool:
    return span[0] <= (word.start_ms + word.end_ms) / 2 <= span[1]


def _spread(whole: Word) -> list[Word]:
    words, length = _divided(whole.text), whole.end_ms - whole.start_ms
    edges = [whole.start_ms + length * n // max(1, len(words)) for n in range(len(words) + 1)]
    return [Word(first, last, text) for first, last, text in zip(edges, edges[1:], words, strict=False)]


def _divided(text: str) -> list[str]:
    """At its spaces. What is too long for a word has none, as in Chinese or Japanese: it is divided where it can be."""
    found: list[str] = []
    for word in text.split():
        parts = SENTENCE_ENDS.split(word) if len(word) > MOST_CHARACTERS else [word]
        found += [part[at : at + MOST_CHARACTERS] for part in parts for at in range(0, len(part), MOST_CHARACTERS)]
    return found


def _bounded(words: list[Word]) -> list[Word]:
    if len(words) > MOST_WORDS or any(len(word.text) > MOST_CHARACTERS for word in words):
        raise Unreadable("it has more words, or longer ones, than can be said")
    return words


def _list(found: object) -> list[Any]:
    return found if isinstance(found, list) else []


def _number(found: object) -> float | None:
    """Also if it is written as text."""
    if isinstance(found, bool) or not isinstance(found, int | float | str):
        return None
    try:
        number = float(found)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _text(found: object) -> str:
    """Without what can't be written as UTF-8, and with single spaces."""
    return " ".join(found.encode(errors="replace").decode().split()) if isinstance(found, str) else ""
