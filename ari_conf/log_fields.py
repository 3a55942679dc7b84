"""What of an event or an effect goes into the log: enough to follow a call or a conference by its ids, no secrets."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable
from dataclasses import fields
from functools import cache
from typing import Any, cast

import structlog

from ari_conf.core import effects as do
from ari_conf.core import events as ev
from ari_conf.core import ids
from ari_conf.core.effects import Effect, Target
from ari_conf.core.events import EffectFailed, Event
from ari_conf.logs import bare_urls

log = structlog.get_logger()

UNTOLD = {"digit", "digits", "params", "elements", "sounds", "sound", "headers", "account", "members", "callback"}
"""Digits and parameters are the caller's own affair; documents are long."""
WITHHELD = {"from_", "caller_name"}
"""Of one who arrives: it isn't known yet whether they want to be known."""
LOUD = (do.ReportProblem, ev.EffectFailed)
"""Told at every level but error: somebody may have to do something. The others, of which a call has some thirty, are
told at level debug; at info a call is one line (`call_log`)."""


def tell(kind: str, thing: Event | Effect, fields: dict[str, Any]) -> None:
    """One line for each event and each effect."""
    write = log.warning if isinstance(thing, do.ReportProblem) else log.info if isinstance(thing, LOUD) else log.debug
    write(type(thing).__name__, kind=kind, **fields)


def fields_of(thing: Event | Effect, whose: Callable[[str], dict[str, str]]) -> dict[str, Any]:
    """A line's fields. Phone numbers stand only in `from` and `to`; URLs are cut, whatever their field is called.
    `whose` tells the call and the conference of a channel. None, if the line is not written."""
    if not isinstance(thing, LOUD) and not log.is_enabled_for(logging.DEBUG):
        return {}
    if isinstance(thing, EffectFailed):
        return {"effect": type(thing.effect).__name__, "reason": thing.reason, **fields_of(thing.effect, whose)}
    found: dict[str, Any] = {}
    for name in _names(cast(Hashable, type(thing))):
        value = getattr(thing, name)
        if name in WITHHELD and isinstance(thing, ev.CallArrived):
            continue
        if isinstance(value, Target):
            found[f"{value.kind}_id"] = value.id
        elif value is not None and isinstance(value, str | int) and name not in UNTOLD:
            found[name.rstrip("_")] = bare_urls(value) if isinstance(value, str) else value
    owned = found.get("playback_id") or found.get("fetch_id")
    if owned and (call_uuid := ids.call_of(owned)):
        found["call_uuid"] = call_uuid
    if owned and (conference_id := ids.conference_of(owned)):
        found["conference_id"] = conference_id
    if "bridge_id" in found:
        found["conference_id"] = found.pop("bridge_id")
    if "channel_id" in found:
        found |= whose(found["channel_id"])
    return found


@cache
def _names(kind: Hashable) -> tuple[str, ...]:
    return tuple(f.name for f in fields(cast(Any, kind)))
