"""Tests of escaping: characters that terminals and viewers obey are shown, and not obeyed."""

import unicodedata

import pytest

from ari_conf.common.safe_text import stripped, visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]0;PWNED\x07", r"\x1b]0;PWNED\x07"),
        ("a\x9b31mb", r"a\x9b31mb"),
        ("a\u202eb\u2066c", r"a\u202eb\u2066c"),
        ("a\nb\tc\rd", r"a\x0ab\x09c\x0dd"),
        ("a\ud800b", r"a\ud800b"),
        ("José 💁🏽‍♀️ שלום", "José 💁🏽‍♀️ שלום"),
        ("a\u00a0b", "a\u00a0b"),
        ("", ""),
    ],
)
def test_each_control_character_is_escaped(text: str, shown: str):
    assert visible(text) == shown


def test_line_ends_stay_if_requested():
    assert visible("a\n\tb\x1b[2J\r", lines=True) == "a\n\tb\\x1b[2J\\x0d"


def test_no_control_character_of_unicode_is_left():
    everything = "".join(map(chr, range(0x110000)))
    kinds = {unicodedata.category(character) for character in visible(everything)}
    assert not kinds & {"Cc", "Zl", "Zp", "Cs"}
    assert not [c for c in visible(everything) if unicodedata.bidirectional(c) in ("LRE", "RLE", "LRO", "RLO", "PDF")]
    assert not [c for c in visible(everything) if unicodedata.bidirectional(c) in ("LRI", "RLI", "FSI", "PDI")]


def test_stripped_text_has_no_control_characters():
    assert stripped("\x1b]0;PWNED\x07An\u202en") == "]0;PWNEDAnn"
    assert stripped("Ann 💁🏽‍♀️") == "Ann 💁🏽‍♀️"
