"""Anything may happen at any moment, and every promise holds.

ARI_CONF_SIMULATION=long runs it for minutes, and shrinks what it finds.
"""

from __future__ import annotations

import os
from random import Random

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.simulation.world import CHANCE, World

LONG = os.environ.get("ARI_CONF_SIMULATION") == "long"
EXAMPLES, SEEDS, STEPS = (3000, 2000, 600) if LONG else (120, 60, 250)

SMOOTH = ("arrive",) * 3 + ("go on",) * 12 + ("press", "talk", "finish", "time", "hang up", "settle", "compare")
PHONES = (*SMOOTH, "hold", "stream", "audio stops", "nothing sent")
LINES = (*PHONES, "measure")
PLACED = (*SMOOTH, *("place", "phone") * 3, "phone", "cancel", "hold")
ROUGH = (
    *PHONES,
    *("place", "phone") * 2,
    "cancel",
    *("go on",) * 6,
    "twice",
    "late again",
    "refused",
    "reply lost",
    "lost",
    "destroy",
    "fail",
)
CHANCES: dict[str, CHANCE] = {
    "go on": "well",
    "twice": "twice",
    "late again": "late again",
    "refused": "refused",
    "reply lost": "reply lost",
    "lost": "lost",
}
MOMENTS = (1, 100, 500, 800, 1500, 2000, 5000, 10_000)

Action = tuple[str, int]

# Shrinking may take minutes: the long profile does it.
PROFILE = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=not LONG,
    phases=[p for p in Phase if LONG or p is not Phase.shrink],
)


def play(world: World, action: Action) -> None:
    what, number = action
    match what:
        case "arrive":
            world.arrive(number)
        case "place":
            world.place(number)
        case "phone":
            world.phone(number)
        case "cancel":
            world.cancel(number)
        case "hang up":
            world.hang_up(number)
        case "press":
            world.press(number // 12, "0123456789*#11223**"[number % 19])
        case "talk":
            world.talk(number // 2, number % 2 == 0)
        case "hold":
            world.hold(number)
        case "stream":
            world.begin_stream(number)
        case "audio stops":
            world.stop_audio(number)
        case "nothing sent":
            world.send_nothing(number)
        case "measure":
            world.measure(number)
        case "finish":
            world.finish(number)
        case "time":
            world.pass_time(MOMENTS[number % len(MOMENTS)])
        case "settle":
            world.settle()
        case "compare":
            world.compare()
        case "fail":
            world.fail(number)
        case "destroy":
            world.destroy_bridge(number)
        case _:
            world.go_on(number, CHANCES[what])


def actions(kinds: tuple[str, ...]) -> st.SearchStrategy[list[Action]]:
    return st.lists(st.tuples(st.sampled_from(kinds), st.integers(0, 9999)), min_size=30, max_size=150)


@PROFILE
@given(actions(PHONES))
def test_every_promise_holds_whatever_the_callers_do(course: list[Action]) -> None:
    world = World()
    for action in course:
        play(world, action)
    world.end()


@PROFILE
@given(actions(ROUGH))
def test_every_promise_holds_whatever_goes_wrong(course: list[Action]) -> None:
    world = World()
    for action in course:
        play(world, action)
    world.end()


COURSES = {"smooth": SMOOTH, "phones": PHONES, "lines": LINES, "placed": PLACED, "rough": ROUGH}


def long_courses(kinds: str, seeds: int, steps: int = STEPS) -> None:
    """Run long courses with many members. Nothing is shrunk; a failure names its seed."""
    for seed in range(seeds):
        dice = Random(seed)
        world = World()
        try:
            for _ in range(steps):
                play(world, (dice.choice(COURSES[kinds]), dice.randrange(10_000)))
            world.end()
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise


@pytest.mark.parametrize("kinds", COURSES)
def test_long_courses(kinds: str) -> None:
    long_courses(kinds, SEEDS // 3 if kinds in ("phones", "lines", "placed") else SEEDS)
