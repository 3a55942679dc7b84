"""What Asterisk has now, for `core.reconcile`; and what a dead process has written, for the one that takes over."""

from __future__ import annotations

import asyncio
import csv
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

import structlog

from ari_conf.ari.client import Client
from ari_conf.ari.translate import BRIDGE_NAME, recording_name
from ari_conf.core.call import Call
from ari_conf.core.conference import Conference
from ari_conf.core.reconcile import Expected, There
from ari_conf.core.snapshot import Shared
from ari_conf.errors import AriError, AriNotFound
from ari_conf.written import decoded

log = structlog.get_logger()

AGAIN_S = 0.2
NEXT_MEMBER_ID = "next_member_id"
"""Stands among the state; all other keys are ids of calls and conferences."""


async def look(ari: Client, expectations: list[Expected]) -> tuple[There, list[dict[str, Any]]]:
    """And its channels in full, for those that nobody knows. Asks until it is answered: it may still be starting."""
    channels, bridges = await asyncio.gather(_answer(ari, "/channels"), _answer(ari, "/bridges"))
    there = [e for e in expectations if e.kind in ("playback", "recording")]
    found = await asyncio.gather(*(_exists(ari, _path(e)) for e in there))
    kept = {(e.kind, e.id) for e, exists in zip(there, found, strict=True) if exists}
    return There(
        channels={channel["id"]: channel.get("state") == "Up" for channel in channels},
        bridges={bridge["id"]: frozenset(bridge.get("channels", ())) for bridge in bridges},
        playbacks=frozenset(id for kind, id in kept if kind == "playback"),
        recordings=frozenset(id for kind, id in kept if kind == "recording"),
    ), channels


async def ours(ari: Client, app: str) -> set[str]:
    """The bridges that this application made: by their name, and by whom Asterisk tells of them."""
    bridges = await _answer(ari, "/bridges")
    try:
        told = set((await ari.request("GET", f"/applications/{quote(app, safe='')}")).get("bridge_ids", ()))
    except AriError:
        return set()
    return {bridge["id"] for bridge in bridges if bridge.get("name") == BRIDGE_NAME and bridge["id"] in told}


def arrivals(channels: Iterable[Mapping[str, Any]], app: str, known: set[str]) -> list[dict[str, Any]]:
    """StasisStart, as Asterisk would have told it, for calls that came while nobody listened."""
    found = []
    for channel in channels:
        dialplan = channel.get("dialplan", {})
        if channel["id"] in known or dialplan.get("app_name") != "Stasis":
            continue
        name, *args = next(csv.reader([dialplan.get("app_data", "")]), [""])
        if name == app:
            found.append({"type": "StasisStart", "args": args, "channel": dict(channel)})
    return found


def restored(state: Mapping[str, bytes]) -> tuple[list[Call], list[Conference], int]:
    """Calls, conferences, and the next member's id. What can't be read (another version wrote it) is left out."""
    calls: list[Call] = []
    conferences: list[Conference] = []
    shared: Shared = {}
    for key, written in state.items():
        if key == NEXT_MEMBER_ID:
            continue
        try:
            thing = decoded(written, shared)
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            log.error("state can't be read: its call is taken for a new one", id=key, reason=repr(error))
        else:
            calls.append(thing) if isinstance(thing, Call) else conferences.append(thing)
    highest = max((id for conference in conferences for id in conference.members), default=0)
    written = state.get(NEXT_MEMBER_ID, b"1")
    return calls, conferences, max(int(written) if written.isdigit() and len(written) < 19 else 1, highest + 1)


async def _answer(ari: Client, path: str) -> Any:
    while True:
        try:
            return await ari.request("GET", path)
        except AriError as error:
            # It connects before it has started to its end.
            log.info("asterisk does not answer yet", path=path, reason=str(error))
            await asyncio.sleep(AGAIN_S)


async def _exists(ari: Client, path: str) -> bool:
    try:
        await ari.request("GET", path)
    except AriNotFound:
        return False
    except AriError as error:
        log.warning("taken for still there", path=path, reason=str(error))
    return True


def _path(one: Expected) -> str:
    if one.kind == "playback":
        return f"/playbacks/{quote(one.id, safe='')}"
    return f"/recordings/live/{quote(recording_name(one.auth_id, one.id), safe='')}"
