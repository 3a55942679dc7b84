"""Live view: the conferences of an account as the dashboard shows them. It is built from the state that their owners
write, and updated by changes.

A view is plain JSON: conference_uuid -> {"conference_uuid", "conference_name", "started", "locked", "created_ms",
"recording": {"recording_id", "since_ms"} | null, "members": member_id -> {"call_uuid", "from", "to", "caller_name",
"joined_ms", "state": "waiting" | "in" | "held", "muted", "deaf", "held", "talking", "floor"}}. Times are epoch
milliseconds, ids strings.

A change has the same shape and holds only differences: null instead of a conference or a member means that it no longer
exists; other fields replace the old ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
import structlog

from ari_conf.core.conferences.member_state import MemberState
from ari_conf.core.conferences.recording import RecordingState

log = structlog.get_logger()

StateRecord = Mapping[str, Any]
"""Persisted conference or call, as `core.snapshot` writes it."""
View = dict[str, Any]
Change = dict[str, Any]

NOT_IN = (MemberState.AWAITING_NAME, MemberState.LEAVING)
OUTSIDE = {MemberState.WAITING: "waiting", MemberState.ON_HOLD: "held", MemberState.LEAVING_FOR_HOLD: "held"}
"""State of a member who is in the conference but not in the mix -> state in the view."""


class _Member(msgspec.Struct):
    """Fields of a member that the view needs. State without them, or with other types, is from another version."""

    member_id: int
    call_uuid: str
    state: str
    joined_at: int
    muted: bool
    deaf: bool
    hold_requested: bool
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
    recordings: dict[str, _Recording]
    members: dict[str, _Member]


class _Call(msgspec.Struct):
    """Fields of a call that the view needs. The decoder skips the others, such as the document, which may be long."""

    from_: str
    to: str
    caller_name: str
    direction: str


def readable(text: bytes | None) -> StateRecord | None:
    """Return a decoded conference, or None if `text` is None or can't be read. Other conferences are still shown."""
    return _decoded(text, _Conference)


def call(text: bytes | None) -> StateRecord | None:
    """Return the decoded call of a member, or None if `text` is None or can't be read."""
    return _decoded(text, _Call)


def _decoded(text: bytes | None, kind: type[msgspec.Struct]) -> StateRecord | None:
    if text is None:
        return None
    try:
        found: StateRecord = msgspec.to_builtins(msgspec.json.decode(text, type=kind))
    except (msgspec.MsgspecError, RecursionError) as error:
        of = kind.__name__.strip("_")
        log.warning("state record unreadable", of=of, reason=str(error), action="not shown")
        return None
    return found


def build_view(conferences: Iterable[tuple[StateRecord, Mapping[str, StateRecord]]]) -> View:
    """Return the view of (conference, calls of its members by call uuid) pairs."""
    shown = (build_conference(shot, calls) for shot, calls in conferences)
    return {one["conference_uuid"]: one for one in shown if one is not None}


def build_conference(shot: StateRecord, calls: Mapping[str, StateRecord]) -> View | None:
    """Return the view of one conference, or None if it has no members to show."""
    shown = present_members(shot)
    members = {str(m["member_id"]): _member(m, calls[m["call_uuid"]], shot) for m in shown if m["call_uuid"] in calls}
    if not members:
        return None
    return {
        "conference_uuid": shot["conference_id"],
        "conference_name": shot["name"],
        "started": shot["started"],
        "locked": shot["locked"],
        "created_ms": shot["created_at"],
        "recording": _recording(shot["recordings"]),
        "members": members,
    }


def present_members(shot: StateRecord) -> list[StateRecord]:
    """Return the members who are in the conference; none if it is ending."""
    return [] if shot["ending"] else [m for m in shot["members"].values() if m["state"] not in NOT_IN]


def _recording(recordings: Mapping[str, StateRecord]) -> View | None:
    for shot in recordings.values():
        if shot["state"] in (RecordingState.REQUESTED, RecordingState.RUNNING):
            return {"recording_id": shot["recording_id"], "since_ms": shot["started_at"]}
    return None


def _member(member: StateRecord, call: StateRecord, of: StateRecord) -> View:
    return {
        "call_uuid": member["call_uuid"],
        "from": call["from_"].removeprefix("+"),
        "to": call["to"].removeprefix("+"),
        "caller_name": call["caller_name"],
        "joined_ms": member["joined_at"],
        "state": OUTSIDE.get(member["state"], "in"),
        "muted": member["muted"],
        "deaf": member["deaf"],
        "held": member["hold_requested"],
        # Other members don't hear a member who is muted or not in the mix.
        "talking": member["talking"] and not member["muted"] and member["state"] == MemberState.IN_BRIDGE,
        "floor": of["floor"] == member["member_id"],
    }


def diff(old: View, new: View) -> Change:
    """Return the change that turns `old` into `new`; it is empty if they are equal."""
    return _changed(old, new, _conference_changed)


def apply_change(view: View, change: Change) -> View:
    """Return the view after the change. `view` itself is not modified."""
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
