from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest

from tests.chaos.schedule import BY_NAME, FIRST_S, schedule


def test_a_seed_repeats_the_schedule() -> None:
    assert schedule(7, 300) == schedule(7, 300)
    assert schedule(7, 300) != schedule(8, 300)


@pytest.mark.parametrize("seed", range(20))
def test_all_kinds_take_their_turns(seed: int) -> None:
    faults = schedule(seed, 600)
    times = Counter(fault.kind for fault in faults)
    assert set(times) == set(BY_NAME)
    assert max(times.values()) - min(times.values()) <= 1
    assert faults[0].at_s == FIRST_S
    assert all(one.at_s < next.at_s for one, next in pairwise(faults))
    assert all(fault.at_s + fault.for_s <= 600 for fault in faults)


def test_some_happen_while_another_lasts() -> None:
    assert any(one.at_s + one.for_s > next.at_s for one, next in pairwise(schedule(1, 600)))


def test_only_the_requested_kinds_occur() -> None:
    assert {fault.kind for fault in schedule(1, 60, ("redis killed",))} == {"redis killed"}
    assert schedule(1, 60, ()) == []
