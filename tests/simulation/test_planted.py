"""The tests are tested: each planted bug is caught."""

from __future__ import annotations

import pytest

from tests.simulation import planted
from tests.simulation.bugs import BUGS, OF_CRASHES, Bug
from tests.simulation.test_simulation import LONG

CUT = tuple(bug for bug in OF_CRASHES if bug.by == "cut")
LATER = () if LONG else tuple(bug for n, bug in enumerate(CUT) if n % 4)
"""Crash bugs that are left out here, because each takes seconds. `python -m tests.simulation.planted` runs all."""


def test_each_attribute_has_two_bugs() -> None:
    assert planted.fewer_than_two() == []


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.promise)
def test_its_place_is_still_there(bug: Bug) -> None:
    assert planted.plant(bug)


def test_a_bug_whose_place_is_gone_is_not_counted_as_caught() -> None:
    verdict = planted.judge(
        Bug("nothing", "conferences/digit_matching.py", "this stands nowhere", "", "test_digit_matching")
    )
    assert not verdict.caught and "stands 0 times" in verdict.words


def test_a_change_that_is_none_is_not_counted_as_caught() -> None:
    same = "PAUSE_MS = 1500"
    assert not planted.judge(Bug("nothing", "conferences/digit_matching.py", same, same, "test_digit_matching")).caught


def test_every_bug_is_caught() -> None:
    verdicts = planted.judge_all(tuple(bug for bug in BUGS if bug not in LATER))
    print("\n" + planted.table(verdicts))
    assert [v.bug.promise for v in verdicts if not v.caught] == []
