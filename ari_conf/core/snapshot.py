"""Calls and conferences as plain values (dict, list, str, int, bool, None), and back: restore(snapshot(x)) == x.

The fields' types say how to read them back; a value whose type is one of several dataclasses carries its class's name.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

T = TypeVar("T")
KIND = "_"


def snapshot(value: Any) -> Any:
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


def restore(shot: Any, kind: type[T]) -> T:
    """Raises KeyError, TypeError or ValueError if it was not made from that type."""
    result: T = _reader(cast(Any, kind))(shot)
    return result


@cache
def _names(kind: Any) -> tuple[str, ...]:
    return tuple(f.name for f in fields(kind))


@cache
def _reader(kind: Any) -> Callable[[Any], Any]:
    origin, args = get_origin(kind), get_args(kind)
    if is_dataclass(kind):
        return _dataclass_reader(kind)
    if origin is tuple and args[-1] is Ellipsis:
        return lambda shot: tuple(_reader(args[0])(v) for v in shot)
    if origin is tuple:
        return lambda shot: tuple(_reader(a)(v) for a, v in zip(args, shot, strict=True))
    if origin is list:
        return lambda shot: [_reader(args[0])(v) for v in shot]
    if origin is dict:
        return lambda shot: {args[0](k): _reader(args[1])(v) for k, v in shot.items()}
    if origin in (Union, types.UnionType):
        return _union_reader(args)
    if origin is Literal or kind in (str, int, bool, types.NoneType):
        return lambda shot: shot
    raise TypeError(f"a snapshot can't hold {kind}")


def _dataclass_reader(kind: Any) -> Callable[[Any], Any]:
    hints = get_type_hints(kind)

    def read(shot: Any) -> Any:
        return kind(**{name: _reader(hints[name])(shot[name]) for name in _names(kind)})

    return read


def _union_reader(args: tuple[Any, ...]) -> Callable[[Any], Any]:
    classes: dict[str, Any] = {getattr(a, "__name__", ""): a for a in args if is_dataclass(a)}
    plain: Any = next((a for a in args if a is not types.NoneType and not is_dataclass(a)), types.NoneType)

    def read(shot: Any) -> Any:
        if isinstance(shot, dict) and shot.get(KIND) in classes:
            return _reader(classes[shot[KIND]])(shot)
        return None if shot is None else _reader(plain)(shot)

    return read
