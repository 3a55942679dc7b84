"""digitsMatch, digit by digit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ari_conf.core.conferences.digit_matching import DigitMatcher, DigitRun


def pressed(patterns: str, digits: str) -> tuple[list[str], str, list[str]]:
    """Return the runs found ("=12" matched, "4" relayed), the open digits, and their runs if no more digits come."""
    matcher = DigitMatcher(tuple(patterns.split()))
    found = [_short(f) for digit in digits for f in matcher.press(digit, 0)]
    return found, matcher.pressed, [_short(f) for f in matcher.flush()]


def _short(found: DigitRun) -> str:
    return f"={found.text}" if found.matched else found.text


@pytest.mark.parametrize(
    ("patterns", "digits", "found", "open_", "flushed"),
    [
        ("", "12", ["1", "2"], "", []),
        ("1", "1", ["=1"], "", []),
        ("1 12", "1", [], "1", ["=1"]),
        ("1 12", "12", ["=12"], "", []),
        ("1 12", "13", ["=1", "3"], "", []),
        ("1 12 123", "124", ["=12", "4"], "", []),
        ("123", "12", [], "12", ["12"]),
        ("123", "124", ["124"], "", []),
        ("123 23", "1223", ["12", "=23"], "", []),
        ("123 2", "12", [], "12", ["1", "=2"]),
        ("12 1234", "1235", ["=12", "35"], "", []),
        ("11", "111", ["=11"], "1", ["1"]),
        ("* #", "*#0", ["=*", "=#", "0"], "", []),
    ],
)
def test_matched_and_relayed_digits(
    patterns: str, digits: str, found: list[str], open_: str, flushed: list[str]
) -> None:
    assert pressed(patterns, digits) == (found, open_, flushed)


def test_1500_ms_after_the_last_digit() -> None:
    matcher = DigitMatcher(("123",))
    assert matcher.deadline is None
    matcher.press("1", 1000)
    matcher.press("2", 2000)
    assert matcher.deadline == 3500
    matcher.press("3", 2100)
    assert matcher.deadline is None
    matcher.press("1", 3000)
    matcher.flush()
    assert matcher.deadline is None


DIGITS = st.text("12*", max_size=12)


@given(st.lists(st.text("12*", min_size=1, max_size=4), max_size=4), DIGITS)
def test_no_digit_is_lost_doubled_or_moved(patterns: list[str], digits: str) -> None:
    matcher = DigitMatcher(tuple(patterns))
    found = [f for digit in digits for f in matcher.press(digit, 0)] + matcher.flush()
    assert "".join(f.text for f in found) == digits
    assert all(f.text in patterns for f in found if f.matched)
    assert not any(p in f.text for f in found if not f.matched for p in patterns)
