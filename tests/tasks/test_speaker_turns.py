"""Speaker turns: assignment of each word to a speaker."""

from __future__ import annotations

from ari_conf.transcription.answers import Word
from tasks.speaker_turns import SpeechInterval, speaker_turns

NUMBERS = {1: "15551", 2: "15552"}


def words(text: str, start_ms: int, each_ms: int = 300) -> list[Word]:
    return [Word(start_ms + n * each_ms, start_ms + (n + 1) * each_ms, word) for n, word in enumerate(text.split())]


def told(said: list[Word], talk: list[SpeechInterval]) -> list[tuple[object, object]]:
    return [(turn["from"], turn["text"]) for turn in speaker_turns(said, talk, NUMBERS)]


def test_each_word_is_his_who_spoke_for_most_of_it() -> None:
    talk = [SpeechInterval(1, 0, 1000), SpeechInterval(2, 1100, 2000)]
    said = words("good morning dear all", 100)  # "all" from 1000 to 1300
    assert told(said, talk) == [("15551", "good morning dear"), ("15552", "all")]
    assert told([*words("one two", 0), *words("three", 1300)], talk) == [("15551", "one two"), ("15552", "three")]


def test_of_two_who_both_speak_the_one_who_had_spoken_goes_on() -> None:
    talk = [SpeechInterval(1, 0, 3000), SpeechInterval(2, 600, 3000)]
    assert told(words("one two three four", 0), talk) == [("15551", "one two three four")]
    assert (
        told([*words("two", 0), *words("three", 2600)], [SpeechInterval(2, 0, 3000), SpeechInterval(1, 400, 3000)])[0][
            0
        ]
        == "15552"
    )


def test_a_word_just_beside_his_talking_is_still_his() -> None:
    talk = [SpeechInterval(1, 0, 1000), SpeechInterval(2, 5000, 6000)]
    assert told(words("late", 1900), talk) == [("15551", "late")]
    assert told(words("early", 4500), talk) == [("15552", "early")]
    assert told(words("nobody", 2800), talk) == [("", "nobody")]
    assert speaker_turns(words("nobody", 2800), [], NUMBERS)[0]["member_id"] is None


def test_after_a_pause_it_is_a_new_turn() -> None:
    talk = [SpeechInterval(1, 0, 9000)]
    found = speaker_turns([*words("one two", 0), *words("three", 4000)], talk, NUMBERS)
    assert [(turn["start_ms"], turn["end_ms"], turn["text"]) for turn in found] == [
        (0, 600, "one two"),
        (4000, 4300, "three"),
    ]
    assert speaker_turns([], talk, NUMBERS) == []
