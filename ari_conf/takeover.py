"""What Asterisk has now, for `core.reconcile`; and what a dead process has written, for the one that takes over."""

from __future__ import annotations

import asyncio
import csv
import gc
from collections.abc import AsyncIterable, AsyncIterator, Callable, Container, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar
from urllib.parse import quote

import msgspec
import structlog

from ari_conf.ari.client import Client
from ari_conf.ari.translate import BRIDGE_NAME, NO_CALLS, recording_name
from ari_conf.core.call import Call
from ari_conf.core.conference import Conference
from ari_conf.core.directory import Directory
from ari_conf.core.events import CallArrived, ChannelHungUp, Event
from ari_conf.core.reconcile import Expected, There
from ari_conf.core.reconcile_parts import expected_of_each
from ari_conf.core.snapshot import Shared
from ari_conf.errors import AriError, AriNotFound, AriUnreachable, StoreUnavailable
from ari_conf.store import Store
from ari_conf.supervision import for_each
from ari_conf.written import decoded

log = structlog.get_logger()

T = TypeVar("T")
AGAIN_S = 0.2
REDIS_AGAIN_S = 0.5
ASKED_AT_ONCE = 8
"""Playbacks and recordings: of the connections to Asterisk half are left for calls."""
EXISTS_TRIES = 5
"""For one playback or recording; then it is taken for still there until the next comparison."""
READ_AT_ONCE, RESTORED_AT_ONCE, LOOKED_AT_AT_ONCE = 200, 2000, 1000
NEXT_MEMBER_ID = "next_member_id"
"""Stands among the state; all other keys are ids of calls and conferences."""


class Dialplan(msgspec.Struct):
    app_name: str = ""
    app_data: str = ""


class Channel(msgspec.Struct):
    """Of what Asterisk tells of one, what is needed of all of them."""

    id: str
    state: str = ""
    dialplan: Dialplan = msgspec.field(default_factory=Dialplan)


class Bridge(msgspec.Struct):
    id: str
    name: str = ""
    channels: list[str] = []


@dataclass(frozen=True, slots=True)
class Seen:
    there: There
    arrived: list[dict[str, Any]]
    """Channels of the application that nobody knows, in full."""
    named: frozenset[str]
    """The bridges that have this application's name."""
    untold: frozenset[str] = frozenset()
    """Channels of the application that nobody knows, and of which Asterisk can't tell: see `channels`."""


async def expected(directory: Directory, busy: Callable[[str], bool]) -> dict[str, list[Expected]]:
    """By whose it is; unsure of channels and bridges that are `busy`: effects are just changing them."""
    found: dict[str, list[Expected]] = {}
    for key, expectations in expected_of_each(directory):
        found[key] = [e.unsure() if busy(e.lane) else e for e in expectations]
        if len(found) % LOOKED_AT_AT_ONCE == 0:
            await asyncio.sleep(0)
    return found


async def look(
    ari: Client, before: Mapping[str, list[Expected]], app: str, known: Container[str], *, patient: bool = True
) -> Seen:
    """`known`: the channels of the calls that there are. `patient`: asks until it is answered, since Asterisk may still
    be starting; else raises AriError."""
    expected_there = [e.id for expectations in before.values() for e in expectations if e.kind == "channel"]
    (channels, untold), bridges = await asyncio.gather(
        _channels(ari, app, expected_there, patient=patient), _answer(ari, "/bridges", patient=patient)
    )
    asked = [e for expectations in before.values() for e in expectations if e.kind in ("playback", "recording")]
    kept = await _kept(ari, asked)
    # What can't be told of a call is of no matter: it is there.
    answered: dict[str, bool] = dict.fromkeys(untold, True)
    arrived: list[dict[str, Any]] = []
    async for raw, channel in _each(channels, Channel):
        answered[channel.id] = channel.state == "Up"
        if channel.id not in known and _is_for(app, channel):
            arrived.append(msgspec.json.decode(raw))
    seen = [bridge async for _, bridge in _each(bridges, Bridge)]
    there = There(
        channels=answered,
        bridges={bridge.id: frozenset(bridge.channels) for bridge in seen},
        playbacks=frozenset(id for kind, id in kept if kind == "playback"),
        recordings=frozenset(id for kind, id in kept if kind == "recording"),
    )
    named = frozenset(bridge.id for bridge in seen if bridge.name == BRIDGE_NAME)
    return Seen(there, arrived, named, frozenset(id for id in untold if id not in known))


async def _channels(
    ari: Client, app: str, expected_there: Iterable[str], *, patient: bool
) -> tuple[list[msgspec.Raw], list[str]]:
    """All channels; and the ids of those of which Asterisk can't tell."""
    while True:
        try:
            return await _answer(ari, "/channels", patient=False), []
        except AriUnreachable as error:
            if not patient:
                raise
            log.info("asterisk does not answer yet", path="/channels", reason=str(error))
        except AriError as error:
            if (told := await spoiled_list(ari, app, error, expected_there)) is not None:
                return told
            if not patient:
                raise
            log.info("asterisk does not answer yet", path="/channels", reason=str(error))
        await asyncio.sleep(AGAIN_S)


async def spoiled_list(
    ari: Client, app: str, error: AriError, expected_there: Iterable[str] = ()
) -> tuple[list[msgspec.Raw], list[str]] | None:
    """What `one_by_one` finds, if `error` means that a channel whose number, name or Call-ID is no UTF-8 has spoiled
    the list of all: 500, "Allocation failed" (seen on 22.10.1). It asks for the application's and those expected."""
    if error.status != 500 or (own := await of_application(ari, app)) is None:
        return None
    log.warning("asterisk can't list its channels: they are asked for one by one", reason=str(error))
    return await one_by_one(ari, {*own, *expected_there})


async def of_application(ari: Client, app: str) -> list[str] | None:
    """The ids of the channels that are in it; None if Asterisk does not say."""
    try:
        told = await ari.request("GET", f"/applications/{quote(app, safe='')}")
    except AriError:
        return None
    ids = told.get("channel_ids") if isinstance(told, dict) else None
    return [id for id in ids if isinstance(id, str)] if isinstance(ids, list) else None


async def one_by_one(ari: Client, ids: Iterable[str]) -> tuple[list[msgspec.Raw], list[str]]:
    """Those that are there; and those of which Asterisk can't tell. Raises AriUnreachable."""
    found: list[msgspec.Raw] = []
    untold: list[str] = []

    async def ask(id: str) -> None:
        try:
            raw = await ari.request("GET", f"/channels/{quote(id, safe='')}", kind=msgspec.Raw)
        except AriNotFound:
            return
        except AriUnreachable:
            raise
        except AriError:
            raw = None
        if raw:
            found.append(raw)
        else:
            untold.append(id)

    await for_each(ids, ask, ASKED_AT_ONCE)
    return found, untold


async def _each(raws: list[msgspec.Raw], kind: type[T]) -> AsyncIterator[tuple[msgspec.Raw, T]]:
    decoder = msgspec.json.Decoder(kind)
    for n, raw in enumerate(raws):
        if n % LOOKED_AT_AT_ONCE == 0:
            await asyncio.sleep(0)
        yield raw, decoder.decode(raw)


async def ours(ari: Client, app: str, named: frozenset[str]) -> frozenset[str]:
    """The bridges that this application made: by their name, and by whom Asterisk tells of them."""
    try:
        told = await ari.request("GET", f"/applications/{quote(app, safe='')}")
    except AriError:
        return frozenset()
    return named & set(told.get("bridge_ids", ()))


def is_for(app: str, told: Mapping[str, Any]) -> bool:
    """A channel, as Asterisk tells of it, is one of this application's calls."""
    other = str(told.get("name", "")).startswith(NO_CALLS)
    return not other and _is_for(app, msgspec.convert(told, Channel))


def _is_for(app: str, channel: Channel) -> bool:
    return channel.dialplan.app_name == "Stasis" and _arguments(channel.dialplan.app_data)[0] == app


def _arguments(app_data: str) -> list[str]:
    return next(csv.reader([app_data]), [""])


def arrivals(channels: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """StasisStart, as Asterisk would have told it, for calls that came while nobody listened."""
    return [
        {"type": "StasisStart", "args": _arguments(channel["dialplan"]["app_data"])[1:], "channel": dict(channel)}
        for channel in channels
    ]


class Restoring:
    """What a process before has written, read in parts: so that who has much to read is not late for all else."""

    def __init__(self) -> None:
        self._things: dict[str, Call | Conference] = {}
        self._next_member_id = b"1"
        self._shared: Shared = {}
        self.unreadable: dict[str, bytes] = {}
        """Left out, since another version wrote them or they are damaged."""

    def read(self, state: Iterable[tuple[str, bytes]]) -> None:
        """Of what is not left out each is whole."""
        for key, written in state:
            if key == NEXT_MEMBER_ID:
                self._next_member_id = written
                continue
            try:
                thing = decoded(written, self._shared)
                if key != (thing.call_uuid if isinstance(thing, Call) else thing.conference_id):
                    raise ValueError("it is kept under another's id")
                self._things[key] = thing
                self.unreadable.pop(key, None)
            except (KeyError, TypeError, ValueError, RecursionError) as error:
                if key not in self._things and key not in self.unreadable:
                    self.unreadable[key] = written
                    log.error("state can't be read: its call or conference is ended", id=key, reason=repr(error)[:300])

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

    @property
    def waits(self) -> bool:
        return self._comparisons > 0

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


async def restore(store: Store, directory: Directory) -> dict[str, bytes]:
    """What the process before us has written; then `Directory.restored` is to be called. Returns what can't be read:
    id -> text."""
    while True:
        found = Restoring()
        try:
            calls, conferences, next_member_id = await restored_in_parts(store.parts(), found)
            break
        except StoreUnavailable as error:
            # Without it we would take the calls that are there for new ones.
            log.error("waiting for redis, which has the calls' state", reason=str(error))
            await asyncio.sleep(REDIS_AGAIN_S)
    for first in range(0, max(len(calls), len(conferences)), RESTORED_AT_ONCE):
        part = slice(first, first + RESTORED_AT_ONCE)
        directory.restore(calls[part], conferences[part], next_member_id)
        await asyncio.sleep(0)
    if calls or conferences:
        log.info("taking over", calls=len(calls), conferences=len(conferences))
    return found.unreadable


async def restored_in_parts(
    state: AsyncIterable[Mapping[str, bytes]], found: Restoring | None = None
) -> tuple[list[Call], list[Conference], int]:
    """As `restored`; others have their turn meanwhile, such as the lease's renewal."""
    found = found or Restoring()
    # Nothing of it is garbage: to look for some again and again would take a third of the time. Nor will there be much
    # later: it need not be looked at any more.
    gc.disable()
    try:
        async for mapping in state:
            items = iter(mapping.items())
            while part := list(islice(items, READ_AT_ONCE)):
                found.read(part)
                await asyncio.sleep(0)
        return found.found()
    finally:
        gc.enable()
        gc.freeze()


async def _answer(ari: Client, path: str, *, patient: bool) -> list[msgspec.Raw]:
    while True:
        try:
            found: list[msgspec.Raw] | None = await ari.request("GET", path, kind=list[msgspec.Raw])
            if found is not None:
                return found
            raise AriError(f"Asterisk answered GET {path} with something else than a list")
        except AriError as error:
            if not patient:
                raise
            # It connects before it has started to its end.
            log.info("asterisk does not answer yet", path=path, reason=str(error))
            await asyncio.sleep(AGAIN_S)


async def _kept(ari: Client, asked: Iterable[Expected]) -> set[tuple[str, str]]:
    """(kind, id) of those that Asterisk still has, or of which it does not say."""
    kept: set[tuple[str, str]] = set()

    async def ask(one: Expected) -> None:
        if await _exists(ari, _path(one)):
            kept.add((one.kind, one.id))

    await for_each(asked, ask, ASKED_AT_ONCE)
    return kept


async def _exists(ari: Client, path: str) -> bool:
    for left in reversed(range(EXISTS_TRIES)):
        try:
            await ari.request("GET", path)
            break
        except AriNotFound:
            return False
        except AriError as error:
            if not left:
                log.warning("taken for still there, until it is asked again", path=path, reason=str(error))
                break
        await asyncio.sleep(AGAIN_S)
    return True


def _path(one: Expected) -> str:
    if one.kind == "playback":
        return f"/playbacks/{quote(one.id, safe='')}"
    return f"/recordings/live/{quote(recording_name(one.auth_id, one.id), safe='')}"
