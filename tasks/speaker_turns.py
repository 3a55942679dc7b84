"""Speaker attribution: assigns each transcribed word to the member who was speaking at that time. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ari_conf.transcription.answers import Word

NEAR_MS = 1500
"""A word outside all speech intervals belongs to the member who spoke at most this long before or after it."""
PAUSE_MS = 2000
"""After this much silence a new turn begins, even if the speaker is the same."""


@dataclass(frozen=True, slots=True)
class SpeechInterval:
    member_id: int
    start_ms: int
    end_ms: int


def speaker_turns(
    words: Sequence[Word], talk: Sequence[SpeechInterval], numbers: Mapping[int, str]
) -> list[dict[str, object]]:
    """Return the speaker turns as in recording.schema.json. `numbers` maps member ids to phone numbers (from)."""
    found: list[dict[str, object]] = []
    said: list[Word] = []
    speaker: int | None = None

    def ended() -> None:
        if said:
            text = " ".join(word.text for word in said)
            whose = {"member_id": speaker, "from": numbers.get(speaker, "") if speaker is not None else ""}
            found.append({"start_ms": said[0].start_ms, "end_ms": said[-1].end_ms, **whose, "text": text})
        said.clear()

    for word in words:
        now = _speaker(word, talk, speaker)
        if said and (now != speaker or word.start_ms - said[-1].end_ms > PAUSE_MS):
            ended()
        speaker = now
        said.append(word)
    ended()
    return found


def _speaker(word: Word, talk: Sequence[SpeechInterval], before: int | None) -> int | None:
    """Return the member who spoke for most of the word, or None. In a tie, the previous speaker wins."""
    ranked = [(_overlap(word, one), one.member_id == before, -_distance(word, one), one.member_id) for one in talk]
    best = max(ranked, default=None)
    if best is None or (best[0] <= 0 and -best[2] > NEAR_MS):
        return None
    return best[3]


def _overlap(word: Word, one: SpeechInterval) -> int:
    return max(0, min(word.end_ms, one.end_ms) - max(word.start_ms, one.start_ms))


def _distance(word: Word, one: SpeechInterval) -> int:
    return max(0, one.start_ms - word.end_ms, word.start_ms - one.end_ms)
