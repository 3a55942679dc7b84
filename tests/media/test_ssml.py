"""Markup in, pieces of text and silence out."""

from xml.etree.ElementTree import fromstring

import pytest

from ari_conf.errors import SoundFailed
from ari_conf.media.ssml import Pause, Text, canonical, plain, segments


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


def test_what_cannot_be_said_is_no_piece() -> None:
    assert segments('<break time="1s"/> . <say-as interpret-as="expletive">x</say-as>') == (Pause(1000),)


def test_markup_that_is_no_xml_is_refused() -> None:
    for markup in ("<p>", "a & b", "<!DOCTYPE x>"):
        with pytest.raises(SoundFailed, match="not well-formed"):
            segments(markup)


def test_plain_text_becomes_markup_that_says_it() -> None:
    assert segments(plain("a < b &  c\n")) == (Text("a < b & c"),)


def test_what_was_made_canonical_stays_as_it_is() -> None:
    warnings: list[str] = []
    once = canonical(fromstring('<Speak> a<break  time="1s"></break> <p>b &amp; "c" </p></Speak>'), warnings)
    assert once == 'a<break time="1s"/> <p>b &amp; "c" </p>'
    assert canonical(fromstring(f"<Speak>{once}</Speak>"), warnings) == once
    assert warnings == []
