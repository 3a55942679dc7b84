"""Calls and conferences, read back from plain values (dict, list, str, int, bool, None) as JSON holds them.

The fields' types say how. Where a type is one of several dataclasses, the one is told by its fields' names, or by its
class's name in the field `_` (so did versions before write all of them; so does `snapshot`, for classes that have the
same fields). A field that is missing, since the version that wrote it had none, has its default.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Hashable, Iterable
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import cache
from operator import itemgetter
from sys import intern
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

T = TypeVar("T")
KIND = "_"
Shared = dict[Hashable, Any]
Reader = Callable[[Any, Shared], Any]


def snapshot(value: Any) -> Any:
    """As plain values, each dataclass with its class's name: restore(snapshot(x)) == x."""
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, tuple | list):
        return [snapshot(v) for v in value]
    if isinstance(value, dict):
        # JSON's keys are strings; `restore` knows what they were.
        return {str(k): snapshot(v) for k, v in value.items()}
    shot = {name: snapshot(getattr(value, name)) for name in _names(value.__class__)}
    shot[KIND] = type(value).__name__
    return shot


def restore(shot: Any, kind: type[T], shared: Shared | None = None) -> T:
    """Raises KeyError, TypeError or ValueError if it was not made from that type.

    What is restored with the same `shared` has its equal elements and accounts in common, as it had when it lived:
    in most conferences all members have the same document.
    """
    result: T = _reader(cast(Any, kind))(shot, {} if shared is None else shared)
    return result


def readable(shot: Any, kind: Any, names: Iterable[str]) -> dict[str, Any]:
    """Of a dataclass that can't be read as a whole these fields, those of them that can be."""
    hints, found = get_type_hints(kind), dict[str, Any]()
    for name in names:
        try:
            found[name] = part_reader(hints[name])(shot[name], {})
        except (KeyError, TypeError, ValueError, RecursionError):
            continue
    return found


def part_reader(kind: Any) -> Reader:
    """Reads the plain values of a field's type. Raises as `restore` does."""
    needed, kinds = _needed(kind), _plain(kind)

    def read(shot: Any, shared: Shared) -> Any:
        if type(shot) not in kinds:
            raise TypeError(f"{shot!r:.80} can't stand here")
        return shot if needed is None or shot is None else needed(shot, shared)

    return read


@cache
def _names(kind: Any) -> tuple[str, ...]:
    return tuple(f.name for f in fields(kind))


@cache
def _reader(kind: Any) -> Reader:
    return _needed(kind) or _as_it_is(_plain(kind))


def _as_it_is(kinds: frozenset[type]) -> Reader:
    def read(shot: Any, _: Shared) -> Any:
        if type(shot) not in kinds:
            raise TypeError(f"{shot!r:.80} can't stand here")
        return shot

    return read


@cache
def _needed(kind: Any) -> Reader | None:
    """None: it is as JSON holds it."""
    origin, args = get_origin(kind), get_args(kind)
    if is_dataclass(kind):
        return _dataclass_reader(kind)
    if origin in (tuple, list, dict):
        return _collection_reader(origin, args)
    if origin in (Union, types.UnionType):
        return _union_reader(args)
    if kind is str:
        # The same ids and words stand in many places: each is kept once.
        return lambda shot, _: intern(shot)
    if origin is Literal:
        words = {word: word for word in args}
        return lambda shot, _: words[shot]
    if kind in (int, bool, types.NoneType):
        return None
    raise TypeError(f"a snapshot can't hold {kind}")


def _collection_reader(origin: Any, args: tuple[Any, ...]) -> Reader:
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


def _dataclass_reader(kind: Any) -> Reader:
    hints = get_type_hints(kind)
    names = _names(kind)
    if not names:
        return lambda _, __: kind()
    # With the last twice, since for a single name it would give no tuple.
    values_of = itemgetter(*names, names[-1])
    readers = [(n, reader) for n, name in enumerate(names) if (reader := _needed(hints[name])) is not None]
    frozen = kind.__dataclass_params__.frozen
    allowed = [_plain(hints[name]) for name in names]

    def read(shot: Any, shared: Shared) -> Any:
        try:
            values = list(values_of(shot)[:-1])
        except KeyError:
            values = [shot[f.name] if f.name in shot else _default(f) for f in fields(kind)]
        for value, kinds in zip(values, allowed, strict=True):
            # What is damaged is to be seen here, and not in the middle of a call.
            if type(value) not in kinds:
                raise TypeError(f"{kind.__name__} can't hold {value!r:.80}")
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
    """What JSON has in its place: a bool is no number there, and a text no list."""
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        return frozenset().union(*map(_plain, get_args(kind)))
    if is_dataclass(kind) or origin is dict:
        return frozenset({dict})
    if origin in (tuple, list):
        return frozenset({list})
    return frozenset({str if origin is Literal else kind})


def _default(field: Field[Any]) -> Any:
    if field.default_factory is not MISSING:
        return snapshot(field.default_factory())
    if field.default is MISSING:
        raise KeyError(field.name)
    return snapshot(field.default)


def _union_reader(args: tuple[Any, ...]) -> Reader | None:
    classes: list[Any] = [a for a in args if is_dataclass(a)]
    plain = [a for a in args if a is not types.NoneType and not is_dataclass(a)]
    if not classes:
        return _needed(plain[0]) if len(plain) == 1 else None
    by_name = {a.__name__: a for a in classes}

    @cache
    def reader_of(names: tuple[str, ...]) -> Reader:
        """Of the class that has most of them, and fewest others."""
        best = max(classes, key=lambda a: (len(set(names) & set(_names(a))), -len(_names(a))))
        return _reader(best)

    def read(shot: Any, shared: Shared) -> Any:
        if shot is None:
            return None
        if not isinstance(shot, dict):
            if not plain:
                raise TypeError(f"{shot!r:.80} is none of {', '.join(by_name)}")
            return _reader(plain[0])(shot, shared)
        kind = by_name.get(shot.get(KIND, ""))
        return (_reader(kind) if kind else reader_of(tuple(shot)))(shot, shared)

    return read
