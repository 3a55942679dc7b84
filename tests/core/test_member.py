"""sendDigits' times."""

from __future__ import annotations

import pytest

from ari_conf.core.conferences.member import schedule_digits


@pytest.mark.parametrize(
    ("digits", "times"),
    [
        ("", ()),
        ("12", ((0, "12"),)),
        ("1w2", ((0, "1"), (500, "2"))),
        ("1W2", ((0, "1"), (1000, "2"))),
        ("wW1ww23w", ((1500, "1"), (2500, "23"))),
        ("www", ()),
    ],
)
def test_w_is_half_a_second_and_W_a_whole_one(digits: str, times: tuple[tuple[int, str], ...]) -> None:
    assert schedule_digits(digits, 0) == times
