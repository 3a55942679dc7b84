"""What Asterisk has now, for `core.reconcile`; and what a dead process has written, for the one that takes over."""

from __future__ import annotations

import asyncio
import csv
import gc
from collections.abc import AsyncIterable, Callable, Iterable, Mapping
from itertools import islice
from typing import Any
from urllib.parse import quote

import structlog

from ari_conf.ari.client import Client
from ari_conf.ari.translate import BRIDGE_NAME, recording_name
from ari_conf.core.call import Call
from ari_conf.core.conference import Conference
from ari_conf.core.events import CallArrived, ChannelHungUp, Event
from ari_conf.core.reconcile import Expected, There
from ari_conf.core.snapshot import Shared
from ari_conf.errors import AriError, AriNotFound
from ari_conf.written import decoded

log = structlog.get_logger()

AGAIN_S = 0.2
RESTORED_AT_ONCE = 200
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


class Restoring:
    """What a process before has written, read in parts: so that who has much to read is not late for all else."""

    def __init__(self) -> None:
        self._things: dict[str, Call | Conference] = {}
        self._next_member_id = b"1"
        self._shared: Shared = {}

    def read(self, state: Iterable[tuple[str, bytes]]) -> None:
        """What can't be read (another version wrote it) is left out."""
        for key, written in state:
            if key == NEXT_MEMBER_ID:
                self._next_member_id = written
                continue
            try:
                self._things[key] = decoded(written, self._shared)
            except (KeyError, TypeError, ValueError, RecursionError) as error:
                log.error("state can't be read: its call is taken for a new one", id=key, reason=repr(error))

    def found(self) -> tuple[list[Call], list[Conference], int]:
        """Calls, conferences, and the next member's id."""
        calls = [thing for thing in self._things.values() if isinstance(thing, Call)]
        conferences = [thing for thing in self._things.values() if isinstance(thing, Conference)]
        highest = max((id for conference in conferences for id in conference.members), default=0)
        written = self._next_member_id
        return calls, conferences, max(int(written) if written.isdigit() and len(written) < 19 else 1, highest + 1)


class Arriving:
    """Calls that come while it is still being found out what Asterisk has. They wait for that: the conference whose
    name they ask for may be one that died with Asterisk, and whose end is about to be told."""

    def __init__(self, deliver: Callable[[Event], None]) -> None:
        self._deliver = deliver
        self._comparisons = 0
        self._waiting: dict[str, CallArrived] = {}

    def begin(self) -> None:
        """One compares; comparisons may overlap."""
        self._comparisons += 1

    def end(self) -> None:
        self._comparisons -= 1
        if not self._comparisons:
            waiting, self._waiting = self._waiting, {}
            for event in waiting.values():
                self._deliver(event)

    def take(self, event: Event) -> None:
        if isinstance(event, CallArrived) and self._comparisons:
            # It may be told twice: by Asterisk, and as one of its channels.
            self._waiting.setdefault(event.channel_id, event)
            return
        if isinstance(event, ChannelHungUp):
            self._waiting.pop(event.channel_id, None)
        self._deliver(event)


def restored(state: Mapping[str, bytes]) -> tuple[list[Call], list[Conference], int]:
    """Calls, conferences, and the next member's id."""
    found = Restoring()
    found.read(state.items())
    return found.found()


async def restored_in_parts(state: AsyncIterable[Mapping[str, bytes]]) -> tuple[list[Call], list[Conference], int]:
    """As `restored`; others have their turn meanwhile, such as the lease's renewal."""
    found = Restoring()
    # Nothing of it is garbage: to look for some again and again would take a third of the time. Nor will there be much
    # later: it need not be looked at any more.
    gc.disable()
    try:
        async for mapping in state:
            items = iter(mapping.items())
            while part := list(islice(items, RESTORED_AT_ONCE)):
                found.read(part)
                await asyncio.sleep(0)
        return found.found()
    finally:
        gc.enable()
        gc.freeze()


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
