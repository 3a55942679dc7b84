"""Who said which word: what was heard, laid over what is known of who spoke when. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tasks.answers import Word

NEAR_MS = 1500
"""A word that falls into nobody's talking is his who spoke that shortly before or after."""
PAUSE_MS = 2000
"""After such a silence it is a new turn, although the same one speaks."""


@dataclass(frozen=True, slots=True)
class Talk:
    member_id: int
    start_ms: int
    end_ms: int


def turns(words: Sequence[Word], talk: Sequence[Talk], numbers: Mapping[int, str]) -> list[dict[str, object]]:
    """`numbers`: member id -> from. As in recording.schema.json."""
    found: list[dict[str, object]] = []
    said: list[Word] = []
    speaker: int | None = None

    def ended() -> None:
        if said:
            text = " ".join(word.text for word in said)
            whose = {"member_id": speaker, "from": numbers.get(speaker or 0, "")}
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


def _speaker(word: Word, talk: Sequence[Talk], before: int | None) -> int | None:
    """Who spoke for most of the word; of two who did for all of it, the one who had spoken before."""
    ranked = [(_overlap(word, one), one.member_id == before, -_distance(word, one), one.member_id) for one in talk]
    best = max(ranked, default=None)
    if best is None or (best[0] <= 0 and -best[2] > NEAR_MS):
        return None
    return best[3]


def _overlap(word: Word, one: Talk) -> int:
    return max(0, min(word.end_ms, one.end_ms) - max(word.start_ms, one.start_ms))


def _distance(word: Word, one: Talk) -> int:
    return max(0, one.start_ms - word.end_ms, word.start_ms - one.end_ms)
