"""Tests of SSML: markup in, pieces of text and silence out."""

import re
from xml.etree.ElementTree import fromstring

import pytest

from ari_conf.errors import SoundError
from ari_conf.media.ssml import (
    MAX_PART,
    MAX_PAUSES_MS,
    MAX_PIECES,
    MAX_SPOKEN,
    NUMBER_COUNTS,
    Pause,
    Text,
    canonical,
    parts,
    plain,
    segments,
    shorten_runs,
)


def test_plain_text_is_one_piece() -> None:
    assert segments("Tom &amp; Jerry,  hello.") == (Text("Tom & Jerry, hello."),)


def test_a_sentence_stays_in_one_piece_whatever_is_marked_in_it() -> None:
    markup = (
        'I <emphasis level="strong">really</emphasis> said <lang xml:lang="fr-FR">oui</lang> to the <sub alias="World '
        'Wide Web Consortium">W3C</sub> <w role="x">about</w> <phoneme alphabet="ipa" ph="x">pecans</phoneme>.'
    )
    assert segments(markup) == (Text("I really said oui to the World Wide Web Consortium about pecans."),)


@pytest.mark.parametrize(
    ("tag", "ms"),
    [
        ('<break time="300ms"/>', 300),
        ('<break time="1.5s"/>', 1500),
        ('<break time="60s"/>', 10_000),
        ('<break time="soon"/>', 400),
        ('<break strength="x-strong"/>', 1000),
        ('<break strength="medium" time="2s"/>', 2000),
        ("<break/>", 400),
        ('<break/><break time="1s"/>', 1400),
    ],
)
def test_a_break_is_silence(tag: str, ms: int) -> None:
    assert segments(f"One.{tag} Two.") == (Text("One."), Pause(ms), Text("Two."))


def test_no_break_is_no_silence() -> None:
    assert segments('One<break strength="none"/> two.') == (Text("One two."),)


def test_paragraphs_and_sentences_end_in_silence() -> None:
    assert segments("<p><s>One.</s><s>Two.</s></p> Three.") == (
        *(Text("One."), Pause(300), Text("Two."), Pause(900), Text("Three.")),
    )


@pytest.mark.parametrize(
    ("rate", "as_number"), [("fast", 1.25), ("x-slow", 0.5), ("150%", 1.5), ("900%", 2.0), ("1%", 0.5), ("?", 1.0)]
)
def test_the_rate_of_prosody(rate: str, as_number: float) -> None:
    assert segments(f'<prosody rate="{rate}" volume="loud">Hi.</prosody>') == (Text("Hi.", as_number),)


def test_rates_multiply_and_end() -> None:
    markup = '<prosody rate="fast">One <prosody rate="80%">two</prosody></prosody> three'
    assert segments(markup) == (Text("One", 1.25), Text("two three", 1.0))


@pytest.mark.parametrize(
    ("tag", "said"),
    [
        ('<say-as interpret-as="digits">7 419</say-as>', "seven, four one nine"),
        ('<say-as interpret-as="telephone">(415) 555-01</say-as>', "four one five, five five five, zero one"),
        ('<say-as interpret-as="characters">aB1</say-as>', "A, B, one"),
        ('<say-as interpret-as="spell-out">aB</say-as>', "A, B"),
        ('<say-as interpret-as="ordinal">22</say-as>', "22nd"),
        ('<say-as interpret-as="ordinal">111</say-as>', "111th"),
        ('<say-as interpret-as="date" format="mdy">10/11/2026</say-as>', "October 11, 2026"),
        ('<say-as interpret-as="date" format="dmy">10.11.26</say-as>', "November 10, 2026"),
        ('<say-as interpret-as="date">2026-11-10</say-as>', "November 10, 2026"),
        ('<say-as interpret-as="date">2026-13-10</say-as>', "2026-13-10"),
        ('<say-as interpret-as="date">soon</say-as>', "soon"),
        ('<say-as interpret-as="cardinal">12</say-as>', "12"),
        ("<say-as>12</say-as>", "12"),
    ],
)
def test_say_as(tag: str, said: str) -> None:
    assert segments(f"It is {tag} now") == (Text(f"It is {said} now"),)


def test_unspeakable_text_is_no_piece() -> None:
    assert segments('<break time="1s"/> . <say-as interpret-as="expletive">x</say-as>') == (Pause(1000),)


def test_markup_that_is_no_xml_is_refused() -> None:
    for markup in ("<p>", "a & b", "<!DOCTYPE x>"):
        with pytest.raises(SoundError, match="not well-formed"):
            segments(markup)


def test_plain_text_becomes_markup_that_says_it() -> None:
    assert segments(plain("a < b &  c\n")) == (Text("a < b & c"),)


def test_canonical_form_is_stable() -> None:
    warnings: list[str] = []
    once = canonical(fromstring('<Speak> a<break  time="1s"></break> <p>b &amp; "c" </p></Speak>'), warnings)
    assert once == 'a<break time="1s"/> <p>b &amp; "c" </p>'
    assert canonical(fromstring(f"<Speak>{once}</Speak>"), warnings) == once
    assert warnings == []


# Bounds on the cost of any Speak.

BREAK = '<break time="10s"/>'
WHOLE_TEXT = "Speak: its text has {} characters; the first 3000 are spoken"


def read(inside: str) -> tuple[tuple[Text | Pause, ...], list[str]]:
    """Read a document and return the pieces to speak, and the warnings."""
    warnings: list[str] = []
    return segments(canonical(fromstring(f"<Speak>{inside}</Speak>"), warnings)), warnings


def sums(pieces: tuple[Text | Pause, ...]) -> tuple[int, int, int]:
    """Return the number of characters, the ms of silence, and the number of pieces."""
    texts, pauses = [p for p in pieces if isinstance(p, Text)], [p for p in pieces if isinstance(p, Pause)]
    return sum(len(text.text) for text in texts), sum(pause.ms for pause in pauses), len(pieces)


def test_pauses_between_which_nothing_is_said_are_one() -> None:
    """A full stop between them separates them only until it is left out."""
    pieces, warnings = read("hello " + f".{BREAK}" * 1990 + "bye")
    assert pieces == (Text("hello ."), Pause(10_000), Text("bye"))
    assert warnings == []


@pytest.mark.parametrize("between", ["a", "a.", '<prosody rate="50%">a</prosody>', '<sub alias="a"/>', "<p>a</p>"])
def test_all_pauses_together_are_bounded(between: str) -> None:
    pieces, warnings = read(f"{between}{BREAK}" * 40)
    assert sums(pieces)[1] == MAX_PAUSES_MS
    assert [text.text.strip(" .") for text in pieces if isinstance(text, Text)][:6] == ["a"] * 6
    assert sum(text.text.count("a") for text in pieces if isinstance(text, Text)) == 40, "the whole text is spoken"
    (told,) = warnings
    assert "s; those after the first 60 s are left out" in told


def test_within_the_bounds_nothing_is_cut() -> None:
    text = f"{'word ' * 99}end{BREAK}" * 6
    pieces, warnings = read(text)
    assert sums(pieces) == (6 * 498, MAX_PAUSES_MS, 12)
    assert warnings == []


@pytest.mark.parametrize(
    ("inside", "characters"),
    [
        ("word " * 700, 3499),
        (f'hi <sub alias="{"word " * 18_000}">x</sub>', 90_002),
        (f'<sub alias="{"word " * 400}"/>' * 2, 3999),
        ('<say-as interpret-as="digits">' + "1" * 1000 + "</say-as>", 3999),
        ('<say-as interpret-as="characters">' + "1" * 90_000 + "</say-as>", 449_998),
        ('<say-as interpret-as="expletive">' + "x" * 4000 + "</say-as> and more", 4009),
        ("".join(f"<w>{'x' * 30} </w><break/>" for _ in range(200)), 6199),
    ],
    ids=["text", "alias", "two of them", "digits", "characters", "expletive", "pieces"],
)
def test_all_that_is_said_counts(inside: str, characters: int) -> None:
    pieces, warnings = read(inside)
    assert sums(pieces)[0] <= MAX_SPOKEN
    assert WHOLE_TEXT.format(characters) in warnings


def test_a_text_of_just_so_many_characters_is_spoken_whole() -> None:
    for inside in ("\n  " + "word " * 599 + "words" + "\n", "x" * 1500 + '<sub alias="' + "y" * 1500 + '"/>'):
        pieces, warnings = read(inside)
        assert (sums(pieces)[0], warnings) == (MAX_SPOKEN, [])


@pytest.mark.parametrize(
    ("one", "letters"),
    [
        ("<s>a</s>", 1),
        ('a<break time="1ms"/>', 1),
        ('<prosody rate="fast">a</prosody>a', 2),
        ('<p>a<break time="2ms"/>b</p>', 2),
    ],
)
def test_pieces_are_bounded_and_no_word_is_lost(one: str, letters: int) -> None:
    pieces, warnings = read(one * 400)
    assert len(pieces) == MAX_PIECES
    assert sum(c.isalpha() for p in pieces if isinstance(p, Text) for c in p.text) == 400 * letters
    assert any("texts and pauses; from the 100th on it is spoken without a pause" in told for told in warnings)


def test_ssml_of_an_older_version_is_bounded() -> None:
    """So is the API's input, which `canonical` has not processed."""
    for markup in (f"a{BREAK}" * 900, f'<sub alias="{"word " * 18_000}"/>', "<s>a</s>" * 900):
        characters, ms, count = sums(segments(markup))
        assert characters <= MAX_SPOKEN and ms <= MAX_PAUSES_MS and count <= MAX_PIECES


# The parts that an engine receives.

SENTENCE = "The quick brown fox jumps over the lazy dog, and goes home to sleep."


@pytest.mark.parametrize(
    "text",
    [
        SENTENCE,
        " ".join([SENTENCE] * 43),
        "word " * 599 + "word",
        ", ".join(["some words"] * 200),
        "9 " * 1499 + "9",
        "$9,999,999.99 " * 100 + "end",
        "x" * 3000,
        "9" * 3000,
        "a. " * 999 + "b",
    ],
)
def test_parts_are_short_and_nothing_is_lost(text: str) -> None:
    found = parts(text)
    assert " ".join(found) == shorten_runs(text)
    assert "".join(found).replace(" ", "") == text.replace(" ", "")
    for part in found:
        digits = sum(c.isdigit() for c in part)
        assert len(part) <= MAX_PART
        assert NUMBER_COUNTS * digits <= MAX_PART + NUMBER_COUNTS * 10 or " " not in part


def test_a_part_ends_with_a_sentence_if_it_can() -> None:
    assert parts(" ".join([SENTENCE] * 5)) == [" ".join([SENTENCE] * 4), SENTENCE]
    clauses = ", ".join(["some words"] * 50)
    assert all(part.endswith((",", "words")) for part in parts(clauses))


@pytest.mark.parametrize(
    ("text", "given"),
    [
        ("Hello, world...", "Hello, world..."),
        ("a" + "." * 500, "a..."),
        ("a" + ".)" * 500 + "b", "a.).b"),
        ("_" * 400 + "x", "___x"),
        ("what?!?!?! yes", "what?!? yes"),
        ("x" * 250, f"{'x' * 100} {'x' * 100} {'x' * 50}"),
        ("a.b" * 100, " ".join(re.findall(".{1,100}", "a.b" * 100))),
    ],
)
def test_signs_and_words_without_an_end_are_tamed(text: str, given: str) -> None:
    assert shorten_runs(text) == given
