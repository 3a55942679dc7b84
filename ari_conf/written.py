"""How calls and conferences are written down: each as one JSON object of its fields, the members of a conference apart
from it (`member_fields`). `core.snapshot` reads them.

It reads plain values, which takes ten times as long as what msgspec can do by itself: numbers, words, and which fields
there are. So the large ones are read by msgspec, and of their parts what many have in common (a document, a sound, an
account) is known by its text, and read once.

A long document is written without what is as by default: each step of its call writes it again, and of a hundred short
elements it would make fifty KB.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from operator import attrgetter
from sys import intern
from typing import Any, Literal, Union, cast, get_args, get_origin, get_type_hints

import msgspec

from ari_conf.core.call import Call
from ari_conf.core.conference import Conference
from ari_conf.core.elements import Element, PreAnswer
from ari_conf.core.member import Member
from ari_conf.core.snapshot import KIND, Reader, Shared, part_reader, restore

Thing = Call | Conference

# Straight from the dataclasses: twelve times as fast as by way of plain values.
_encode = msgspec.json.Encoder().encode
LARGE: dict[bytes, type[Thing]] = {b'{"call_uuid"': Call, b'{"conference_id"': Conference}
"""By how their text begins; one that begins otherwise is read as well."""
MOST_TEXTS = 50_000
"""Remembered at a time: where each has its own there is no use in it."""
NO_MEMBERS = b',"members":{}}'
FEW = 20
"""Elements that are written as they are."""


def is_conference(text: bytes) -> bool:
    return text.endswith(NO_MEMBERS)


def encoded(thing: Thing | Member) -> bytes:
    if type(thing) is Call and _is_long(thing.elements):
        kind, values_of = _with_raw_elements()
        return _encode(kind(*values_of(thing), _long_text(thing)))
    return _encode(thing)


def _is_long(elements: tuple[Element, ...]) -> bool:
    return len(elements) > FEW or any(type(e) is PreAnswer and len(e.children) > FEW for e in elements)


def _long_text(call: Call) -> Any:
    """Made once for a document: it takes some milliseconds."""
    if call.kept is None or call.kept[0] is not call.elements:
        call.kept = call.elements, msgspec.Raw(_encode(_brief(call.elements)))
    return call.kept[1]


def _brief(value: Any) -> Any:
    """With its class's name, since what is left of it no longer tells."""
    if isinstance(value, tuple):
        return [_brief(one) for one in value]
    if not is_dataclass(value):
        return value
    brief: dict[str, Any] = {KIND: type(value).__name__}
    for name, default in _defaults(cast(Any, type(value))):
        one = getattr(value, name)
        if one != default or type(one) is not type(default):
            brief[name] = _brief(one)
    return brief


@cache
def _defaults(kind: Any) -> tuple[tuple[str, Any], ...]:
    return tuple((f.name, f.default) for f in fields(kind))


@cache
def _with_raw_elements() -> tuple[Callable[..., Any], Callable[[Any], tuple[Any, ...]]]:
    names = [f.name for f in fields(Call) if f.name != "elements"]
    return msgspec.defstruct("CallWithRawElements", [*names, "elements"], gc=False), attrgetter(*names)


def without_members(conference: Conference) -> bytes:
    kind, values_of = _without_members()
    return _encode(kind(*values_of(conference), {}))


def joined(conference: bytes, members: Mapping[bytes, bytes]) -> bytes:
    """The whole of it; the members' ids as digits."""
    # What else may stand there is for `decoded` to refuse.
    if not members or not is_conference(conference):
        return conference
    each = b",".join(b'"%b":%b' % (id, members[id]) for id in sorted(members, key=lambda id: (len(id), id)))
    return b"%b{%b}}" % (conference[: -len(b"{}}")], each)


@cache
def _without_members() -> tuple[Callable[..., Any], Callable[[Any], tuple[Any, ...]]]:
    names = [f.name for f in fields(Conference) if f.name != "members"]
    return msgspec.defstruct("ConferenceWithoutMembers", [*names, "members"], gc=False), attrgetter(*names)


def decoded(text: bytes, shared: Shared) -> Thing:
    """Raises KeyError, TypeError or ValueError if it is none. For `shared` see `restore`."""
    for begins, kind in LARGE.items():
        if text.startswith(begins):
            decoder, build = _large(cast(Any, kind))
            thing: Thing = build(decoder.decode(text), shared)
            return thing
    shot = msgspec.json.decode(text)
    # Versions before wrote which it is.
    is_call = shot[KIND] == "Call" if KIND in shot else "call_uuid" in shot
    return restore(shot, Call, shared) if is_call else restore(shot, Conference, shared)


@cache
def _large(kind: Any) -> tuple[msgspec.json.Decoder[Any], Reader]:
    shell, build = _shell(kind)
    return msgspec.json.Decoder(shell), build


@cache
def _shell(kind: Any) -> tuple[Any, Reader]:
    """What msgspec makes of the text, and what makes a `kind` of that."""
    hints = get_type_hints(kind)
    shapes: list[tuple[str, Any, Any]] = []
    words: list[int] = []
    parts: list[tuple[int, Reader]] = []
    for n, f in enumerate(fields(kind)):
        hint = hints[f.name]
        if _direct(hint):
            shape = hint
            if str in _plain(hint):
                words.append(n)
        elif get_origin(hint) is dict and is_dataclass(get_args(hint)[1]):
            key, large = get_args(hint)
            inner, build_inner = _shell(large)
            shape = dict[key, inner]  # type: ignore[valid-type]
            parts.append((n, _each(build_inner)))
        else:
            shape = msgspec.Raw
            parts.append((n, _by_its_text(part_reader(hint))))
        shapes.append((f.name, shape, _default(f, shape)))
    # Those without a default may stand after others.
    shell = msgspec.defstruct(f"{kind.__name__}AsWritten", shapes, kw_only=True, gc=False)
    values_of = msgspec.structs.astuple

    def build(written: Any, shared: Shared) -> Any:
        values = list(values_of(written))
        for n in words:
            # The same ids and words stand in many places: each is kept once.
            if values[n] is not None:
                values[n] = intern(values[n])
        for n, read in parts:
            values[n] = read(values[n], shared)
        return kind(*values)

    return shell, build


def _default(field: Any, shape: Any) -> Any:
    """A version before did not write it."""
    if field.default is MISSING and field.default_factory is MISSING:
        return msgspec.NODEFAULT
    if shape is msgspec.Raw:
        return msgspec.Raw(_encode(field.default_factory() if field.default is MISSING else field.default))
    return field.default if field.default is not MISSING else msgspec.field(default_factory=field.default_factory)


def _each(build: Reader) -> Reader:
    return lambda written, shared: {key: build(value, shared) for key, value in written.items()}


def _by_its_text(read: Reader) -> Reader:
    def read_text(raw: Any, shared: Shared) -> Any:
        key = (read, bytes(raw))
        make = shared.get(key)
        if make is None:
            found = read(msgspec.json.decode(raw), shared)
            make = _again(found)
            if make is not None:
                if len(shared) > MOST_TEXTS:
                    shared.clear()
                shared[key] = make
            return found
        return make()

    return read_text


def _again(value: Any) -> Callable[[], Any] | None:
    """What makes another one that is equal; None if that is no quicker than to read it again."""
    if _frozen(value):
        return lambda: value
    if isinstance(value, list) and all(map(_frozen, value)):
        return lambda: [*value]
    if not is_dataclass(value):
        return None
    kind: Any = type(value)
    values = [getattr(value, f.name) for f in fields(value)]
    if all(map(_frozen, values)):
        return lambda: kind(*values)
    makes = [_again(v) for v in values]
    if None in makes:
        return None
    return lambda: kind(*[make() for make in makes if make is not None])


def _frozen(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(map(_frozen, value))
    if is_dataclass(value):
        kind: Any = type(value)
        return bool(kind.__dataclass_params__.frozen) and all(_frozen(getattr(value, f.name)) for f in fields(value))
    return value is None or isinstance(value, str | int)


def _plain(hint: Any) -> set[type]:
    if get_origin(hint) in (Union, types.UnionType):
        return set().union(*map(_plain, get_args(hint)))
    return {str} if get_origin(hint) is Literal else {hint}


def _direct(hint: Any) -> bool:
    """msgspec reads it, and says so if it is damaged."""
    origin = get_origin(hint)
    if origin in (dict, Union, types.UnionType):
        return all(map(_direct, get_args(hint)))
    return origin is Literal or hint in (str, int, bool, types.NoneType)
