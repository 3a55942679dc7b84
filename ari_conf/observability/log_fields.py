"""Log fields of events and effects: enough to follow a call or a conference by its ids, but no secrets."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import structlog

from ari_conf.core import effects as do
from ari_conf.core import events as ev
from ari_conf.core import ids
from ari_conf.core.commands import ForAccount, ForCall, ForConference
from ari_conf.core.effects import Effect, Target
from ari_conf.core.events import EffectFailed, Event
from ari_conf.core.ids import OwnerKind
from ari_conf.observability.log_setup import bare_urls

log = structlog.get_logger()

OMITTED_FIELDS = {
    "digit",
    "digits",
    "params",
    "elements",
    "sounds",
    "sound",
    "headers",
    "account",
    "members",
    "callback",
}
"""Fields that are not logged: digits and parameters are private to the caller, documents are long."""
WITHHELD = {"from_", "caller_name"}
"""Fields that are not logged when a call arrives: it is not known yet whether the caller withholds them."""
RENAMED_FIELDS = {"kind": "problem_kind"}
"""Names in the log of fields whose own name has another meaning there: `kind` is "event" or "effect"."""
OWNED_IDS = "playback_id", "fetch_id", "bridge_id", "source_id"
"""Fields with an id that names its owner."""
NOTABLE = (do.ReportProblem, ev.EffectFailed)
"""Types that are logged above level debug, because an operator may have to act: problems at warning, failures at info.
The others, some thirty for each call, are logged at debug; at info a call is one line (`call_log`)."""


def log_item(kind: str, thing: Event | Effect, fields: dict[str, Any]) -> None:
    """Log one line for an event or an effect."""
    write = (
        log.warning if isinstance(thing, do.ReportProblem) else log.info if isinstance(thing, NOTABLE) else log.debug
    )
    write(type(thing).__name__, kind=kind, **fields)


def fields_of(thing: Event | Effect, context_of: Callable[[str], dict[str, str]]) -> dict[str, Any]:
    """Return the fields of an event's or effect's line; empty if the line is not logged.

    Phone numbers are only in `from` and `to`; URLs are cut, whatever their field is called. `context_of` returns the
    ids of a channel's call and conference."""
    if not isinstance(thing, NOTABLE) and not log.is_enabled_for(logging.DEBUG):
        return {}
    if isinstance(thing, EffectFailed):
        return {"effect": type(thing.effect).__name__, "reason": thing.reason, **fields_of(thing.effect, context_of)}
    found: dict[str, Any] = {}
    for name in type(thing).__struct_fields__:
        value = getattr(thing, name)
        if name in WITHHELD and isinstance(thing, ev.CallArrived):
            continue
        if isinstance(value, ForConference):
            found |= {"auth_id": value.auth_id, "conference_name": value.name}
        elif isinstance(value, ForCall):
            found |= {"auth_id": value.auth_id, "call_uuid": value.call_uuid}
        elif isinstance(value, ForAccount):
            found["auth_id"] = value.auth_id
        elif isinstance(value, Target):
            found[f"{value.kind}_id"] = value.id
        elif value is not None and isinstance(value, str | int) and name not in OMITTED_FIELDS:
            found[RENAMED_FIELDS.get(name, name.rstrip("_"))] = bare_urls(value) if isinstance(value, str) else value
    owned = ids.parse(next((found[name] for name in OWNED_IDS if found.get(name)), ""))
    if owned is not None:
        found["call_uuid" if owned.kind is OwnerKind.CALL else "conference_id"] = owned.owner
    if "channel_id" in found:
        found |= context_of(found["channel_id"])
    return found
