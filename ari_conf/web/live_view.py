"""Live view: the account's conferences as the event stream sends them, and the changes between two views.

A view is plain JSON: conference_uuid -> `ConferenceView.to_live()`, for each conference with members. A change has the
same shape and holds only differences: null instead of a conference or a member means that it no longer exists; other
fields replace the old ones.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ari_conf.web.conference_view import ConferenceView

View = dict[str, Any]
Change = dict[str, Any]


def build_view(conferences: Iterable[ConferenceView]) -> View:
    return {each.conference_uuid: each.to_live() for each in conferences if each.members}


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
