"""Frozen objects: equal if they have the same class and the same values."""

import os
import subprocess
import sys

import pytest

from ari_conf.core.effects import AddChannel, RemoveChannel
from ari_conf.core.frozen import frozen
from ari_conf.core.snapshot import InternPool, restore


@frozen
class Seen:
    what: str
    often: int = 1


def test_two_that_say_the_same_are_one() -> None:
    assert Seen("a") == Seen("a", 1) != Seen("a", 2)
    assert len({Seen("a"), Seen("a"), Seen("b")}) == 2


def test_what_is_said_of_another_thing_is_another_fact() -> None:
    assert AddChannel("c", "b") != RemoveChannel("c", "b")


def test_nothing_can_be_noted_on_one_beside_what_it_says() -> None:
    with pytest.raises(AttributeError):
        Seen("a").where = "here"  # type: ignore[attr-defined]


def test_a_change_is_not_refused_and_must_not_happen() -> None:
    """Refusing it would make each event and effect three times as expensive: see `frozen`."""
    seen = Seen("a")
    kept = {seen}
    seen.what = "b"  # type: ignore[misc]
    assert seen.what == "b"
    assert seen not in kept, "it can't be found any more"


REFUSED = """
import dataclasses
from ari_conf.core import frozen

frozen.frozen = lambda cls: dataclasses.dataclass(frozen=True, slots=True)(cls)
from ari_conf.core.effects import Answer
from tests.simulation.test_commands import ROUGH, SMOOTH, test_commands_at_any_moment
from tests.simulation.test_simulation import long_courses

try:
    Answer("a").channel_id = "b"
except dataclasses.FrozenInstanceError:
    for seed in range(5):
        test_commands_at_any_moment(SMOOTH, seed)
        test_commands_at_any_moment(ROUGH, seed)
    long_courses("rough", 5)
    print("nobody changed one")
"""


def test_nobody_changes_one() -> None:
    """Simulated conferences run without an error although every change of a frozen object raises."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", REFUSED], capture_output=True, text=True, env=environment, check=False)
    assert done.stdout == "nobody changed one\n", done.stderr[-2000:]


def test_what_is_read_twice_is_one() -> None:
    shared: InternPool = {}
    assert restore({"what": "a", "often": 1}, Seen, shared) is restore({"what": "a", "often": 1}, Seen, shared)


def test_it_is_matched_by_its_fields() -> None:
    match Seen("a", 3):
        case Seen(what, often):
            assert (what, often) == ("a", 3)
