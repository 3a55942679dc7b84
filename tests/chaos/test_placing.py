"""Judge of the calls that the API places."""

from __future__ import annotations

import pytest

from tests.chaos.placing import Order, judge


def order(*statuses: int, key: str | None = None) -> Order:
    return Order("1", key, False, 0.0, list(statuses), "u" if 201 in statuses else "")


@pytest.mark.parametrize(
    ("one", "invites", "is_told", "wrong"),
    [
        (order(201), 1, True, ""),
        (order(201), 0, True, ""),  # Asterisk was killed before it sent an INVITE
        (order(201), 1, False, "its end was not told"),
        (order(201), 2, True, "dialed 2 times"),
        (order(503), 0, False, ""),
        (order(503), 1, False, "refused, and dialed"),
        (order(0), 0, False, ""),
        (order(0), 1, True, ""),
        (order(0, 503, 201, key="k"), 1, True, ""),
        (order(0, 503, 201, key="k"), 2, True, "dialed 2 times"),
        (order(0, 503, key="k"), 0, False, "not accepted"),
    ],
)
def test_what_may_become_of_an_order(one: Order, invites: int, is_told: bool, wrong: str):
    found = [finding.text for finding in judge([one], {"1": invites}, {"u"} if is_told else set())]
    assert [wrong in text for text in found] == ([True] if wrong else [])
