"""Tests of the text for engines that support only ASCII."""

import pytest

from ari_conf.media.alphabets import LANGUAGES, can_be_said, in_ascii, language_of


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("€5", "5 euros"),
        ("5 €", "5 euros"),
        ("€1", "1 euro"),
        ("£1,250.50.", "1,250.50 pounds ."),
        ("₹100 ¥200", "100 rupees 200 yen"),
        ("$5", "$5"),
        ("the €", "the euro"),
        ("₡", "colon"),
        ("5 £ → 3 £", "5 pounds to 3 pounds"),
        ("10²+½", "10 squared+ 1/2"),
        ("2½", "2 1/2"),
        ("20°C", "20 degrees C"),
        ("3 × 4 ≠ 12 ∑", "3 times 4 is not 12 n-ary summation"),
        ("łódź straße Ærø Đorđe", "lodz strasse Aero Dorde"),
        ("“Hello” – it’s café…", '"Hello" , it\'s cafe...'),
        ("ﬁne №5™", "fine number 5 T M"),
        ("a\u200bb🙂", "ab"),
        ("Привет", ""),
    ],
)
def test_signs_are_replaced_by_words(text: str, said: str) -> None:
    assert " ".join(in_ascii(text).split()) == said


@pytest.mark.parametrize("text", ["a", "5", "€", "+", "%", "я", "&"])
def test_texts_that_can_be_spoken(text: str) -> None:
    assert can_be_said(f" .{text}!")


@pytest.mark.parametrize("text", ["", "...", "?!", "🙂", "—", "\u200b"])
def test_texts_that_can_not_be_spoken(text: str) -> None:
    assert not can_be_said(text)


def test_each_sign_takes_a_bounded_number_of_letters() -> None:
    for c in map(chr, range(0x20, 0x30000)):
        if not 0xD800 <= ord(c) < 0xE000:
            said = in_ascii(c)
            assert said.isascii() and len(said) < 80


def test_alphabets_are_distinguished() -> None:
    for letters, languages in LANGUAGES.items():
        first = letters[0]
        while not (chr(ord(first)).isalpha()):
            first = chr(ord(first) + 1)
        assert language_of(f"Hello {first}", "en-US") == languages[0]
        for language in languages:
            assert language_of(first, language) == language
