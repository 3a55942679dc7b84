"""Ids that name their owner.

A playback's or a fetch's id begins with whom it is for, so that what comes back finds its way without a table of what
is outstanding: `c.CALL.…` a call, `m.CONFERENCE.MEMBER.…` a member, `b.CONFERENCE.…` a whole conference.
"""

from __future__ import annotations


def for_call(call_uuid: str, *rest: object) -> str:
    return ".".join(("c", call_uuid, *map(str, rest)))


def for_member(conference_id: str, member_id: int, *rest: object) -> str:
    return ".".join(("m", conference_id, str(member_id), *map(str, rest)))


def for_conference(conference_id: str, *rest: object) -> str:
    return ".".join(("b", conference_id, *map(str, rest)))


def owner_of(owned_id: str) -> tuple[str, str]:
    """ "c" and the call, or another letter and the conference that the id belongs to."""
    kind, _, rest = owned_id.partition(".")
    return kind, rest.partition(".")[0]


def call_of(owned_id: str) -> str | None:
    """The call that the id belongs to, None if it is not a call's."""
    kind, _, rest = owned_id.partition(".")
    return rest.partition(".")[0] if kind == "c" else None


def conference_of(owned_id: str) -> str | None:
    kind, _, rest = owned_id.partition(".")
    return rest.partition(".")[0] if kind in ("m", "b") else None


def member_of(owned_id: str) -> int | None:
    parts = owned_id.split(".")
    return int(parts[2]) if parts[0] == "m" and len(parts) > 2 and parts[2].isdigit() else None


def last_part(owned_id: str) -> str:
    return owned_id.rpartition(".")[2]
