"""Serialization of dataclasses to and from the plain values of JSON (dict, list, str, int, bool, None).

The types of the fields determine how plain values are read. In a union of dataclasses, the class follows from the field
names, or from the class name in the field `_`. Earlier versions persisted `_` for all classes; `snapshot` writes it
because some classes have the same fields. A field that the writing version did not have gets its default. A field that
the constructor does not take (`init=False`) is derived from the others, and is not part of a snapshot.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Hashable, Iterable
from dataclasses import MISSING, Field, fields, is_dataclass
from enum import StrEnum
from functools import cache
from operator import itemgetter
from sys import intern
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

T = TypeVar("T")
TYPE_TAG = "_"
InternPool = dict[Hashable, Any]
Decoder = Callable[[Any, InternPool], Any]


def snapshot(value: Any) -> Any:
    """Convert to plain values, each dataclass with its class name: restore(snapshot(x), type(x)) == x."""
    if isinstance(value, StrEnum):
        return value.value
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, tuple | list):
        return [snapshot(v) for v in value]
    if isinstance(value, dict):
        # Keys in JSON are strings; `restore` knows their original type.
        return {str(k): snapshot(v) for k, v in value.items()}
    shot = {name: snapshot(getattr(value, name)) for name in _names(value.__class__)}
    shot[TYPE_TAG] = type(value).__name__
    return shot


def restore(shot: Any, kind: type[T], shared: InternPool | None = None) -> T:
    """Convert plain values back to the type.

    Values that are restored with the same `shared` share equal elements and accounts, as they did originally: in most
    conferences, all members have the same document. Raises KeyError, TypeError or ValueError if the plain values were
    not made from that type.
    """
    result: T = _reader(cast(Any, kind))(shot, {} if shared is None else shared)
    return result


def readable(shot: Any, kind: Any, names: Iterable[str]) -> dict[str, Any]:
    """Return those of the named fields that can be read, of a dataclass that can't be read as a whole."""
    hints, found = get_type_hints(kind), dict[str, Any]()
    for name in names:
        try:
            found[name] = field_decoder(hints[name])(shot[name], {})
        except (KeyError, TypeError, ValueError, RecursionError):
            continue
    return found


def field_decoder(kind: Any) -> Decoder:
    """Return a decoder for the plain values of a field's type. The decoder raises the same errors as `restore`."""
    needed, kinds = _needed(kind), _plain(kind)

    def read(shot: Any, shared: InternPool) -> Any:
        if type(shot) not in kinds:
            raise TypeError(f"{shot!r:.80} is not allowed here")
        return shot if needed is None or shot is None else needed(shot, shared)

    return read


@cache
def persisted_fields(kind: Any) -> tuple[Field[Any], ...]:
    return tuple(f for f in fields(kind) if f.init)


@cache
def _names(kind: Any) -> tuple[str, ...]:
    return tuple(f.name for f in persisted_fields(kind))


@cache
def _reader(kind: Any) -> Decoder:
    return _needed(kind) or _as_it_is(_plain(kind))


def _as_it_is(kinds: frozenset[type]) -> Decoder:
    def read(shot: Any, _: InternPool) -> Any:
        if type(shot) not in kinds:
            raise TypeError(f"{shot!r:.80} is not allowed here")
        return shot

    return read


@cache
def _needed(kind: Any) -> Decoder | None:
    """Return the decoder of a type, or None if the plain value needs no decoding.

    Raises TypeError for an unsupported type.
    """
    origin, args = get_origin(kind), get_args(kind)
    if is_dataclass(kind):
        return _dataclass_reader(kind)
    if origin in (tuple, list, dict):
        return _collection_reader(origin, args)
    if origin in (Union, types.UnionType):
        return _union_reader(args)
    if kind is str:
        # The same ids and words occur in many places; interning keeps each of them once.
        return lambda shot, _: intern(shot)
    if origin is Literal:
        words = {word: word for word in args}
        return lambda shot, _: words[shot]
    if is_enum(kind):
        states = {state.value: state for state in kind}
        return lambda shot, _: states[shot]
    if kind in (int, bool, types.NoneType):
        return None
    raise TypeError(f"{kind} is not supported in a snapshot")


def _collection_reader(origin: Any, args: tuple[Any, ...]) -> Decoder:
    if origin is dict:
        key, value = args[0], _reader(args[1])
        return lambda shot, shared: {key(k): value(v, shared) for k, v in shot.items()}
    if origin is list:
        item = _reader(args[0])
        return lambda shot, shared: [item(v, shared) for v in shot]
    if args[-1] is Ellipsis:
        item = _reader(args[0])
        return lambda shot, shared: tuple([item(v, shared) for v in shot]) if shot else ()
    items = [_reader(a) for a in args]
    return lambda shot, shared: tuple(item(v, shared) for item, v in zip(items, shot, strict=True))


def _dataclass_reader(kind: Any) -> Decoder:
    hints = get_type_hints(kind)
    names = _names(kind)
    if not names:
        return lambda _, __: kind()
    # The last name is given twice, because itemgetter does not return a tuple for a single name.
    values_of = itemgetter(*names, names[-1])
    readers = [(n, reader) for n, name in enumerate(names) if (reader := _needed(hints[name])) is not None]
    frozen = kind.__dataclass_params__.frozen
    allowed = [_plain(hints[name]) for name in names]

    def read(shot: Any, shared: InternPool) -> Any:
        try:
            values = list(values_of(shot)[:-1])
        except KeyError:
            values = [shot[f.name] if f.name in shot else _default(f) for f in persisted_fields(kind)]
        for value, kinds in zip(values, allowed, strict=True):
            # Damaged state must be detected here, and not during a call.
            if type(value) not in kinds:
                raise TypeError(f"{value!r:.80} is not allowed in {kind.__name__}")
        for n, reader in readers:
            if values[n] is not None:
                values[n] = reader(values[n], shared)
        if not frozen:
            return kind(*values)
        key = (kind, *values)
        found = shared.get(key)
        if found is None:
            found = shared[key] = kind(*values)
        return found

    return read


def _plain(kind: Any) -> frozenset[type]:
    """Return the JSON types of a type's plain value; a bool does not count as an int, nor a str as a list."""
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        return frozenset().union(*map(_plain, get_args(kind)))
    if is_dataclass(kind) or origin is dict:
        return frozenset({dict})
    if origin in (tuple, list):
        return frozenset({list})
    return frozenset({str if origin is Literal or is_enum(kind) else kind})


def is_enum(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, StrEnum)


def _default(field: Field[Any]) -> Any:
    if field.default_factory is not MISSING:
        return snapshot(field.default_factory())
    if field.default is MISSING:
        raise KeyError(field.name)
    return snapshot(field.default)


def _union_reader(args: tuple[Any, ...]) -> Decoder | None:
    classes: list[Any] = [a for a in args if is_dataclass(a)]
    plain = [a for a in args if a is not types.NoneType and not is_dataclass(a)]
    if not classes:
        return _needed(plain[0]) if len(plain) == 1 else None
    by_name = {a.__name__: a for a in classes}

    @cache
    def reader_of(names: tuple[str, ...]) -> Decoder:
        """Return the decoder of the class that has most of these fields, and the fewest others."""
        best = max(classes, key=lambda a: (len(set(names) & set(_names(a))), -len(_names(a))))
        return _reader(best)

    def read(shot: Any, shared: InternPool) -> Any:
        if shot is None:
            return None
        if not isinstance(shot, dict):
            if not plain:
                raise TypeError(f"{shot!r:.80} is not allowed; expected {' or '.join(by_name)}")
            return _reader(plain[0])(shot, shared)
        kind = by_name.get(shot.get(TYPE_TAG, ""))
        return (_reader(kind) if kind else reader_of(tuple(shot)))(shot, shared)

    return read
