"""State codec: calls, conferences and members as JSON, by msgspec.

The field `type` of a record says which class it is of. `store.members` keeps the members apart from their conference.
Values that many records have in common (ids, documents, sounds, accounts) are in memory once.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from functools import cache
from sys import intern
from typing import Any, cast

import msgspec

from ari_conf.core.calls.call import Call
from ari_conf.core.conferences.conference import Conference
from ari_conf.core.frozen import Frozen

Aggregate = Call | Conference
ValuePool = dict[Hashable, Any]
"""Immutable values that records have in common, each with itself as the key."""
MAX_POOLED = 50_000
"""Maximum values in a pool: pooling is useless where all of them differ."""
SMALL = (
    msgspec.inspect.BoolType,
    msgspec.inspect.EnumType,
    msgspec.inspect.IntType,
    msgspec.inspect.LiteralType,
    msgspec.inspect.NoneType,
)
NO_MEMBERS = b',"members":{}}'

encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder[Aggregate](cast(Any, Aggregate)).decode


class _Kind(msgspec.Struct):
    type: str


_decode_kind = msgspec.json.Decoder(_Kind).decode


def is_conference(text: bytes) -> bool:
    """Return True if a record says that it is a conference's; its other values may be damaged."""
    try:
        return _decode_kind(text).type == Conference.__name__
    except (ValueError, RecursionError):
        return False


def encode_without_members(conference: Conference) -> bytes:
    members, conference.members = conference.members, {}
    try:
        return encode(conference)
    finally:
        conference.members = members


def merge_members(conference: bytes, members: Mapping[bytes, bytes]) -> bytes:
    """Return the complete JSON of a conference. `members`: id in digits -> JSON."""
    # `decode` rejects anything else that the field may hold.
    if not members or not conference.endswith(NO_MEMBERS):
        return conference
    each = b",".join(b'"%b":%b' % (id, members[id]) for id in sorted(members, key=lambda id: (len(id), id)))
    return b"%b{%b}}" % (conference[: -len(b"{}}")], each)


def decode(text: bytes, pool: ValuePool) -> Aggregate:
    """Decode a call or conference. Records that are decoded with the same pool share equal immutable values.

    Raises TypeError, ValueError or RecursionError if the text is not such a record.
    """
    thing: Aggregate = _decode(text)
    if len(pool) > MAX_POOLED:
        pool.clear()
    _share_fields(thing, pool)
    return thing


def _share_fields(thing: msgspec.Struct, pool: ValuePool) -> None:
    for name in _shared_fields(type(thing)):
        value = getattr(thing, name)
        kind = type(value)
        if kind is str:
            setattr(thing, name, intern(value))
        elif not value:
            continue
        elif kind is dict:
            for each in value.values():
                if isinstance(each, msgspec.Struct):
                    _share_fields(each, pool)
        elif kind is list:
            value[:] = [_pooled(each, pool) for each in value]
        elif kind is tuple or isinstance(value, Frozen):
            setattr(thing, name, _pooled(value, pool))
        elif isinstance(value, msgspec.Struct):
            _share_fields(value, pool)


@cache
def _shared_fields(kind: type[msgspec.Struct]) -> tuple[str, ...]:
    """Return the names of the fields whose values are not always numbers or words of a fixed set."""
    return tuple(f.name for f in msgspec.structs.fields(kind) if not _is_small(msgspec.inspect.type_info(f.type)))


def _is_small(kind: msgspec.inspect.Type) -> bool:
    if isinstance(kind, msgspec.inspect.UnionType):
        return all(map(_is_small, kind.types))
    return isinstance(kind, SMALL)


def _pooled(value: Any, pool: ValuePool) -> Any:
    """Return the pool's value that equals this one, or the value itself if it is mutable or small."""
    kind = type(value)
    if kind is str:
        return intern(value)
    if kind is not tuple and not isinstance(value, Frozen):
        return value
    found = pool.get(value)
    if found is None:
        found = pool[value] = tuple([_pooled(each, pool) for each in value]) if kind is tuple else value
    return found
