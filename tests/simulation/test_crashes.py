"""Crashes: a run that is cut anywhere and rises ends as if it had not been cut; `observed` says what that means."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from functools import cache
from random import Random

import pytest

from tests.simulation import observed
from tests.simulation.mortal import Deed, Mortal

LONG = os.environ.get("ARI_CONF_SIMULATION") == "long"
SEEDS, EVERY = (60, 1) if LONG else (14, 9)
"""Number of courses, and the interval between the moments that are cut."""
ORDERS = 200 if LONG else 40
DEEDS = 14
MOST_CALLERS = 4
KINDS = ("arrive",) * 4 + ("hang up", "press", "talk", "silent", "finish", "finish", "time", "time", "command")
MOMENTS = (500, 1000, 2000, 5000, 30_000)

Result = tuple[list[str], Counter[str], list[object]]


@cache
def course(seed: int) -> tuple[Deed, ...]:
    """Draw a course with few callers: n things under way at once have n! orders, and the matching one must be found."""
    dice = Random(seed)
    deeds: list[Deed] = [("arrive", dice.randrange(1, 3000))]
    for _ in range(DEEDS):
        kind = dice.choice(KINDS)
        if kind == "arrive" and sum(what == "arrive" for what, _ in deeds) >= MOST_CALLERS:
            kind = "time"
        deeds.append((kind, dice.choice(MOMENTS) if kind == "time" else dice.randrange(1, 3000)))  # type: ignore[arg-type]
    return tuple(deeds)


def live(seed: int, world: Mortal, without: frozenset[int] = frozenset()) -> list[object]:
    """Run the course, except for the deeds in `without`; return the scene after each deed."""
    scenes: list[object] = []
    for at, deed in enumerate(course(seed)):
        if at not in without:
            world.do(at, deed)
        scenes.append(observed.scene(world) if not world.absent else None)
    world.finish_all()
    return scenes


def result(world: Mortal, scenes: list[object]) -> Result:
    reported = [f"{lane}: {text}" for lane, texts in sorted(observed.reported(world).items()) for text in texts]
    return reported, Counter(observed.asked(world)), scenes


@cache
def uncut(seed: int, without: frozenset[int], order: int) -> Result:
    world = Mortal(order=order)
    return result(world, live(seed, world, without))


@cache
def length(seed: int) -> int:
    world = Mortal()
    live(seed, world)
    return world.moments


def cut(seed: int, dies: frozenset[int], away: int = 0) -> Mortal:
    """Run the course with these deaths, and check what holds after every cut."""
    world = Mortal(dies, away)
    scenes = live(seed, world)
    assert world.deaths
    assert observed.left(world) == []
    observed.sequences(world)
    observed.fates(world)
    observed.history(world)
    if not away:
        _is_as_if_uncut(seed, world, result(world, scenes))
    return world


def _is_as_if_uncut(seed: int, world: Mortal, seen: Result) -> None:
    first = None
    for order in range(ORDERS):
        expected = uncut(seed, frozenset(world.unheard), order)
        if _same(seen, expected, world.deaths):
            return
        first = first or expected
    assert first is not None
    assert seen[0] == first[0], "what was told"
    assert seen[1] == first[1], "what was asked"
    assert seen[2] == first[2], "who was where and heard what"


def _same(seen: Result, expected: Result, deaths: int) -> bool:
    asked, once = seen[1], expected[1]
    again = asked.keys() == once.keys() and all(once[key] <= n <= once[key] + deaths for key, n in asked.items())
    return again and seen[0] == expected[0] and seen[2] == expected[2]


def cuts(seed: int, every: int) -> Iterator[frozenset[int]]:
    """Yield the moments of death: one, and sometimes more while the application rises or a little later."""
    dice = Random(seed)
    for moment in range(1 + dice.randrange(every), length(seed) + 1, every):
        again = dice.choice(((), (1,), (2,), (3,), (1, 2, 3), (7,), (2, 9, 15)))
        yield frozenset({moment, *(moment + more for more in again)})


def cut_courses(seeds: int, every: int) -> int:
    tried = 0
    for seed in range(seeds):
        for dies in cuts(seed, every):
            tried += 1
            try:
                cut(seed, dies)
            except BaseException as error:
                error.add_note(f"seed {seed}, cut at {sorted(dies)}")
                raise
    return tried


@pytest.mark.parametrize("seed", range(SEEDS))
def test_cut_at_any_moment_it_ends_as_if_it_had_not_been(seed: int) -> None:
    for dies in cuts(seed, EVERY):
        try:
            cut(seed, dies)
        except BaseException as error:
            error.add_note(f"seed {seed}, cut at {sorted(dies)}")
            raise


@pytest.mark.parametrize("seed", range(100, 100 + SEEDS))
def test_whatever_happens_while_it_is_away_nothing_is_left_and_nobody_is_lost(seed: int) -> None:
    for dies in cuts(seed, 2 * EVERY):
        try:
            cut(seed, dies, away=1 + seed % 4)
        except BaseException as error:
            error.add_note(f"seed {seed}, cut at {sorted(dies)}")
            raise
