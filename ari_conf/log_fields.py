"""What of an event or an effect goes into the log: enough to follow a call or a conference by its ids, no secrets."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import fields
from functools import cache
from typing import Any, cast

from ari_conf.core import ids
from ari_conf.core.effects import Effect, Target
from ari_conf.core.events import EffectFailed, Event

UNTOLD = {"digit", "digits", "params", "elements", "sounds", "sound", "headers", "account", "members", "callback"}
"""Digits and parameters are the caller's own affair; documents are long."""


def fields_of(thing: Event | Effect, whose: Callable[[str], dict[str, str]]) -> dict[str, Any]:
    """A line's fields. Phone numbers stand only in `from_` and `to`, URLs only in `url` and `source`, without query.
    `whose` tells the call and the conference of a channel."""
    if isinstance(thing, EffectFailed):
        return {"effect": type(thing.effect).__name__, "reason": thing.reason, **fields_of(thing.effect, whose)}
    found: dict[str, Any] = {}
    for name in _names(cast(Hashable, type(thing))):
        value = getattr(thing, name)
        if isinstance(value, Target):
            found[f"{value.kind}_id"] = value.id
        elif value is not None and isinstance(value, str | int) and name not in UNTOLD:
            address = isinstance(value, str) and name in ("url", "source", "document")
            found[name] = str(value).partition("?")[0] if address else value
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
