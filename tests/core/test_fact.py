"""Facts: equal if they are of one class and say the same."""

import pytest

from ari_conf.core.effects import AddChannel, RemoveChannel
from ari_conf.core.fact import fact
from ari_conf.core.snapshot import Shared, restore


@fact
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


def test_what_is_read_twice_is_one() -> None:
    shared: Shared = {}
    assert restore({"what": "a", "often": 1}, Seen, shared) is restore({"what": "a", "often": 1}, Seen, shared)


def test_it_is_matched_by_its_fields() -> None:
    match Seen("a", 3):
        case Seen(what, often):
            assert (what, often) == ("a", 3)
