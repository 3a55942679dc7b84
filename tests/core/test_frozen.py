"""Frozen objects: equal if they have the same class and the same values."""

from __future__ import annotations

from typing import Any, get_args

import msgspec
import pytest

from ari_conf.core.commands import Addressed
from ari_conf.core.effects import AddChannel, Effect, RemoveChannel
from ari_conf.core.elements import Element
from ari_conf.core.events import Event
from ari_conf.core.frozen import Frozen
from ari_conf.core.messages import Message


class Seen(Frozen):
    what: str
    often: int = 1


class Heard(Frozen):
    what: str
    often: int = 1


def test_two_that_say_the_same_are_one() -> None:
    assert Seen("a") == Seen("a", 1) != Seen("a", 2)
    assert len({Seen("a"), Seen("a"), Seen("b")}) == 2


def test_facts_of_different_things_differ() -> None:
    assert AddChannel("c", "b") != RemoveChannel("c", "b")


def test_nothing_can_be_noted_on_one_beside_what_it_says() -> None:
    with pytest.raises(AttributeError):
        Seen("a").where = "here"  # type: ignore[attr-defined]


def test_a_change_is_refused() -> None:
    seen = Seen("a")
    with pytest.raises(AttributeError):
        seen.what = "b"  # type: ignore[misc]
    assert seen == Seen("a")


def test_it_is_matched_by_its_fields() -> None:
    match Seen("a", 3):
        case Seen(what, often):
            assert (what, often) == ("a", 3)


def test_one_of_a_union_is_read_as_the_class_that_was_written() -> None:
    for one in (Seen("a"), Heard("a"), Heard("a", 2)):
        text = msgspec.json.encode(one)
        assert msgspec.json.decode(text, type=Seen | Heard) == one
    with pytest.raises(msgspec.ValidationError, match="type"):
        msgspec.json.decode(b'{"type":"Tasted","what":"a"}', type=Seen | Heard)


def test_default_is_not_written() -> None:
    assert msgspec.json.encode(Seen("a")) == b'{"type":"Seen","what":"a"}'


@pytest.mark.parametrize("union", [Event, Effect, Message, Element, Addressed])
def test_all_that_is_passed_on_is_frozen(union: Any) -> None:
    """Also its values: nothing that is passed on can change."""
    for kind in get_args(union):
        assert issubclass(kind, Frozen)
        for field in msgspec.structs.fields(kind):
            assert _is_immutable(msgspec.inspect.type_info(field.type)), (kind, field.name)


def _is_immutable(found: msgspec.inspect.Type) -> bool:
    match found:
        case msgspec.inspect.StructType(cls):
            return issubclass(cls, Frozen) and cls.__struct_config__.frozen
        case msgspec.inspect.UnionType(types) | msgspec.inspect.TupleType(types):
            return all(map(_is_immutable, types))
        case msgspec.inspect.VarTupleType(item):
            return _is_immutable(item)
        case msgspec.inspect.EnumType() | msgspec.inspect.LiteralType() | msgspec.inspect.NoneType():
            return True
        case _:
            return isinstance(found, msgspec.inspect.StrType | msgspec.inspect.IntType | msgspec.inspect.BoolType)
