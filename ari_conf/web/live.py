"""What the page shows of an account's conferences: made from the state that their owners write, and kept up to date
by changes.

A view is plain JSON: conference_uuid -> {"conference_uuid", "conference_name", "started", "locked", "created_ms",
"recording": {"recording_id", "since_ms"} | null, "members": member_id -> {"call_uuid", "from", "to", "caller_name",
"joined_ms", "state": "waiting" | "in" | "held", "muted", "deaf", "held", "talking", "floor"}}. Times are epoch
milliseconds, ids strings.

A change has the same shape, and holds only what is different: null in place of a conference or of a member says that
it is gone; other fields replace what was.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
import structlog

log = structlog.get_logger()

Shot = Mapping[str, Any]
"""Of a conference or a call, as `core.snapshot` writes it."""
View = dict[str, Any]
Change = dict[str, Any]

NOT_IN = ("arriving", "leaving")
OUTSIDE = {"waiting": "waiting", "held": "held", "parting": "held"}
"""Of those who are in the conference, and not in the mix."""


class _Member(msgspec.Struct):
    """What is shown of a member: state in which this is not there, or is something else, is of another version."""

    member_id: int
    call_uuid: str
    state: str
    joined_at: int
    muted: bool
    deaf: bool
    held: bool
    talking: bool


class _Recording(msgspec.Struct):
    recording_id: str
    state: str
    started_at: int | None


class _Conference(msgspec.Struct):
    conference_id: str
    auth_id: str
    name: str
    created_at: int
    started: bool
    locked: bool
    ending: bool
    floor: int | None
    recording: _Recording | None
    members: dict[str, _Member]


class _Call(msgspec.Struct):
    """Of a call: its document, which may be long, is passed over."""

    from_: str
    to: str
    caller_name: str
    direction: str


def readable(text: bytes | None) -> Shot | None:
    """A conference; None if there is none, or it can't be read: that costs it and no other."""
    return _decoded(text, _Conference)


def call(text: bytes | None) -> Shot | None:
    """Of a member's call what is shown; None likewise."""
    return _decoded(text, _Call)


def _decoded(text: bytes | None, kind: type[msgspec.Struct]) -> Shot | None:
    if text is None:
        return None
    try:
        found: Shot = msgspec.to_builtins(msgspec.json.decode(text, type=kind))
    except (msgspec.MsgspecError, RecursionError) as error:
        log.warning("state can't be read: it is not shown", of=kind.__name__.strip("_"), reason=str(error))
        return None
    return found


def view(conferences: Iterable[tuple[Shot, Mapping[str, Shot]]]) -> View:
    """Of each conference its snapshot, and those of its members' calls by call uuid."""
    shown = (conference(shot, calls) for shot, calls in conferences)
    return {one["conference_uuid"]: one for one in shown if one is not None}


def conference(shot: Shot, calls: Mapping[str, Shot]) -> View | None:
    """None: it is not to be shown (any more)."""
    shown = present(shot)
    members = {str(m["member_id"]): _member(m, calls[m["call_uuid"]], shot) for m in shown if m["call_uuid"] in calls}
    if not members:
        return None
    return {
        "conference_uuid": shot["conference_id"],
        "conference_name": shot["name"],
        "started": shot["started"],
        "locked": shot["locked"],
        "created_ms": shot["created_at"],
        "recording": _recording(shot["recording"]),
        "members": members,
    }


def present(shot: Shot) -> list[Shot]:
    """Those who are in a conference, unless it is ending."""
    return [] if shot["ending"] else [m for m in shot["members"].values() if m["state"] not in NOT_IN]


def _recording(shot: Shot | None) -> View | None:
    if shot is None or shot["state"] != "running":
        return None
    return {"recording_id": shot["recording_id"], "since_ms": shot["started_at"]}


def _member(member: Shot, call: Shot, of: Shot) -> View:
    return {
        "call_uuid": member["call_uuid"],
        "from": call["from_"].removeprefix("+"),
        "to": call["to"].removeprefix("+"),
        "caller_name": call["caller_name"],
        "joined_ms": member["joined_at"],
        "state": OUTSIDE.get(member["state"], "in"),
        "muted": member["muted"],
        "deaf": member["deaf"],
        "held": member["held"],
        # Nobody hears one who is muted, or out of the mix.
        "talking": member["talking"] and not member["muted"] and member["state"] == "mixed",
        "floor": of["floor"] == member["member_id"],
    }


def difference(old: View, new: View) -> Change:
    """Empty: there is none."""
    return _changed(old, new, _conference_changed)


def apply(view: View, change: Change) -> View:
    """The view after the change; the one before stays as it was."""
    return _applied(view, change, _conference_applied)


def _conference_changed(old: View, new: View) -> Change:
    fields = _fields_changed(old, new)
    members = _changed(old.get("members", {}), new["members"], _fields_changed)
    return fields | ({"members": members} if members else {})


def _conference_applied(old: View, change: Change) -> View:
    members = _applied(old.get("members", {}), change.get("members", {}), lambda was, fields: was | fields)
    return old | change | {"members": members}


def _fields_changed(old: View, new: View) -> Change:
    return {name: value for name, value in new.items() if name != "members" and (name not in old or old[name] != value)}


def _changed(old: View, new: View, inside: Any) -> Change:
    change: Change = {key: None for key in old if key not in new}
    for key, value in new.items():
        if found := inside(old.get(key, {}), value):
            change[key] = found
    return change


def _applied(old: View, change: Change, inside: Any) -> View:
    kept = {key: value for key, value in old.items() if change.get(key, {}) is not None}
    return kept | {key: inside(old.get(key, {}), value) for key, value in change.items() if value is not None}
