"""Parser of transcription servers' responses: turns them into words. Pure.

Servers omit fields, name them differently, send times as text or in another unit, and find words in music. The parser
accepts whatever can be understood, and raises Unreadable, and nothing else, for the rest.
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
"""Units per second in which servers may express times."""
BEYOND = 1.5
"""Times that end later than this multiple of the audio's length are in a smaller unit."""
SURELY_NOTHING, PERHAPS_NOTHING = 0.9, 0.6
"""Whisper's no_speech_prob from which a segment is not speech: in any case, and if its words are improbable, too."""
IMPROBABLE = -1.0
"""Whisper's avg_logprob below which the words are guesses."""
REPEATED = 2.4
"""Whisper's compression_ratio above which the words are one phrase repeated many times, as in transcripts of music."""
MAX_WORDS = 20_000
"""The limit for one chunk of some minutes: ten times as many words as anyone says in that time."""
MAX_WORD_LENGTH = 200
"""The maximum length of a word."""
SENTENCE_ENDS = re.compile("(?<=[、。，．！？；：…])")
"""Places to split text in scripts that write no spaces."""


class Unreadable(Exception):
    """Not a transcription; the text is the reason."""


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
    """The end in the server's unit, or None if unknown."""


def read(text: bytes, length_ms: int) -> list[Word]:
    """Return the words of a response body for audio of `length_ms`. Raises Unreadable."""
    try:
        answer = json.loads(text)
    except (ValueError, RecursionError):
        raise Unreadable("it is not JSON") from None
    return words_of(answer, length_ms)


def words_of(answer: object, length_ms: int) -> list[Word]:
    """Return the words of a decoded response. Raises Unreadable.

    Not every server returns words: then the text of each segment, or the whole text, is spread over its time.
    """
    if not isinstance(answer, dict):
        raise Unreadable("it is not a JSON object")
    segments = [one for one in _list(answer.get("segments")) if isinstance(one, dict)]
    unit = _unit(answer, segments, length_ms)
    kept = [one for one in segments if not _is_noise(one)]
    silent = [_span(one, unit, length_ms) for one in segments if _is_noise(one)]
    said = _items(answer.get("words")) or [word for one in kept for word in _items(one.get("words"))]
    if said:
        words = _timed(said, unit, length_ms)
        return _bounded([one for one in words if not any(_is_within(one, span) for span in silent)])
    if segments:
        # A segment without times lies between its neighbors.
        timed = [_Said(_text(one.get("text")), _number(one.get("start")), _number(one.get("end"))) for one in segments]
        spans = _timed(timed, unit, length_ms)
        pairs = zip(spans, segments, strict=True)
        found = [word for span, one in pairs if not _is_noise(one) for word in _spread(span)]
        if found or any(one.text for one in timed):
            return _bounded(found)
    if not isinstance(answer.get("text"), str):
        raise Unreadable("it has neither text nor words" if "text" not in answer else "its text is not a string")
    return _bounded(_spread(Word(0, length_ms, _text(answer["text"]))))


def reason(text: bytes) -> str:
    """Return the server's reason for a refusal, or "" if the body does not contain one."""
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        return ""
    for name in ("error", "message", "detail"):
        if isinstance(body, dict) and name in body:
            body = body[name]
    return _text(body)[:MAX_WORD_LENGTH]


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
    """Return the server's units per second."""
    parts = [answer.get("words"), segments, *(one.get("words") for one in segments)]
    items = [one for part in parts for one in _list(part) if isinstance(one, dict)]
    latest = max((time for one in items for name in ("start", "end") if (time := _number(one.get(name)))), default=0.0)
    return next((unit for unit in UNITS if latest / unit <= length_ms / 1000 * BEYOND + 1), UNITS[-1])


def _timed(said: Sequence[_Said], unit: float, length_ms: int) -> list[Word]:
    """Return the words with times inside the audio; those without times lie between their neighbors."""

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
        return (1.0, 0.0)  # an empty span: no word is within it
    return start / unit * 1000, min(end / unit * 1000, length_ms)


def _is_within(word: Word, span: tuple[float, float]) -> bool:
    return span[0] <= (word.start_ms + word.end_ms) / 2 <= span[1]


def _spread(whole: Word) -> list[Word]:
    words, length = _divided(whole.text), whole.end_ms - whole.start_ms
    edges = [whole.start_ms + length * n // max(1, len(words)) for n in range(len(words) + 1)]
    return [Word(first, last, text) for first, last, text in zip(edges, edges[1:], words, strict=False)]


def _divided(text: str) -> list[str]:
    """Split a text at its spaces.

    A part that is too long for a word has no spaces, as in Chinese or Japanese: it is split after punctuation, and
    where that is not enough, by length.
    """
    found: list[str] = []
    for word in text.split():
        parts = SENTENCE_ENDS.split(word) if len(word) > MAX_WORD_LENGTH else [word]
        found += [part[at : at + MAX_WORD_LENGTH] for part in parts for at in range(0, len(part), MAX_WORD_LENGTH)]
    return found


def _bounded(words: list[Word]) -> list[Word]:
    if len(words) > MAX_WORDS or any(len(word.text) > MAX_WORD_LENGTH for word in words):
        raise Unreadable(f"it has more than {MAX_WORDS} words, or words longer than {MAX_WORD_LENGTH} characters")
    return words


def _list(found: object) -> list[Any]:
    return found if isinstance(found, list) else []


def _number(found: object) -> float | None:
    """Return the number if it is finite, also one that is written as text; None otherwise."""
    if isinstance(found, bool) or not isinstance(found, int | float | str):
        return None
    try:
        number = float(found)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _text(found: object) -> str:
    """Return the text with single spaces, and with "?" for what UTF-8 cannot encode; "" for anything but text."""
    return " ".join(found.encode(errors="replace").decode().split()) if isinstance(found, str) else ""
