"""Ids that name their owner.

The id of a playback or fetch begins with its owner, so that the result finds the owner without a table of outstanding
requests: `c.CALL.…` for a call, `m.CONFERENCE.MEMBER.…` for a member, `b.CONFERENCE.…` for a whole conference.
"""

from __future__ import annotations


def for_call(call_uuid: str, *rest: object) -> str:
    return ".".join(("c", call_uuid, *map(str, rest)))


def for_member(conference_id: str, member_id: int, *rest: object) -> str:
    return ".".join(("m", conference_id, str(member_id), *map(str, rest)))


def for_conference(conference_id: str, *rest: object) -> str:
    return ".".join(("b", conference_id, *map(str, rest)))


def owner_of(owned_id: str) -> tuple[str, str]:
    """Return the owner of the id: "c" and the call's UUID, or another letter and the conference's id."""
    kind, _, rest = owned_id.partition(".")
    return kind, rest.partition(".")[0]


def call_of(owned_id: str) -> str | None:
    """Return the UUID of the call that the id belongs to, or None if no call owns it."""
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
