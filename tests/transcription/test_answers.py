"""Arbitrary responses of a transcription server: they yield words within the sound, or a sentence with the reason."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ari_conf.transcription.answers import MAX_WORD_LENGTH, MAX_WORDS, Unreadable, Word, read, reason, words_of

LENGTH_MS = 3000


def word(text: str = "seven", start: Any = 1.0, end: Any = 1.5, **more: Any) -> dict[str, Any]:
    return {"word": text, "start": start, "end": end, **more}


def without(found: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in found.items() if name not in names}


SEVEN = [Word(1000, 1500, "seven")]
HELLO = [Word(0, 1500, "hello"), Word(1500, 3000, "there")]


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        ({"words": [word()]}, SEVEN),
        ({"words": [without(word(), "word") | {"text": " seven "}]}, SEVEN),
        ({"words": [word(start="1.0", end="1.5")]}, SEVEN),
        ({"words": [word(start=1000, end=1500)]}, SEVEN),
        ({"words": [word(start=1_000_000, end=1_500_000)]}, SEVEN),
        ({"words": [word(start=1_000_000_000, end=1_500_000_000)]}, SEVEN),
        ({"words": [word(start=-1, end=-0.5)]}, [Word(0, 0, "seven")]),
        ({"words": [word(start=2.9, end=3.4)]}, [Word(2900, 3000, "seven")]),
        ({"words": [word(start=2, end=1)]}, [Word(2000, 2000, "seven")]),
        ({"words": [word(start=None, end=None)]}, [Word(0, 3000, "seven")]),
        ({"words": [word(start=float("nan"), end=10**400)]}, [Word(0, 3000, "seven")]),
        ({"words": [word(start=True, end=[1])]}, [Word(0, 3000, "seven")]),
        ({"words": [without(word(), "end")]}, [Word(1000, 3000, "seven")]),
        (
            {"words": [word("room"), {"word": "7"}, word("open", 2.0, 2.4)]},
            [Word(1000, 1500, "room"), Word(1500, 2000, "7"), Word(2000, 2400, "open")],
        ),
        (
            {"words": [{"word": "a"}, {"word": "b"}, word("c", 2.0, 2.5), {"word": "d"}]},
            [Word(0, 1000, "a"), Word(1000, 2000, "b"), Word(2000, 2500, "c"), Word(2500, 3000, "d")],
        ),
        ({"words": [word(""), word(None), word(5), "seven", None, word()]}, SEVEN),  # type: ignore[arg-type]
        ({"words": None, "text": "hello there"}, HELLO),
        ({"words": {"0": word()}, "text": "hello there"}, HELLO),
        ({"words": [], "segments": [], "text": "hello  there"}, HELLO),
        ({"text": "hello there"}, HELLO),
        ({"text": ""}, []),
        ({"text": "\ud800hi\u0000"}, [Word(0, 3000, "?hi\u0000")]),
        ({"segments": [{"text": "hello there"}], "text": "hello there"}, HELLO),
        ({"segments": [{"text": "hello there", "start": None, "end": None}]}, HELLO),
        ({"segments": [{"start": 0, "end": 1}], "text": "hello there"}, HELLO),
        (
            {"segments": [{"text": " one two", "start": 1.0, "end": 2.0}]},
            [Word(1000, 1500, "one"), Word(1500, 2000, "two")],
        ),
        (
            {"segments": [{"text": "one", "start": 0, "end": 1000}, {"text": "two", "start": 1000, "end": 2000}]},
            [Word(0, 1000, "one"), Word(1000, 2000, "two")],
        ),
        ({"segments": [{"text": "seven", "start": 0, "end": 2, "words": [word()]}], "text": "seven"}, SEVEN),
        ({"segments": "none", "words": 3, "text": "hello there"}, HELLO),
    ],
)
def test_valid_answer_is_parsed(answer: object, found: list[Word]) -> None:
    assert words_of(answer, LENGTH_MS) == found


@pytest.mark.parametrize(
    "answer",
    [
        None,
        [],
        [{"text": "hello"}],
        "hello",
        5,
        {},
        {"text": None},
        {"text": ["hello"]},
        {"segments": [{"start": 0, "end": 1}]},
        {"words": [word("x" * 1000)]},
        {"text": "x " * (MAX_WORDS + 1)},
    ],
    ids=str,
)
def test_invalid_answer_is_an_error(answer: object) -> None:
    with pytest.raises(Unreadable, match=r"^it"):
        words_of(answer, LENGTH_MS)


@pytest.mark.parametrize("text", [b"", b"<html>502</html>", b"\xff\xfe", b"[" * 100_000, b'{"text": "a'])
def test_a_body_that_is_no_json_is_said(text: bytes) -> None:
    with pytest.raises(Unreadable, match="not JSON"):
        read(text, LENGTH_MS)


@pytest.mark.parametrize("name", ["text", "segments"])
def test_a_script_without_spaces_is_divided_where_it_can_be(name: str) -> None:
    sentence, endless = "今天我们开会。" * 30, "会" * (2 * MAX_WORD_LENGTH + 1)
    for text, count in ((sentence, 30), (endless, 3), (f"seven {endless}", 4)):
        answer = {"text": text} if name == "text" else {"segments": [{"text": text, "start": 0, "end": 3}]}
        found = words_of(answer, LENGTH_MS)
        assert len(found) == count
        assert "".join(one.text for one in found) == text.replace(" ", "")
        assert (found[0].start_ms, found[-1].end_ms) == (0, LENGTH_MS)
    assert words_of({"text": "会議は七時。駅で。"}, LENGTH_MS) == [Word(0, LENGTH_MS, "会議は七時。駅で。")]


# Music and noise.


def segment(text: str, start: float = 0, **more: float) -> dict[str, Any]:
    return {"text": text, "start": start, "end": start + 1, "no_speech_prob": 0.1, "avg_logprob": -0.3, **more}


NOISE = [
    {"no_speech_prob": 0.97},
    {"no_speech_prob": 0.97, "avg_logprob": -0.1},
    {"no_speech_prob": 0.7, "avg_logprob": -1.2},
    {"compression_ratio": 3.1},
]


@pytest.mark.parametrize("how", NOISE, ids=str)
def test_no_words_are_heard_in_noise(how: dict[str, float]) -> None:
    noise = segment("Thanks for watching!", 0, **how)
    assert words_of({"segments": [noise], "text": "Thanks for watching!"}, LENGTH_MS) == []
    answer = {"segments": [noise, segment("seven", 1)], "text": "Thanks for watching! seven"}
    assert words_of(answer, LENGTH_MS) == [Word(1000, 2000, "seven")]
    words = [word("Thanks", 0.1, 0.4), word("for", 0.4, 0.6), word()]
    assert words_of({"words": words, **answer}, LENGTH_MS) == SEVEN
    assert words_of({"words": words[:2], **answer}, LENGTH_MS) == []


@pytest.mark.parametrize("how", [{}, {"no_speech_prob": 0.7}, {"avg_logprob": -1.5}, {"compression_ratio": 2.0}])
def test_speech_that_is_hard_to_understand_is_kept(how: dict[str, float]) -> None:
    assert words_of({"segments": [segment("seven", 1, **how)]}, LENGTH_MS) == [Word(1000, 2000, "seven")]


# Arbitrary data.

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["text", "word", "words", "segments", "start", "end", "no_speech_prob", "avg_logprob"]),
            inner,
        )
    ),
    max_leaves=30,
)


@given(ANYTHING, st.integers(0, 10**6))
def test_whatever_is_answered_it_is_words_within_the_sound_or_unreadable(answer: object, length_ms: int) -> None:
    try:
        found = read(json.dumps(answer).encode(), length_ms)
    except Unreadable:
        return
    assert all(0 <= one.start_ms <= one.end_ms <= length_ms for one in found)
    for one in found:
        one.text.encode()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b'{"error": {"message": "Invalid  model", "type": "x"}}', "Invalid model"),
        (b'{"error": "no"}', "no"),
        (b'{"detail": "not here"}', "not here"),
        (b'{"error": {"message": 5}}', ""),
        (b"<html>", ""),
        (b"[]", ""),
        (json.dumps({"message": "x" * 5000}).encode(), "x" * 200),
    ],
)
def test_the_reason_that_a_server_gives(text: bytes, said: str) -> None:
    assert reason(text) == said
