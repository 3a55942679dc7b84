"""State codec: calls and conferences as JSON, each as one object of its fields, members apart from their conference.

`store.members` keeps the members. `core.snapshot` decodes plain values, which takes ten times as long as msgspec for
what msgspec can decode itself: numbers, words and the set of fields. So msgspec decodes the large objects. Parts that
many objects have in common (a document, a sound, an account) are recognized by their text and decoded once.

A long document is written without default values: each step of its call writes it again, and a hundred short elements
would take fifty KB.
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

from ari_conf.core.calls.call import Call
from ari_conf.core.conferences.conference import Conference
from ari_conf.core.conferences.member import Member
from ari_conf.core.elements import Element, PreAnswer
from ari_conf.core.snapshot import (
    TYPE_TAG,
    Decoder,
    InternPool,
    field_decoder,
    is_enum,
    persisted_fields,
    restore,
)

Aggregate = Call | Conference

# msgspec encodes the dataclasses directly, which is twelve times as fast as an encoding of plain values.
_encode = msgspec.json.Encoder().encode
ROOT_TYPES: dict[bytes, type[Aggregate]] = {b'{"call_uuid"': Call, b'{"conference_id"': Conference}
"""Beginning of a text -> its type. A text that begins otherwise can be decoded as well."""
MOST_TEXTS = 50_000
"""Maximum texts that are remembered at a time: remembering is useless where all of them differ."""
NO_MEMBERS = b',"members":{}}'
FEW = 20
"""Maximum elements that are written with all fields."""


def is_conference(text: bytes) -> bool:
    return text.endswith(NO_MEMBERS)


def encode(thing: Aggregate | Member) -> bytes:
    if type(thing) is Call and _is_long(thing.elements):
        kind, values_of = _shape(Call, "elements")
        return _encode(kind(*values_of(thing), _long_text(thing)))
    made: Any = type(thing)
    if _has_derived_fields(made):
        kind, values_of = _shape(made)
        return _encode(kind(*values_of(thing)))
    return _encode(thing)


@cache
def _has_derived_fields(kind: Any) -> bool:
    return len(persisted_fields(kind)) < len(fields(kind))


@cache
def _shape(kind: Any, *last: str) -> tuple[Callable[..., Any], Callable[[Any], tuple[Any, ...]]]:
    """Return a struct of the persisted fields, with `last` at the end, and a getter of the other fields' values."""
    names = [f.name for f in persisted_fields(kind) if f.name not in last]
    return msgspec.defstruct(f"{kind.__name__}ToWrite", [*names, *last], gc=False), attrgetter(*names)


def _is_long(elements: tuple[Element, ...]) -> bool:
    return len(elements) > FEW or any(type(e) is PreAnswer and len(e.children) > FEW for e in elements)


def _long_text(call: Call) -> Any:
    """Return the JSON of the call's elements, made once for each document: it takes some milliseconds."""
    if call.kept is None or call.kept[0] is not call.elements:
        call.kept = call.elements, msgspec.Raw(_encode(_brief(call.elements)))
    return call.kept[1]


def _brief(value: Any) -> Any:
    """Return the value without defaults, but with its class's name, which the remaining fields no longer imply."""
    if isinstance(value, tuple):
        return [_brief(one) for one in value]
    if not is_dataclass(value):
        return value
    brief: dict[str, Any] = {TYPE_TAG: type(value).__name__}
    for name, default in _defaults(cast(Any, type(value))):
        one = getattr(value, name)
        if one != default or type(one) is not type(default):
            brief[name] = _brief(one)
    return brief


@cache
def _defaults(kind: Any) -> tuple[tuple[str, Any], ...]:
    return tuple((f.name, f.default) for f in fields(kind))


def encode_without_members(conference: Conference) -> bytes:
    kind, values_of = _shape(Conference, "members")
    return _encode(kind(*values_of(conference), {}))


def merge_members(conference: bytes, members: Mapping[bytes, bytes]) -> bytes:
    """Return the complete JSON of a conference. `members`: id in digits -> JSON."""
    # `decode` rejects anything else that the field may hold.
    if not members or not is_conference(conference):
        return conference
    each = b",".join(b'"%b":%b' % (id, members[id]) for id in sorted(members, key=lambda id: (len(id), id)))
    return b"%b{%b}}" % (conference[: -len(b"{}}")], each)


def decode(text: bytes, shared: InternPool) -> Aggregate:
    """Decode a call or conference. `shared`: see `restore`. Raises KeyError, TypeError or ValueError."""
    for begins, kind in ROOT_TYPES.items():
        if text.startswith(begins):
            decoder, build = _large(cast(Any, kind))
            thing: Aggregate = build(decoder.decode(text), shared)
            return thing
    shot = msgspec.json.decode(text)
    # Earlier versions wrote the type.
    is_call = shot[TYPE_TAG] == "Call" if TYPE_TAG in shot else "call_uuid" in shot
    return restore(shot, Call, shared) if is_call else restore(shot, Conference, shared)


@cache
def _large(kind: Any) -> tuple[msgspec.json.Decoder[Any], Decoder]:
    shell, build = _mirror_struct(kind)
    return msgspec.json.Decoder(shell), build


@cache
def _mirror_struct(kind: Any) -> tuple[Any, Decoder]:
    """Return the struct that msgspec decodes the text to, and the function that makes a `kind` of it."""
    hints = get_type_hints(kind)
    shapes: list[tuple[str, Any, Any]] = []
    words: list[int] = []
    parts: list[tuple[int, Decoder]] = []
    for n, f in enumerate(persisted_fields(kind)):
        hint = hints[f.name]
        if _direct(hint):
            shape = hint
            if str in _plain(hint):
                words.append(n)
        elif get_origin(hint) is dict and is_dataclass(get_args(hint)[1]):
            key, large = get_args(hint)
            inner, build_inner = _mirror_struct(large)
            shape = dict[key, inner]  # type: ignore[valid-type]
            parts.append((n, _each(build_inner)))
        else:
            shape = msgspec.Raw
            parts.append((n, _by_its_text(field_decoder(hint))))
        shapes.append((f.name, shape, _default(f, shape)))
    # Keyword-only, because fields without a default may follow others.
    shell = msgspec.defstruct(f"{kind.__name__}AsWritten", shapes, kw_only=True, gc=False)
    values_of = msgspec.structs.astuple

    def build(written: Any, shared: InternPool) -> Any:
        values = list(values_of(written))
        for n in words:
            # The same ids and words occur in many places: each is kept once.
            if values[n] is not None:
                values[n] = intern(values[n])
        for n, read in parts:
            values[n] = read(values[n], shared)
        return kind(*values)

    return shell, build


def _default(field: Any, shape: Any) -> Any:
    """Return the default of a field that earlier versions did not write."""
    if field.default is MISSING and field.default_factory is MISSING:
        return msgspec.NODEFAULT
    if shape is msgspec.Raw:
        return msgspec.Raw(_encode(field.default_factory() if field.default is MISSING else field.default))
    return field.default if field.default is not MISSING else msgspec.field(default_factory=field.default_factory)


def _each(build: Decoder) -> Decoder:
    return lambda written, shared: {key: build(value, shared) for key, value in written.items()}


def _by_its_text(read: Decoder) -> Decoder:
    def read_text(raw: Any, shared: InternPool) -> Any:
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
    """Return a function that makes an equal value; None if that is no faster than decoding the text again."""
    if _frozen(value):
        return lambda: value
    if isinstance(value, list) and all(map(_frozen, value)):
        return lambda: [*value]
    if not is_dataclass(value):
        return None
    kind: Any = type(value)
    values = [getattr(value, f.name) for f in persisted_fields(kind)]
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
    """Return True if msgspec itself decodes this type, and rejects damaged values."""
    origin = get_origin(hint)
    if origin in (dict, Union, types.UnionType):
        return all(map(_direct, get_args(hint)))
    return origin is Literal or is_enum(hint) or hint in (str, int, bool, types.NoneType)
